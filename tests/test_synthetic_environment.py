"""Recorded frames at a fixed cost per step, alone and in the whole system."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.environment import environment_spec, make_environment
from actors.synthetic import DEFAULT_MAX_STEPS, RECORDED_FRAMES, SyntheticEnvironment, record
from common.config import Config, EnvConfig
from common.errors import UserError
from common.validation import validate
from tests.launching import SMALL, finish, progress, start


def make(**settings: Any) -> SyntheticEnvironment:
    defaults: dict[str, Any] = {"step_ms": 0.0, "core": "nes-py"}
    env = make_environment(name="synthetic", **(defaults | settings))
    assert isinstance(env, SyntheticEnvironment)
    return env


def play(env: SyntheticEnvironment, steps: int, action: int = 0) -> NDArray[np.uint8]:
    """uint8 [steps + 1, 84, 84]: the newest frame of each state."""
    return np.stack([env.reset()[0][-1], *(env.step(action)[0][-1] for _ in range(steps))])


def test_it_has_the_real_environments_spec_and_its_frames_in_order() -> None:
    env = make(actions="simple", frame_stack=3)
    assert env.environment_spec == environment_spec(name="mario", actions="simple", frame_stack=3)
    real = make_environment(core="nes-py", noop_max=0)
    recording = record(real, RECORDED_FRAMES, seed=0)
    real.close()
    shown = play(env, 10)
    first = next(i for i, frame in enumerate(recording.frames) if (frame == shown[0]).all())
    np.testing.assert_array_equal(shown, recording.frames[first : first + 11])
    assert len(np.unique(recording.frames.reshape(RECORDED_FRAMES, -1), axis=0)) > RECORDED_FRAMES / 2
    assert recording.rewards.any()


def test_states_are_stacked_and_begin_with_zeros() -> None:
    env = make()
    state, _ = env.reset()
    assert state.shape == (4, 84, 84)
    assert state.dtype == np.uint8
    assert not state[:3].any()
    assert state[3].any()
    following, *_ = env.step(0)
    np.testing.assert_array_equal(following[2], state[3])


def test_the_recording_goes_round_whatever_the_actions() -> None:
    once = play(make(seed=1), RECORDED_FRAMES + 2, action=0)
    again = play(make(seed=1), RECORDED_FRAMES + 2, action=4)
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once[:3], once[RECORDED_FRAMES : RECORDED_FRAMES + 3])


def test_episodes_have_a_fixed_length_and_start_at_drawn_places() -> None:
    env = make(max_steps=3)
    starts = set()
    for _ in range(20):
        starts.add(env.reset()[0].tobytes())
        assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
        with pytest.raises(ValueError, match="call reset"):
            env.step(0)
    assert len(starts) > 5
    env = make()
    env.reset()
    assert [env.step(0)[3] for _ in range(DEFAULT_MAX_STEPS)].index(True) == DEFAULT_MAX_STEPS - 1


def test_a_step_takes_at_least_its_time_and_sleeps_it() -> None:
    env = make(step_ms=20.0)
    env.reset()
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(10):
        env.step(0)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    assert wall >= 0.2
    assert cpu < wall / 2


def test_a_step_that_takes_less_than_no_time_is_refused() -> None:
    with pytest.raises(UserError, match=r"--env.step-ms -1 is out of range"):
        validate(Config(env=EnvConfig(name="synthetic", step_ms=-1.0)))


def test_unknown_actions_are_refused() -> None:
    env = make()
    env.reset()
    with pytest.raises(ValueError, match="action 5"):
        env.step(5)


@pytest.mark.slow
def test_a_run_plays_and_evaluates_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    synthetic = ["--env.name", "synthetic", "--env.step-ms", "1", "--env.max-steps", "50"]
    status, out, err = finish(start(run, *SMALL, *synthetic, "--total-env-steps", "1000"))
    assert (status, err) == (0, "")
    assert "evaluation after" in out
    last = progress(run)[-1]
    assert last["env_steps"] >= 1000
    assert last["episodes"] > 10
    assert last["updates"] > 0
