"""The article's 3x3 grid."""

import numpy as np
import pytest

from actors.environment import environment_spec, make_environment
from actors.gridworld import MOVES, GridworldEnvironment

ACTION = {name: index for index, name in enumerate(MOVES)}


def play(env: GridworldEnvironment, *moves: str) -> tuple[float, bool, int]:
    """Return, whether it ended, and the square as row * 3 + column."""
    total, terminated = 0.0, False
    for move in moves:
        state, reward, terminated, _, _ = env.step(ACTION[move])
        total += reward
    return total, terminated, int(state.argmax())


@pytest.mark.parametrize(
    ("moves", "outcome"),
    [
        (("up+right", "up+right"), (-1.0, True, 2)),
        (("right", "right", "up", "up"), (-3.0, True, 2)),
        (("left",), (-1.0, False, 6)),
        (("down+right",), (-1.0, False, 6)),
        (("up", "down+right", "up+left", "right", "down", "left", "up"), (-7.0, False, 3)),
    ],
)
def test_returns_are_those_of_the_article(moves: tuple[str, ...], outcome: tuple[float, bool, int]) -> None:
    env = GridworldEnvironment(exploring_starts=False)
    env.reset()
    assert play(env, *moves) == outcome


def test_api() -> None:
    env = make_environment(name="gridworld", seed=1)
    state, info = env.reset(options={"square": (2, 0), "stage": "grid"})
    assert env.environment_spec == environment_spec(name="gridworld")
    assert (env.environment_spec.state_shape, env.environment_spec.num_actions) == ((1, 9), 8)
    np.testing.assert_array_equal(state, [[0, 0, 0, 0, 0, 0, 255, 0, 0]])
    assert state.dtype == np.uint8
    assert info == {"stage": "grid", "x_pos": 0, "time": 0, "clear": False, "stages_cleared": 0, "raw_frames": 0}
    env.step(ACTION["up+right"])
    _, reward, terminated, truncated, info = env.step(ACTION["up+right"])
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == {"stage": "grid", "x_pos": 2, "time": 0, "clear": True, "stages_cleared": 1, "raw_frames": 2}
    assert env.render().shape == (96, 96, 3)
    assert env.render().dtype == np.uint8
    with pytest.raises(ValueError, match="call reset"):
        env.step(0)


def test_exploring_starts_reach_every_square_but_the_end() -> None:
    env = make_environment(name="gridworld", seed=0)
    squares = [int(env.reset()[0].argmax()) for _ in range(400)]
    counts = np.bincount(squares, minlength=9)
    assert counts[2] == 0
    assert np.delete(counts, 2).min() > 25
    again = make_environment(name="gridworld", seed=0)
    assert [int(again.reset()[0].argmax()) for _ in range(400)] == squares
    assert int(env.reset(seed=5)[0].argmax()) == int(again.reset(seed=5)[0].argmax())


def test_the_step_limit_truncates_but_not_at_the_end_square() -> None:
    env = make_environment(name="gridworld", max_steps=2, exploring_starts=False)
    env.reset()
    assert env.step(ACTION["left"])[2:4] == (False, False)
    assert env.step(ACTION["left"])[2:4] == (False, True)
    env.reset()
    env.step(ACTION["up+right"])
    assert env.step(ACTION["up+right"])[2:4] == (True, False)


def test_the_default_limit_is_a_hundred_steps() -> None:
    env = make_environment(name="gridworld", exploring_starts=False)
    env.reset()
    assert [env.step(ACTION["left"])[3] for _ in range(100)] == [False] * 99 + [True]


def test_the_end_square_is_no_start() -> None:
    with pytest.raises(ValueError, match=r"cannot start on square \(0, 2\)"):
        make_environment(name="gridworld").reset(options={"square": (0, 2)})
