import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.networks import QNetwork, flatten, q_values, to_inputs
from common.precision import uses_bfloat16
from common.types import Batch, EnvironmentSpec
from learner.device import resolve_device
from learner.learner import Learner
from learner.loss import munchausen_target, quantile_huber, take_actions
from tests.random_batches import MARIO_SPEC, VECTOR_SPEC, random_batch


def make_learner(spec: EnvironmentSpec = VECTOR_SPEC, **changes: Any) -> Learner:
    settings: dict[str, Any] = {
        "double": True,
        "dueling": False,
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-8,
        "huber_delta": 1.0,
        "max_grad_norm": 10.0,
        "target_update_period": 1000,
        "device": "cpu",
        "precision": "float32",
        "seed": 7,
    }
    return Learner(spec, **{**settings, **changes})


def network_of(weights: dict[str, torch.Tensor]) -> QNetwork:
    network = QNetwork(VECTOR_SPEC.state_shape, VECTOR_SPEC.num_actions)
    network.load_state_dict(weights)
    return network


def train(learner: Learner, updates: int) -> None:
    for _ in range(updates):
        learner.update(random_batch(VECTOR_SPEC, seed=learner.updates))


@pytest.mark.parametrize("double", [True, False])
def test_td_error_loss_and_q_mean_are_those_of_the_formulas(double: bool) -> None:
    learner = make_learner(double=double, learning_rate=0.05)
    train(learner, 20)  # so that online and target network choose differently
    state, batch = learner.state_dict(), random_batch(VECTOR_SPEC, seed=99, size=64)
    q_tm1 = q_values(network_of(state["online"]), batch.stack(batch.s_tm1))
    q_t_online = q_values(network_of(state["online"]), batch.stack(batch.s_t))
    q_t_target = q_values(network_of(state["target"]), batch.stack(batch.s_t))
    rows = np.arange(64)
    chosen = (q_t_online if double else q_t_target).argmax(axis=1)
    assert (q_t_online.argmax(axis=1) != q_t_target.argmax(axis=1)).any()
    taken = q_tm1[rows, batch.a_tm1]
    td_error = batch.r_t + batch.discount_t * q_t_target[rows, chosen] - taken
    size = np.abs(td_error)
    losses = np.where(size <= 1.0, td_error**2 / 2, size - 0.5)

    result = learner.update(batch)

    np.testing.assert_allclose(result.td_error, td_error, rtol=1e-4, atol=1e-5)
    assert result.loss == pytest.approx((batch.weight * losses).mean(), rel=1e-4)
    assert result.q_mean == pytest.approx(taken.mean(), rel=1e-4)


def test_transitions_without_weight_teach_nothing() -> None:
    learner = make_learner()
    before = learner.weights()
    batch = random_batch(VECTOR_SPEC, seed=0)
    learner.update(batch._replace(weight=np.zeros_like(batch.weight)))
    np.testing.assert_array_equal(learner.weights(), before)


def test_target_network_is_copied_every_period_and_only_then() -> None:
    learner = make_learner(target_update_period=3)
    first = flatten(network_of(learner.state_dict()["target"]))
    for update in range(1, 7):
        train(learner, 1)
        target = flatten(network_of(learner.state_dict()["target"]))
        assert np.array_equal(target, learner.weights()) == (update % 3 == 0)
        assert np.array_equal(target, first) == (update < 3)


