"""Recorded frames at a fixed cost per step: the whole system under a load that needs no emulator while it runs.

The cost is slept, not computed, so that one machine carries more actors than it has cores. What is measured is then
the system around the environment: see `benchmarks/scaling.py`.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import gym
import numpy as np
from numpy.typing import NDArray

from common.types import EnvironmentSpec

DEFAULT_MAX_STEPS: Final = 400
RECORDED_FRAMES: Final = 96  # a second of an emulator, for every process that plays


class Recording(NamedTuple):
    """What an environment showed, step by step, over as many episodes as it took."""

    frames: NDArray[np.uint8]  # [M, *F]
    rewards: NDArray[np.float32]  # [M], of the step that led to the frame; 0 where an episode began


def record(env: gym.Env[NDArray[np.uint8], int], frames: int, seed: int) -> Recording:
    """Plays evenly drawn actions until there are so many frames; leaves the environment open.

    Args:
        env: with states uint8 [S, *F] and a number of discrete actions.
        frames: M, at least 1.
        seed: of the actions.
    """
    assert isinstance(env.action_space, gym.spaces.Discrete)
    rng = np.random.default_rng(seed)
    shown: list[tuple[NDArray[np.uint8], float]] = []
    over = True
    while len(shown) < frames:
        if over:
            state, reward, over = env.reset()[0], 0.0, False
        else:
            state, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
            over = terminated or truncated
        shown.append((state[-1], float(reward)))
    return Recording(np.stack([frame for frame, _ in shown]), np.array([reward for _, reward in shown], np.float32))


class SyntheticEnvironment(gym.Env[NDArray[np.uint8], int]):
    """Shows a recording over and over, whatever the actions; each step sleeps a fixed time.

    Each episode starts at a place of the recording drawn evenly and ends by truncation after `max_steps` steps.

    Observation: uint8 [S, *F], as of every `Environment`.
    """

    def __init__(
        self,
        *,
        spec: EnvironmentSpec,
        recording: Recording,
        stage: str,
        step_ms: float,
        max_steps: int = DEFAULT_MAX_STEPS,
        seed: int | np.random.SeedSequence = 0,
    ) -> None:
        """
        Args:
            spec: the environment's, whose frames are those of the recording.
            recording: what is shown.
            stage: where it was recorded.
            step_ms: milliseconds that a step sleeps, 0 or more.
            max_steps: agent steps of every episode.
            seed: of the starts.
        """
        self.environment_spec = spec
        self.observation_space = gym.spaces.Box(0, 255, spec.state_shape, np.uint8)
        self.action_space = gym.spaces.Discrete(spec.num_actions)
        self._recording = recording
        self._stage = stage
        self._step_s = step_ms / 1000
        self._max_steps = max_steps
        self._rng = np.random.default_rng(seed)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=spec.frame_stack)
        self._place = 0
        self._steps = max_steps

    def reset(
        self, *, seed: int | np.random.SeedSequence | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: starts the environment's own generator afresh.
            options: ignored.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._place = int(self._rng.integers(len(self._recording.frames)))
        self._steps = 0
        self._frames.extend(np.zeros_like(self._recording.frames[0]) for _ in range(self._frames.maxlen or 0))
        self._frames.append(self._recording.frames[self._place])
        return np.stack(self._frames), self._info()

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Sleeps, then shows the next frame of the recording and its reward.

        Raises:
            ValueError: the episode is over, or there is no such action.
        """
        if self._steps >= self._max_steps:
            raise ValueError("the episode is over: call reset first")
        if not 0 <= action < self.environment_spec.num_actions:
            raise ValueError(f"action {action} is not one of 0 … {self.environment_spec.num_actions - 1}")
        time.sleep(self._step_s)
        self._steps += 1
        self._place = (self._place + 1) % len(self._recording.frames)
        self._frames.append(self._recording.frames[self._place])
        reward = float(self._recording.rewards[self._place])
        return np.stack(self._frames), reward, False, self._steps >= self._max_steps, self._info()

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]  # gym allows several kinds of frame
        """The present frame in three equal channels, uint8 [*F, 3]."""
        return np.repeat(self._recording.frames[self._place][..., None], 3, axis=-1)

    def close(self) -> None:
        """There is nothing to free."""

    def _info(self) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "x_pos": 0,
            "time": 0,
            "clear": False,
            "stages_cleared": 0,
            "raw_frames": self._steps,
        }
