"""The whole system on the 3x3 grid: real actors, shards and learner find the optimal policy."""

from pathlib import Path

import numpy as np

from actors.gridworld import SIZE, GridworldEnvironment
from common.policy import load_policy
from common.presets import PRESETS
from examples.gridworld import PLAYABLE, grid_model, optimal_arrows, value_iteration
from learner.checkpoint import newest_checkpoint
from tests.launching import finish, progress, start


def q_table(policy: Path) -> np.ndarray:
    """[squares, moves], what a policy file says of every square but the end."""
    env = GridworldEnvironment()
    states = np.stack([env.reset(options={"square": divmod(square, SIZE)})[0] for square in PLAYABLE])
    table = np.zeros_like(grid_model().reward)
    table[PLAYABLE] = load_policy(policy).q_values(states)
    return table


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
    optimal = value_iteration(grid_model(), PRESETS["gridworld"].agent.gamma)
    for policy in (checkpoint / "policy.pt", run / "best.pt"):
        assert optimal_arrows(q_table(policy), optimal) == len(PLAYABLE), policy
