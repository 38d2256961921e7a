"""The whole system on the 3x3 grid: real actors, shards and learner find the optimal policy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.gridworld import SIZE, GridworldEnvironment, gridworld_spec
from common.networks import build_network, q_values, unflatten_
from common.policy import load_policy
from common.presets import PRESETS
from driver.serial import SerialRun
from examples.gridworld import PLAYABLE, grid_model, value_iteration
from learner.checkpoint import newest_checkpoint
from tests.launching import finish, progress, start


def states() -> NDArray[np.uint8]:
    """uint8 [8, 1, 9], every square but the end."""
    env = GridworldEnvironment()
    return np.stack([env.reset(options={"square": divmod(square, SIZE)})[0] for square in PLAYABLE])


def test_the_preset_ends_by_itself_with_an_optimal_move_of_every_square(tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, err = finish(start(run, "--preset", "gridworld", "--ray.address", "local"))
    assert (status, err) == (0, "")
    assert "the limit of" in out
    last = progress(run)[-1]
    assert last["actors_alive"] == PRESETS["gridworld"].actors.count
    assert last["time_s"] < 60
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    optimal = value_iteration(grid_model(), PRESETS["gridworld"].agent.gamma)[PLAYABLE]
    for path in (checkpoint / "policy.pt", run / "best.pt"):
        learned = load_policy(path).q_values(states())
        chosen = optimal[np.arange(len(PLAYABLE)), learned.argmax(axis=1)]
        np.testing.assert_allclose(chosen, optimal.max(axis=1), err_msg=str(path))
    np.testing.assert_allclose(load_policy(checkpoint / "policy.pt").q_values(states()), optimal, atol=0.02)


def n_step_values_of_a_random_walk(n_step: int, gamma: float) -> NDArray[np.float64]:
    """[squares, moves]: the Q-values that uncorrected n-step targets lead to when every action is drawn evenly.

    The first move, then n - 1 moves drawn evenly, then the best move's value: the fixed point is iterated to.
    """
    model = grid_model()
    fixed_point = np.zeros_like(model.reward)
    for _ in range(500):
        value = fixed_point.max(axis=1)
        for _ in range(n_step - 1):
            value = (model.reward + gamma * model.goes_on * value[model.next_square]).mean(axis=1)
        fixed_point = model.reward + gamma * model.goes_on * value[model.next_square]
    return fixed_point


def test_n_step_returns_lead_to_their_own_fixed_point() -> None:
    config = PRESETS["gridworld"]
    config = replace(
        config,
        agent=replace(config.agent, n_step=3),
        actors=replace(config.actors, envs_per_actor=8, epsilon=1.0, epsilon_alpha=0.0),
        # Uniform and quadratic: what is random must be averaged, which neither priorities nor Huber's tails do.
        replay=replace(config.replay, priority_exponent=0.0, samples_per_insert=16.0),
        learner=replace(config.learner, batch_size=128, learning_rate=1e-3, huber_delta=100.0, max_grad_norm=None),
    )
    run = SerialRun(config)
    run.run(8_000)
    network = build_network(gridworld_spec(), dueling=False, seed=0)
    unflatten_(network, run.learner.weights())
    run.close()
    learned = q_values(network, states())
    expected = n_step_values_of_a_random_walk(3, config.agent.gamma)[PLAYABLE]
    assert np.abs(learned - expected).mean() < 0.3  # of values from -1 to -5
