import torch

from learner.loss import (
    double_dqn_target,
    dqn_target,
    greedy_policy,
    huber,
    munchausen_target,
    quantile_huber,
    quantile_target,
    take_actions,
    window_epsilon,
)

EPSILON = torch.full((3,), 0.2)
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


def test_munchausen_target_by_hand() -> None:
    # Temperature 1 and Q-values that are logarithms make policies of plain fractions.
    # s_tm1: pi = (1/4, 3/4), ln(1/4) = -1.386, which is cut at -1, and ln(3/4) = -0.2877; s_t: ln(1 + 3) = 1.3863.
    q = torch.tensor([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]]).log()
    actions = torch.tensor([0, 1, 1])
    target = munchausen_target(R_T, DISCOUNT_T, actions, q, q, alpha=0.9, temperature=1.0)
    expected = [1.0 - 0.9 + 0.9 * 1.386294, -1.0 - 0.9 * 0.287682, 2.0 - 0.9 * 0.287682 + 0.5 * 1.386294]
    torch.testing.assert_close(target, torch.tensor(expected))


def test_munchausen_target_without_bonus_tends_to_dqns_as_the_temperature_falls() -> None:
    actions = torch.tensor([0, 1, 0])
    target = munchausen_target(R_T, DISCOUNT_T, actions, Q_T_ONLINE, Q_T_TARGET, alpha=0.0, temperature=1e-3)
    torch.testing.assert_close(target, dqn_target(R_T, DISCOUNT_T, Q_T_TARGET))


def test_values_of_a_policy_that_explores_mix_in_the_mean() -> None:
    # means of Q_T_TARGET: 15, 15, 35; 20 -> 0.8 * 20 + 0.2 * 15 = 19, 40 -> 39, and for double DQN 30 -> 31
    expected = torch.tensor([1.0 + 0.9 * 19, -1.0, 2.0 + 0.5 * 39])
    torch.testing.assert_close(dqn_target(R_T, DISCOUNT_T, Q_T_TARGET, epsilon=EPSILON), expected)
    expected[2] = 2.0 + 0.5 * 31
    torch.testing.assert_close(double_dqn_target(R_T, DISCOUNT_T, Q_T_ONLINE, Q_T_TARGET, epsilon=EPSILON), expected)


def test_windows_of_all_lengths_speak_of_the_same_exploration() -> None:
    discounts = torch.tensor([0.9, 0.9**3, 0.9**5])
    torch.testing.assert_close(
        window_epsilon(discounts, torch.tensor(0.1), 0.9), torch.tensor([0.1, 1 - 0.9**3, 1 - 0.9**5])
    )  # gamma 0.9 and 1 - epsilon 0.9
    torch.testing.assert_close(
        window_epsilon(discounts, torch.tensor(0.02), 0.9), 1 - 0.98 ** torch.tensor([1.0, 3.0, 5.0])
    )


def test_munchausen_values_of_a_policy_that_explores_mix_in_the_mean() -> None:
    actions = torch.tensor([0, 1, 0])
    target = munchausen_target(
        R_T, DISCOUNT_T, actions, Q_T_ONLINE, Q_T_TARGET, alpha=0.0, temperature=1e-3, epsilon=EPSILON
    )
    torch.testing.assert_close(target, dqn_target(R_T, DISCOUNT_T, Q_T_TARGET, epsilon=EPSILON))


def test_quantile_huber_by_hand() -> None:
    # Levels 1/4 and 3/4. Errors of quantile 0: 1 and -1; of quantile 2: -1 and -3. Huber with delta 1: 0.5 and 2.5.
    loss = quantile_huber(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -1.0]]), 1.0)
    first = (0.25 * 0.5 + 0.75 * 0.5) / 2
    second = (0.25 * 0.5 + 0.25 * 2.5) / 2
    torch.testing.assert_close(loss, torch.tensor([first + second]))


def test_quantile_regression_finds_the_quantiles_of_its_targets() -> None:
    samples = torch.randn(4000, generator=torch.Generator().manual_seed(0)).exp()  # skewed
    z = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(600):
        optimizer.zero_grad()
        quantile_huber(z, samples.unsqueeze(0), 1e-3).sum().backward()
        optimizer.step()
    expected = samples.quantile((torch.arange(5) + 0.5) / 5)
    torch.testing.assert_close(z.detach()[0], expected, atol=0.08, rtol=0)


def test_quantile_targets_of_one_quantile_are_those_of_q_values() -> None:
    z_t = Q_T_TARGET.unsqueeze(2)
    greedy = quantile_target(R_T, DISCOUNT_T, greedy_policy(Q_T_ONLINE), 0.0, z_t, EPSILON)
    expected = double_dqn_target(R_T, DISCOUNT_T, Q_T_ONLINE, Q_T_TARGET, epsilon=EPSILON)
    torch.testing.assert_close(greedy.squeeze(1), expected)
    log_policy = torch.log_softmax(Q_T_TARGET / 5, dim=1)
    entropy = -5 * (log_policy.exp() * log_policy).sum(1)
    soft = quantile_target(R_T, DISCOUNT_T, log_policy.exp(), entropy, z_t, None)
    munchausen = munchausen_target(
        R_T, DISCOUNT_T, torch.zeros(3, dtype=torch.int64), Q_T_ONLINE, Q_T_TARGET, alpha=0.0, temperature=5.0
    )
    torch.testing.assert_close(soft.squeeze(1), munchausen)


def test_quantile_targets_keep_the_spread_of_the_chosen_action() -> None:
    z_t = torch.tensor([[[1.0, 3.0], [0.0, 10.0]]])
    target = quantile_target(
        torch.tensor([1.0]), torch.tensor([0.5]), greedy_policy(torch.tensor([[2.0, 5.0]])), 0.0, z_t, None
    )
    torch.testing.assert_close(target, torch.tensor([[1.0, 6.0]]))
