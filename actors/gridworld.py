"""The 3x3 grid of the Paperspace article on double DQN: an environment that needs no ROM and learns in seconds."""

from collections.abc import Mapping
from typing import Any, Final

import gym
import numpy as np
from numpy.typing import NDArray

from common.types import EnvironmentSpec

SIZE: Final = 3
START: Final = (2, 0)
"""(row, column) of the start square, bottom left; rows count from the top."""
END: Final = (0, 2)
"""(row, column) of the end square, top right."""
MOVES: Final[dict[str, tuple[int, int]]] = {
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up+left": (-1, -1),
    "up+right": (-1, 1),
    "down+left": (1, -1),
    "down+right": (1, 1),
}
"""Action name to its step in (rows, columns), in the order of the action indices."""
STAGE: Final = "grid"
DEFAULT_MAX_STEPS: Final = 100
_TILE: Final = 32  # pixels, in `render`


class GridworldEnvironment(gym.Env[NDArray[np.uint8], int]):
    """Eight moves from square to square, until the end square is reached.

    The reward is -1 for each square landed on, 0 for the end square. A move off the edge leaves the agent where it is,
    at -1. So the best return from the start square is -1 (diagonally twice), and right, right, up, up returns -3.

    Observation: uint8 [1, 9], 255 at the agent's square (row * 3 + column), 0 elsewhere.
    """

    def __init__(
        self,
        *,
        max_steps: int = DEFAULT_MAX_STEPS,
        exploring_starts: bool = True,
        seed: int | np.random.SeedSequence = 0,
    ) -> None:
        """
        Args:
            max_steps: agent steps after which an episode is truncated.
            exploring_starts: start each episode on any square but the end, drawn evenly (exploring starts; Sutton and
                Barto, 2018, section 5.3), so that every square's best move is learned; else always bottom left.
            seed: of the draws.
        """
        self.environment_spec = gridworld_spec()
        self.observation_space = gym.spaces.Box(0, 255, self.environment_spec.state_shape, np.uint8)
        self.action_space = gym.spaces.Discrete(len(MOVES))
        self._moves = list(MOVES.values())
        self._starts = [divmod(i, SIZE) for i in range(SIZE * SIZE) if divmod(i, SIZE) != END]
        self._exploring_starts = exploring_starts
        self._max_steps = max_steps
        self._rng = np.random.default_rng(seed)
        self._square = END
        self._steps = 0

    def reset(
        self, *, seed: int | np.random.SeedSequence | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: starts the environment's own generator afresh.
            options: "square": (row, column) to start on, other than the end; any other key is ignored.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._steps = 0
        self._square = self._start_square(options or {})
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Moves one square.

        Raises:
            ValueError: the episode is over, or there is no such action.
        """
        if self._square == END or self._steps >= self._max_steps:
            raise ValueError("the episode is over: call reset first")
        if not 0 <= action < len(MOVES):
            raise ValueError(f"action {action} is not one of 0 … {len(MOVES) - 1}")
        row, column = (here + by for here, by in zip(self._square, self._moves[action], strict=True))
        if 0 <= row < SIZE and 0 <= column < SIZE:
            self._square = (row, column)
        self._steps += 1
        terminated = self._square == END
        truncated = not terminated and self._steps >= self._max_steps
        return self._observation(), 0.0 if terminated else -1.0, terminated, truncated, self._info()

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]  # gym allows several kinds of frame
        """The grid as RGB, uint8 [96, 96, 3]: start green, end red, the agent white."""
        squares = np.full((SIZE, SIZE, 3), 64, np.uint8)
        squares[START] = (0, 160, 0)
        squares[END] = (192, 0, 0)
        screen = squares.repeat(_TILE, axis=0).repeat(_TILE, axis=1)
        top, left = (index * _TILE + _TILE // 4 for index in self._square)
        screen[top : top + _TILE // 2, left : left + _TILE // 2] = 255
        return screen

    def close(self) -> None:
        """There is nothing to free."""

    def _start_square(self, options: Mapping[str, Any]) -> tuple[int, int]:
        if "square" in options:
            square = tuple(options["square"])
            if square not in self._starts:
                raise ValueError(f"an episode cannot start on square {square}; choose one of {self._starts}")
            return square
        if self._exploring_starts:
            return self._starts[int(self._rng.integers(len(self._starts)))]
        return START

    def _observation(self) -> NDArray[np.uint8]:
        observation = np.zeros((1, SIZE * SIZE), np.uint8)
        observation[0, self._square[0] * SIZE + self._square[1]] = 255
        return observation

    def _info(self) -> dict[str, Any]:
        reached_end = self._square == END
        return {
            "stage": STAGE,
            "x_pos": self._square[1],
            "time": 0,
            "clear": reached_end,
            "stages_cleared": int(reached_end),
            "raw_frames": self._steps,
        }


def gridworld_spec() -> EnvironmentSpec:
    """One one-hot frame of nine bytes, eight moves."""
    return EnvironmentSpec(frame_shape=(SIZE * SIZE,), frame_stack=1, action_names=tuple(MOVES))
