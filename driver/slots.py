"""What the supervisor knows of each process, whom it tells what, and what replacements start from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.remote import ActorReport, EvaluationReport
from common.types import ShardStats
from learner.remote import LearnerReport


@dataclass
class Listener:
    """Whom the supervisor tells what."""

    actor: Callable[[ActorReport], None]
    learner: Callable[[LearnerReport], None]
    shard: Callable[[int, ShardStats], None]
    evaluation: Callable[[EvaluationReport], None]
    replaced: Callable[[str, int], None]  # a kind of role and which: another process has its place
    event: Callable[[str], None]  # one line for the user


class Recovery(Protocol):
    """What replacements start from."""

    def learner_state(self) -> dict[str, Any] | None:
        """A new learner's state; None: it begins afresh."""

    def fill(self, index: int, shard: Any) -> None:
        """Gives a new, empty shard its contents; called in a thread of its own."""


@dataclass
class Slot:
    """One place in the system: the process that holds it now, and its predecessors. Times are of `time.monotonic`."""

    handle: Any
    incarnation: int
    predecessor: Any = None  # of a shard that is being filled: the handle that actors and learner have until it is full
    deaths_in_a_row: int = 0  # without progress between them
    epsilons: tuple[float, float] = (0.0, 0.0)  # an actor's
    # Of the process that holds it now:
    reported: bool = False  # it has answered
    heard: float = -math.inf  # when it last answered
    made: float = field(default_factory=time.monotonic)
    placed: float | None = None  # when it was first known to have its cores in a cluster
    next_look: float = 0.0  # for that

    def hold(self, handle: Any) -> None:
        """Gives the place to a new process."""
        self.handle = handle
        self.reported, self.heard = False, -math.inf
        self.made, self.placed, self.next_look = time.monotonic(), None, 0.0


def answered(slot: Slot, *, progress: bool) -> None:
    """Notes an answer of the process that holds the place."""
    slot.reported, slot.heard = True, time.monotonic()
    if progress:
        slot.deaths_in_a_row = 0
