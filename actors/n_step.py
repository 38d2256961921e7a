"""n-step returns of one environment, with the tail windows at an episode's end."""

from collections import deque
from typing import Literal, NamedTuple

Ending = Literal["terminated", "truncated"]


class Window(NamedTuple):
    """A finished n-step window: it starts in the episode's `start`-th state."""

    start: int
    steps: int  # m <= n rewards
    r_t: float  # sum over k < m of gamma**k * reward
    discount_t: float  # gamma**m, or 0 where the episode terminated


class NStepAccumulator:
    """Sums rewards over windows of n steps.

    A window ends after n rewards, or where the episode ends: then the windows of length n, n-1, … 1 are all
    emitted, so that what happened just before a death is learned. Termination stops the bootstrap
    (`discount_t` 0); a truncation by time limit does not (gamma**m), see Pardo et al., 2018.
    """

    def __init__(self, n_step: int, gamma: float) -> None:
        """Raises ValueError for n_step < 1 or gamma outside [0, 1]."""
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, not {n_step}")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], not {gamma}")
        self._n_step = n_step
        self._gamma = gamma
        self._rewards: deque[float] = deque()
        self._start = 0

    def reset(self) -> None:
        """Begins a new episode."""
        self._rewards.clear()
        self._start = 0

    def add(self, reward: float, ending: Ending | None = None) -> list[Window]:
        """Takes one step's reward; returns the windows that it completes, oldest first."""
        self._rewards.append(reward)
        if ending is None:
            return [self._pop(terminated=False)] if len(self._rewards) == self._n_step else []
        windows = self._complete(terminated=ending == "terminated")
        self.reset()
        return windows

    def cut(self) -> list[Window]:
        """Completes all windows in the newest state, from which they bootstrap; oldest first. The episode goes on."""
        return self._complete(terminated=False)

    def _complete(self, *, terminated: bool) -> list[Window]:
        windows = []
        while self._rewards:
            windows.append(self._pop(terminated=terminated))
        return windows

    def _pop(self, *, terminated: bool) -> Window:
        steps = len(self._rewards)
        discounted = sum(self._gamma**k * reward for k, reward in enumerate(self._rewards))
        window = Window(self._start, steps, discounted, 0.0 if terminated else self._gamma**steps)
        self._rewards.popleft()
        self._start += 1
        return window
