"""Who waits for whom, said when it lasts: a run that stands still must not look like one that is slow."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from actors.remote import ActorReport
from learner.remote import LearnerReport

_LONG_S: Final = 30.0
# A process that waits says so with each slice, about once a second; one that is paused or gone says nothing.
_FRESH_S: Final = 5.0
_ALL_OF_IT: Final = 0.9  # of a slice's time


@dataclass
class _Side:
    """Actors or learner."""

    progressed: float  # when they last did something
    waited: float | None = None  # when they last said that they only wait
    said: bool = False  # that this one lasts

    def waits(self, now: float) -> bool:
        return self.stands(now) and self.waited is not None and now - self.waited < _FRESH_S

    def stands(self, now: float) -> bool:
        return now - self.progressed >= _LONG_S


class Standstill:
    """Tells the user once that the learner waits for the actors or the other way round, and once that it is over.

    The rate limiter makes both wait all the time, for moments. What is told are 30 seconds without one step or update
    of a side that is there and willing.

    Args:
        say: takes one line for the user.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._actors = _Side(clock())
        self._learner = _Side(clock())
        self._both_since: float | None = None  # that both only wait

    def take_actor(self, report: ActorReport) -> None:
        """Takes note of an actor's slice."""
        waits = report.waited_s >= _ALL_OF_IT * report.seconds
        self._take(self._actors, report.env_steps, waits, "the actors go on after {:.0f} s without a step")

    def take_learner(self, report: LearnerReport) -> None:
        """Takes note of a slice of the learner."""
        waits = report.waited_s >= _ALL_OF_IT * report.seconds
        self._take(self._learner, report.updates, waits, "the learner goes on after {:.0f} s without an update")

    def look(self) -> None:
        """To be called often."""
        now = self._clock()
        actors, learner = self._actors.waits(now), self._learner.waits(now)
        if not (actors and learner):
            self._both_since = None
        elif self._both_since is None:
            self._both_since = now
        if actors and learner:
            self._tell("actors and learner wait for the replay: nothing came in or out", self._actors, self._learner)
        elif learner and self._actors.stands(now):
            self._tell("the learner waits for the actors: no transitions", self._learner)
        elif actors:
            self._tell("the actors wait for the learner: there was no room for their transitions", self._actors)

    @property
    def both_s(self) -> float:
        """Seconds, after the first 30, for which actors and learner have been waiting for each other."""
        return 0.0 if self._both_since is None else self._clock() - self._both_since

    def excuse(self) -> None:
        """There is a reason for it, or something was done about it: those seconds begin anew."""
        self._both_since = None

    def _take(self, side: _Side, done: int, waits: bool, over: str) -> None:
        now = self._clock()
        if done:
            if side.said:
                self._say(over.format(now - side.progressed))
            side.progressed, side.waited, side.said = now, None, False
        elif waits:
            side.waited = now

    def _tell(self, what: str, *sides: _Side) -> None:
        if not all(side.said for side in sides):
            self._say(f"{what} for {_LONG_S:.0f} s")
        for side in sides:
            side.said = True
