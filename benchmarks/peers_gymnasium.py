"""The task in gymnasium's API, which other libraries want."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_task import make_task


class GymnasiumTask(gymnasium.Env):
    """The comparison's environment.

    Observation: uint8 [4, 84, 84], or [84, 84, 4] with `channels_last`.
    """

    def __init__(self, core: str, seed: int = 0, *, channels_last: bool = False) -> None:
        self._task = make_task(core, seed)
        self._channels_last = channels_last
        shape = self._task.environment_spec.state_shape
        if channels_last:
            shape = (*shape[1:], shape[0])
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(self._task.environment_spec.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """See `gymnasium.Env`."""
        super().reset(seed=seed)
        state, info = self._task.reset(seed=seed)
        return self._arranged(state), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        state, reward, terminated, truncated, info = self._task.step(int(action))
        return self._arranged(state), float(reward), terminated, truncated, info

    def close(self) -> None:
        """Frees the emulator."""
        self._task.close()

    def _arranged(self, state: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.moveaxis(state, 0, -1)) if self._channels_last else state
