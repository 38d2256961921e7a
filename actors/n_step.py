"""n-step returns of one environment, with the tail windows at an episode's end."""

from collections import deque
from typing import Literal, NamedTuple

Ending = Literal["terminated", "truncated"]


class Window(NamedTuple):
    """A finished n-step window: it starts in the episode's `start`-th state."""

    start: int
    steps: int  # m <= n rewards
    r_t: float  # sum over k < m of gamma**k * reward; with tree backup see NStepAccumulator
    discount_t: float  # gamma**m, or 0 where the episode terminated


class _Step(NamedTuple):
    reward: float
    epsilon: float
    mean_value: float  # of the state before it


class NStepAccumulator:
    """Sums rewards over windows of n steps.

    A window ends after n rewards, or where the episode ends: then the windows of length n, n-1, … 1 are all
    emitted, so that what happened just before a death is learned. Termination stops the bootstrap
    (`discount_t` 0); a truncation by time limit does not (gamma**m), see Pardo et al., 2018.

    With epsilon > 0 it is the n-step Tree Backup return (Precup et al., 2000; Sutton & Barto, 2018, section 7.5) of an
    epsilon-greedy policy along greedy actions: each state s within a window, but its first and last, adds
    `epsilon * mean_a Q(s, a)`, and all that follows counts `1 - epsilon` as much. `discount_t` is then
    gamma**m * (1 - epsilon)**(m - 1); the last state's share of random actions is left to whoever bootstraps.
    """

    def __init__(self, n_step: int, gamma: float) -> None:
        """Raises ValueError for n_step < 1 or gamma outside [0, 1]."""
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, not {n_step}")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], not {gamma}")
        self._n_step = n_step
        self._gamma = gamma
        self._steps: deque[_Step] = deque()
        self._start = 0

    def reset(self) -> None:
        """Begins a new episode."""
        self._steps.clear()
        self._start = 0

    def add(
        self, reward: float, ending: Ending | None = None, *, epsilon: float = 0.0, mean_value: float = 0.0
    ) -> list[Window]:
        """Takes one step; returns the windows that it completes, oldest first.

        Args:
            reward: of the step.
            ending: whether and how the episode ends with it.
            epsilon: of the policy whose return it is.
            mean_value: mean Q-value over the actions of the state that the step was taken in; of no matter where
                epsilon is 0.
        """
        self._steps.append(_Step(reward, epsilon, mean_value))
        if ending is None:
            return [self._pop(terminated=False)] if len(self._steps) == self._n_step else []
        windows = self._complete(terminated=ending == "terminated")
        self.reset()
        return windows

    def cut(self) -> list[Window]:
        """Completes all windows in the newest state, from which they bootstrap; oldest first. The episode goes on."""
        return self._complete(terminated=False)

    def _complete(self, *, terminated: bool) -> list[Window]:
        windows = []
        while self._steps:
            windows.append(self._pop(terminated=terminated))
        return windows

    def _pop(self, *, terminated: bool) -> Window:
        total, weight = 0.0, 1.0
        for k, (reward, epsilon, mean_value) in enumerate(self._steps):
            if k > 0:
                total += weight * epsilon * mean_value
                weight *= 1 - epsilon
            total += weight * reward
            weight *= self._gamma
        window = Window(self._start, len(self._steps), total, 0.0 if terminated else weight)
        self._steps.popleft()
        self._start += 1
        return window
