"""The number of actors follows the cluster."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from driver.nodes import Node, alive_nodes, total
from driver.placement import Placement

_INTERVAL_S = 3.0


class Resizable(Protocol):
    """What has actors."""

    @property
    def complete(self) -> bool:
        """Whether all of them answer."""

    def resize(self, actors: int) -> None:
        """Makes them so many."""

    def settle(self) -> None:
        """Finds other places for actors that wait in vain."""


class Code(Protocol):
    """Tells which nodes run the head's code."""

    def ask(self, nodes: Sequence[Node]) -> None:
        """Asks those that were not asked yet."""

    def take_differing(self) -> list[str]:
        """Those that answered and run other code, in words."""

    def same(self, nodes: Sequence[Node]) -> list[Node]:
        """Those that run the head's."""

    def refused(self) -> list[str]:
        """The ids of those that do not."""

    def warn(self, differing: str) -> str:
        """A line for the user."""


def actors_of(count: int | Literal["auto"], placement: Placement) -> int:
    """Actors that a cluster has cores for now, not more than are wanted; 0 where the learner has the only core."""
    room = placement.room(keep=False)
    if count != "auto":
        return min(count, room)
    return placement.room(keep=True) or min(1, room)


class ElasticActors:
    """Looks now and then what nodes there are, and makes the actors as many as fit.

    Args:
        count: actors that are wanted.
        placement: knows the nodes.
        code: tells which of them run the head's code.
        ask_for_cores: is told how many are missing, and on which nodes they would not count.
        supervisor: has the actors.
        say: takes one line for the user.
    """

    def __init__(
        self,
        count: int | Literal["auto"],
        placement: Placement,
        code: Code,
        ask_for_cores: Callable[[int, Sequence[str]], None],
        supervisor: Resizable,
        say: Callable[[str], None],
    ) -> None:
        self._count: int | Literal["auto"] = count
        self._placement = placement
        self._code = code
        self._ask_for_cores = ask_for_cores
        self._supervisor = supervisor
        self._say = say
        self._actors = actors_of(count, placement)
        self._next = 0.0

    def follow(self, now: float, look: Callable[[], list[Node]] = alive_nodes) -> None:
        """To be called often.

        Args:
            now: time.monotonic().
            look: tells the cluster's nodes.
        """
        if now < self._next:
            return
        self._next = now + _INTERVAL_S
        nodes = look()
        self._code.ask(nodes)
        for differing in self._code.take_differing():
            self._say(self._code.warn(differing))
        usable = self._code.same(nodes)
        if not usable:  # at a moment when Ray does not know its nodes
            return
        self._placement.update(usable)
        actors = actors_of(self._count, self._placement)
        if actors != self._actors:
            had, self._actors = self._actors, actors
            self._say(f"the cluster has {total(usable).description} now: {_actors(actors)} instead of {had}")
            self._supervisor.resize(actors)
        self._supervisor.settle()
        # Not before all processes have their cores: a task that takes one of these for a moment would be in their way.
        if self._supervisor.complete:
            wanted = 1 if self._count == "auto" else self._count
            self._ask_for_cores(wanted - min(wanted, self._placement.room(keep=False)), self._code.refused())


def _actors(number: int) -> str:
    return f"{number} actor{'' if number == 1 else 's'}"
