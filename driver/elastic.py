"""The number of actors follows the cluster."""

from collections.abc import Callable
from typing import Protocol

from driver.plan import Plan, actors_that_fit
from driver.ray_session import ClusterSize, cluster_size

_INTERVAL_S = 3.0


class Resizable(Protocol):
    """What has actors."""

    def resize(self, actors: int) -> None:
        """Makes them so many."""


class ElasticActors:
    """Looks now and then how large the cluster is, and makes the actors as many as fit.

    Args:
        plan: the run's at its start.
        supervisor: has the actors.
        say: takes one line for the user.
    """

    def __init__(self, plan: Plan, supervisor: Resizable, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._say = say
        self._actors = plan.actors
        self._next = 0.0

    def follow(self, now: float, look: Callable[[], ClusterSize] = cluster_size) -> None:
        """To be called often.

        Args:
            now: time.monotonic().
            look: tells the cluster's size.
        """
        if now < self._next:
            return
        self._next = now + _INTERVAL_S
        size = look()
        actors = actors_that_fit(self._plan, size.cpus)
        if actors != self._actors:
            self._say(f"the cluster has {size.description} now: {_actors(actors)} instead of {self._actors}")
            self._actors = actors
            self._supervisor.resize(actors)


def _actors(number: int) -> str:
    return f"{number} actor{'' if number == 1 else 's'}"
