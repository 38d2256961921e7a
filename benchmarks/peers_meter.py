"""How fast a system is once it is under way: its transitions and samples over one window of time."""

from dataclasses import dataclass
from typing import NamedTuple


class Speed(NamedTuple):
    """What a window measured."""

    transitions: int
    samples: int
    seconds: float

    @property
    def transitions_per_s(self) -> float:
        """Agent steps per second, over all environments."""
        return self.transitions / self.seconds

    @property
    def samples_per_s(self) -> float:
        """Transitions trained on per second."""
        return self.samples / self.seconds


class Reading(NamedTuple):
    """Totals since the system's start."""

    time_s: float
    transitions: int
    samples: int


@dataclass
class Meter:
    """Takes readings, and measures between two of them.

    The window opens with the first reading that comes `warm_up_s` or more after the first one with samples in it, so
    that filling the replay, the first updates and what they compile are left out. It closes with the first one
    `seconds` or more later. Rates are over the time that really lies between the two, so that a system may be read as
    seldom as suits it.

    Attributes:
        warm_up_s: training before the window opens.
        seconds: the window's least length.
    """

    warm_up_s: float
    seconds: float
    _training_since: float | None = None
    _opened: Reading | None = None
    _closed: Reading | None = None

    def read(self, time_s: float, transitions: int, samples: int) -> bool:
        """Takes a reading; returns whether further ones are needed."""
        if self._training_since is None:
            if samples > 0:
                self._training_since = time_s
        elif self._opened is None:
            if time_s >= self._training_since + self.warm_up_s:
                self._opened = Reading(time_s, transitions, samples)
        elif self._closed is None and time_s >= self._opened.time_s + self.seconds:
            self._closed = Reading(time_s, transitions, samples)
        return self._closed is None

    def speed(self) -> Speed:
        """What was measured.

        Raises:
            RuntimeError: the window is not closed.
        """
        if self._opened is None or self._closed is None:
            raise RuntimeError("the system ended before its window did")
        first, last = self._opened, self._closed
        return Speed(last.transitions - first.transitions, last.samples - first.samples, last.time_s - first.time_s)