@pytest.mark.parametrize("munchausen", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_batch_prepared_before_a_target_copy_trains_as_one_prepared_after_it(
    precision: str, munchausen: float
) -> None:
    def after_three_updates(ahead: bool) -> dict[str, Any]:
        learner = make_learner(target_update_period=2, precision=precision, munchausen=munchausen, learning_rate=0.05)
        batches = [random_batch(VECTOR_SPEC, seed=seed) for seed in range(3)]
        prepared = [learner.prepare(batch) for batch in batches] if ahead else []
        for index, batch in enumerate(batches):
            learner.finish(learner.start(prepared[index] if ahead else learner.prepare(batch, with_target=False)))
        return learner.state_dict()

    ahead, in_turn = after_three_updates(True), after_three_updates(False)
    for name, weight in ahead["online"].items():
        torch.testing.assert_close(weight, in_turn["online"][name], rtol=0, atol=0)


def test_a_batch_prepared_before_another_state_is_loaded_trains_with_that_state() -> None:
    other = make_learner(target_update_period=1, learning_rate=0.05)
    train(other, 3)
    batch = random_batch(VECTOR_SPEC, seed=9)
    learner = make_learner()
    prepared = learner.prepare(batch)
    learner.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(learner.finish(learner.start(prepared)).td_error, other.update(batch).td_error)


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    # With so large an epsilon Adam's first step is learning_rate * gradient / epsilon.
    settings: dict[str, Any] = {"learning_rate": 100.0, "adam_epsilon": 100.0}
    batch = random_batch(VECTOR_SPEC, seed=0)
    for max_grad_norm in (0.01, None):
        learner = make_learner(max_grad_norm=max_grad_norm, **settings)
        before = learner.weights()
        norm = learner.update(batch).grad_norm
        assert norm > 0.1
        step = np.linalg.norm(learner.weights() - before)
        assert step == pytest.approx(norm if max_grad_norm is None else max_grad_norm, rel=0.02)


def test_loss_falls_on_a_batch_that_does_not_change() -> None:
    learner = make_learner()
    batch = random_batch(VECTOR_SPEC, seed=3)
    first = learner.update(batch).loss
    losses = [learner.update(batch).loss for _ in range(300)]
    assert losses[-1] < 0.05 * first
    assert learner.updates == 301


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dueling", [False, True])
def test_one_update_moves_every_layer_of_the_mario_network(precision: str, dueling: bool) -> None:
    learner = make_learner(MARIO_SPEC, precision=precision, dueling=dueling)
    before = learner.state_dict()["online"]
    result = learner.update(random_batch(MARIO_SPEC, seed=0, size=8))
    assert result.td_error.dtype == np.float32
    for name, tensor in learner.state_dict()["online"].items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert not torch.equal(tensor, before[name]), name


def test_bfloat16_gives_nearly_the_float32_result() -> None:
    batch = random_batch(MARIO_SPEC, seed=0, size=8)
    exact, rounded = (make_learner(MARIO_SPEC, precision=p).update(batch) for p in ("float32", "bfloat16"))
    assert not np.array_equal(rounded.td_error, exact.td_error)
    np.testing.assert_allclose(rounded.td_error, exact.td_error, atol=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_and_batches_give_the_same_weights_bit_for_bit(precision: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = []
        for _ in range(2):
            learner = make_learner(MARIO_SPEC, precision=precision, target_update_period=2)
            for seed in range(4):
                learner.update(random_batch(MARIO_SPEC, seed, size=8))
            runs.append(learner.weights())
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_learner_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    train(make_learner(), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_restored_learner_continues_bit_for_bit() -> None:
    whole = make_learner(target_update_period=4)
    train(whole, 6)
    state = whole.state_dict()
    train(whole, 6)
    restored = make_learner(target_update_period=4, seed=1)
    restored.load_state_dict(state)
    assert restored.updates == 6
    train(restored, 6)
    np.testing.assert_array_equal(restored.weights(), whole.weights())


def test_state_is_a_copy_both_ways() -> None:
    learner = make_learner()
    train(learner, 2)
    state = learner.state_dict()
    moment = state["optimizer"]["state"][0]["exp_avg"].clone()
    online = state["online"]["fc.0.weight"].clone()
    restored = make_learner()
    restored.load_state_dict(state)
    train(learner, 2)
    train(restored, 2)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moment)
    assert torch.equal(state["online"]["fc.0.weight"], online)


def test_weights_are_a_copy() -> None:
    learner = make_learner()
    before = learner.weights()
    kept = before.copy()
    train(learner, 1)
    np.testing.assert_array_equal(before, kept)
    assert not np.array_equal(learner.weights(), kept)


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights() -> None:
    learner = make_learner()
    train(learner, 1)
    before = learner.weights()
    batch = random_batch(VECTOR_SPEC, seed=0)
    batch.r_t[3] = np.inf
    with pytest.raises(RuntimeError, match="not finite at update 2"):
        learner.update(batch)
    np.testing.assert_array_equal(learner.weights(), before)
    assert learner.updates == 1


def test_updates_that_were_started_after_a_failed_one_change_nothing() -> None:
    learner = make_learner(target_update_period=2)
    train(learner, 1)
    before = learner.state_dict()
    failing, good = random_batch(VECTOR_SPEC, seed=0), random_batch(VECTOR_SPEC, seed=1)
    failing.r_t[3] = np.nan
    started = [learner.start(learner.prepare(batch)) for batch in (failing, good)]
    with pytest.raises(RuntimeError, match="not finite at update 2"):
        learner.finish(started[0])
    assert learner.updates == 1
    after = learner.state_dict()
    for name, tensor in before["online"].items():
        assert torch.equal(after["online"][name], tensor), name
    assert after["optimizer"]["state"][0]["step"] == 1
    learner.update(good)
    assert learner.updates == 2
    assert not torch.equal(learner.state_dict()["online"]["fc.2.bias"], before["online"]["fc.2.bias"])


def test_read_only_batches_train_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    batch: Batch = random_batch(VECTOR_SPEC, seed=0)
    for array in batch:
        array.setflags(write=False)
    make_learner().update(batch)
    assert not recwarn.list


def test_unknown_device_is_refused() -> None:
    with pytest.raises(UserError, match='"gpu": take auto, cpu, cuda or cuda:0'):
        resolve_device("gpu")


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    name = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f'"{name}" is not on this machine'):
        make_learner(device=name)


def test_auto_takes_cuda_only_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_auto_precision_is_bfloat16_where_the_processor_computes_in_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert uses_bfloat16("auto", torch.device("cpu")) == bool(flags & {"avx512_bf16", "amx_bf16"})


def learning_rate(learner: Learner) -> float:
    return float(learner.state_dict()["optimizer"]["param_groups"][0]["lr"])


def test_the_step_size_decays_in_a_straight_line_and_goes_on_from_a_checkpoint() -> None:
    decay: dict[str, Any] = {"learning_rate_final": 2e-4, "learning_rate_decay_updates": 8}
    learner = make_learner(**decay)
    train(learner, 5)
    assert learning_rate(learner) == pytest.approx(1e-3 - 4 / 8 * 8e-4)  # of the last update, the fifth
    restored = make_learner(**decay)
    restored.load_state_dict(learner.state_dict())
    train(restored, 1)
    assert learning_rate(restored) == pytest.approx(1e-3 - 5 / 8 * 8e-4)
    train(restored, 10)
    assert learning_rate(restored) == pytest.approx(2e-4)


def test_without_a_number_of_updates_the_step_size_decays_over_nine_tenths_of_the_run() -> None:
    learner = make_learner(learning_rate_final=2e-4)
    for done, expected in ((0.0, 1e-3), (0.45, 6e-4), (0.9, 2e-4), (1.0, 2e-4), (0.5, 1e-3 - 5 / 9 * 8e-4)):
        learner.run_fraction = done
        train(learner, 1)
        assert learning_rate(learner) == pytest.approx(expected)


def test_the_step_size_stays_without_a_final_one() -> None:
    learner = make_learner()
    learner.run_fraction = 0.5
    train(learner, 3)
    assert learning_rate(learner) == 1e-3


def test_the_policy_is_the_moving_average_of_the_weights() -> None:
    learner = make_learner(average_decay=0.6)
    expected = learner.weights()
    for update in range(1, 9):
        train(learner, 1)
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * learner.weights()
        np.testing.assert_allclose(learner.policy_weights(), expected, rtol=1e-5, atol=1e-7)
    assert np.abs(learner.policy_weights() - learner.weights()).max() > 1e-4


def test_averaging_leaves_training_alone() -> None:
    plain, averaged = make_learner(), make_learner(average_decay=0.9)
    for learner in (plain, averaged):
        train(learner, 5)
    np.testing.assert_array_equal(averaged.weights(), plain.weights())
    np.testing.assert_array_equal(plain.policy_weights(), plain.weights())


def test_an_average_begins_with_the_network_of_a_state_that_has_none() -> None:
    plain, averaged = make_learner(), make_learner(average_decay=0.9)
    train(plain, 5)
    averaged.load_state_dict(plain.state_dict())
    np.testing.assert_array_equal(averaged.policy_weights(), plain.weights())


def test_munchausen_targets_take_the_target_networks_values_of_both_states() -> None:
    learner = make_learner(munchausen=0.9, munchausen_temperature=0.1, learning_rate=0.05)
    train(learner, 20)  # so that online and target network differ
    state, batch = learner.state_dict(), random_batch(VECTOR_SPEC, seed=99, size=64)
    q = {
        (name, when): torch.tensor(q_values(network_of(state[name]), batch.stack(rows)))
        for name in ("online", "target")
        for when, rows in (("tm1", batch.s_tm1), ("t", batch.s_t))
    }
    target = munchausen_target(
        torch.tensor(batch.r_t),
        torch.tensor(batch.discount_t),
        torch.tensor(batch.a_tm1),
        q["target", "tm1"],
        q["target", "t"],
        alpha=0.9,
        temperature=0.1,
    )
    expected = target - take_actions(q["online", "tm1"], torch.tensor(batch.a_tm1))
    np.testing.assert_allclose(learner.update(batch).td_error, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("late_update", "run_fraction", "epsilon_of_a_step"),
    [(21, 0.9, 0.3), (20, 0.1, 0.5), (1, 0.1, 0.5), (None, 0.39, 0.3), (None, 0.4, 0.5)],
)
def test_targets_value_the_policy_that_explores(
    late_update: int | None, run_fraction: float, epsilon_of_a_step: float
) -> None:
    late: dict[str, Any] = {"target_epsilon_late": 0.5, "target_epsilon_late_update": late_update}
    learner = make_learner(target_epsilon=0.3, **late, gamma=0.9, learning_rate=0.05)
    learner.run_fraction = run_fraction
    train(learner, 20)  # so that online and target network differ
    assert (learner.target_epsilon, learner.backup_epsilon) == (epsilon_of_a_step, 0.0)
    state, batch = learner.state_dict(), random_batch(VECTOR_SPEC, seed=99, size=64)
    q_tm1 = q_values(network_of(state["online"]), batch.stack(batch.s_tm1))
    q_t = q_values(network_of(state["target"]), batch.stack(batch.s_t))
    choice = q_values(network_of(state["online"]), batch.stack(batch.s_t)).argmax(axis=1)
    epsilon = 1 - (1 - epsilon_of_a_step) ** (np.log(np.maximum(batch.discount_t, 1e-9)) / np.log(0.9))
    value = (1 - epsilon) * q_t[np.arange(64), choice] + epsilon * q_t.mean(axis=1)
    expected = batch.r_t + batch.discount_t * value - q_tm1[np.arange(64), batch.a_tm1]
    np.testing.assert_allclose(learner.update(batch).td_error, expected, rtol=1e-4, atol=1e-5)


def test_with_tree_backup_targets_count_random_actions_in_the_last_state_alone() -> None:
    learner = make_learner(target_epsilon=0.3, tree_backup=True, gamma=0.9, learning_rate=0.05)
    train(learner, 20)
    assert learner.backup_epsilon == 0.3
    state, batch = learner.state_dict(), random_batch(VECTOR_SPEC, seed=99, size=64)
    q_tm1 = q_values(network_of(state["online"]), batch.stack(batch.s_tm1))
    q_t = q_values(network_of(state["target"]), batch.stack(batch.s_t))
    choice = q_values(network_of(state["online"]), batch.stack(batch.s_t)).argmax(axis=1)
    value = 0.7 * q_t[np.arange(64), choice] + 0.3 * q_t.mean(axis=1)
    expected = batch.r_t + batch.discount_t * value - q_tm1[np.arange(64), batch.a_tm1]
    np.testing.assert_allclose(learner.update(batch).td_error, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("munchausen", [0.0, 0.9])
@pytest.mark.parametrize("dueling", [False, True])
def test_quantiles_learn_the_mean_of_a_terminal_reward(munchausen: float, dueling: bool) -> None:
    """Rewards of -1 and 3 with even chances: a mean of 1, whatever the state."""
    learner = make_learner(quantiles=8, dueling=dueling, munchausen=munchausen, learning_rate=3e-3)
    rng = np.random.default_rng(0)
    for seed in range(400):
        batch = random_batch(VECTOR_SPEC, seed=seed, size=64)
        rewards = np.where(rng.random(64) < 0.5, -1.0, 3.0).astype(np.float32)
        result = learner.update(batch._replace(r_t=rewards, discount_t=np.zeros(64, np.float32)))
    # Munchausen's bonus for an action that is as likely as the others: 0.9 * 0.03 * ln(1 / A), no matter here.
    assert result.q_mean == pytest.approx(1.0, abs=0.35)
    assert result.td_error.shape == (64,)


def test_quantile_updates_of_a_terminal_state_have_the_loss_of_the_formula() -> None:
    learner = make_learner(quantiles=4)
    batch = random_batch(VECTOR_SPEC, seed=1, size=8)._replace(discount_t=np.zeros(8, np.float32))
    network = QNetwork(VECTOR_SPEC.state_shape, VECTOR_SPEC.num_actions, quantiles=4)
    network.load_state_dict(learner.state_dict()["online"])
    states = torch.tensor(batch.stack(batch.s_tm1))
    z = network.quantiles(to_inputs(states, torch.float32), network.cast(torch.float32))
    z_tm1 = z[torch.arange(8), torch.tensor(batch.a_tm1)]
    target = torch.tensor(batch.r_t).unsqueeze(1).expand(8, 4)
    loss = (torch.tensor(batch.weight) * quantile_huber(z_tm1, target, 1.0)).mean()
    result = learner.update(batch)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    np.testing.assert_allclose(result.td_error, batch.r_t - z_tm1.mean(1).detach().numpy(), rtol=1e-4, atol=1e-5)
