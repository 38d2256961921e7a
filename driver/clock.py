"""Time as the driver sees it: what it missed while it was paused is nobody's fault."""

import time
from collections.abc import Callable
from typing import Final

_LONGEST_S: Final = 2.0


class RunningClock:
    """Seconds for which this process has been running, as far as it asks often.

    Of what lies between two calls at most two count: a process that was stopped (SIGSTOP, a frozen
    container, a machine that slept) could not hear what others answered meanwhile, and must not count that as silence.

    Args:
        clock: seconds, those of a pause included.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = self._now = clock()

    def __call__(self) -> float:
        """Seconds since some moment."""
        now = self._clock()
        self._now += min(now - self._last, _LONGEST_S)
        self._last = now
        return self._now
