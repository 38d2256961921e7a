import torch

from learner.loss import double_dqn_target, dqn_target, huber, take_actions

R_T = torch.tensor([1.0, -1.0, 2.0])
DISCOUNT_T = torch.tensor([0.9, 0.0, 0.5])  # the second episode terminated
Q_T_ONLINE = torch.tensor([[1.0, 5.0], [1.0, 5.0], [7.0, 3.0]])
Q_T_TARGET = torch.tensor([[10.0, 20.0], [10.0, 20.0], [30.0, 40.0]])


def test_dqn_target_takes_the_target_networks_maximum() -> None:
    # 1 + 0.9 * 20, -1 + 0 * 20, 2 + 0.5 * 40
    torch.testing.assert_close(dqn_target(R_T, DISCOUNT_T, Q_T_TARGET), torch.tensor([19.0, -1.0, 22.0]))


def test_double_dqn_target_values_the_online_networks_choice() -> None:
    # choices 1, 1, 0: 1 + 0.9 * 20, -1 + 0 * 20, 2 + 0.5 * 30
    target = double_dqn_target(R_T, DISCOUNT_T, Q_T_ONLINE, Q_T_TARGET)
    torch.testing.assert_close(target, torch.tensor([19.0, -1.0, 17.0]))


def test_take_actions_picks_one_value_per_row() -> None:
    torch.testing.assert_close(take_actions(Q_T_TARGET, torch.tensor([1, 0, 1])), torch.tensor([20.0, 10.0, 40.0]))


def test_huber_is_quadratic_within_delta_and_linear_beyond() -> None:
    # delta 2: 1.5 ** 2 / 2; 2 ** 2 / 2 at the seam; 2 * (5 - 2 / 2) on both sides
    td_error = torch.tensor([0.0, 1.5, 2.0, 5.0, -5.0])
    torch.testing.assert_close(huber(td_error, 2.0), torch.tensor([0.0, 1.125, 2.0, 8.0, 8.0]))
