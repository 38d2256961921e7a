"""Calls in flight to the roles' processes, and what to do when each is answered."""

from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from driver.clock import RunningClock


class NoAnswerError(RayError):
    """A process that is there does not answer."""


class NoProgressError(RayError):
    """A process answers, and gets nothing done where it could."""


class _Call(NamedTuple):
    role: str
    done: Callable[[Any], None]
    started: float  # by the calls' clock
    patience: float


class Failure(NamedTuple):
    """A call that raised."""

    role: str
    error: RayError


class Calls:
    """Waits for many calls at once; each runs its callback with the result.

    Args:
        clock: seconds by which calls are overdue; by default those for which this process has been running.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or RunningClock()
        self._calls: dict[Any, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, role: str, reference: Any, done: Callable[[Any], None], patience: float = 1.0) -> None:
        """Registers a call to `role`; `done` gets its result, and it is overdue `patience` times later than others."""
        self._calls[reference] = _Call(role, done, self._clock(), patience)

    def poll(self, timeout_s: float) -> list[Failure]:
        """Waits until something is answered or the time is over; runs callbacks; returns what failed."""
        if not self._calls:
            return []
        references = list(self._calls)
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready:
            # The first wait returns at one; take with it all others that are ready too.
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [failure for reference in ready if (failure := self._finish(reference)) is not None]

    def overdue(self, limit: Callable[[str], float]) -> list[Failure]:
        """The roles with a call that was not answered for as long as the limit says, as failures of theirs.

        Args:
            limit: seconds that a role has.
        """
        now = self._clock()
        late = {
            call.role: call.patience * limit(call.role)
            for call in self._calls.values()
            if now - call.started > call.patience * limit(call.role)
        }
        return [Failure(role, NoAnswerError(f"no answer for {waited:g} s")) for role, waited in late.items()]

    def waits_for(self, role: str) -> bool:
        """Whether a call to `role` is unanswered."""
        return any(call.role == role for call in self._calls.values())

    def forget(self, role: str) -> None:
        """Drops the calls to a role that was given up."""
        self._calls = {reference: call for reference, call in self._calls.items() if call.role != role}

    def _finish(self, reference: Any) -> Failure | None:
        call = self._calls.pop(reference, None)
        if call is None:  # forgotten by an earlier callback of this round
            return None
        try:
            result = ray.get(reference)
        except RayError as error:
            return Failure(call.role, error)
        call.done(result)
        return None
