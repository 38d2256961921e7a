"""How long a role's process may take for an answer."""

import math
import time
from typing import Any, Final

import ray

from driver.placement import Placement
from driver.role_names import ACTOR, LEARNER, split
from driver.slots import Slot

_START: Final = 10.0  # of the first answer, before which a process starts
_LOOK_S: Final = 5.0


class Patience:
    """So long for each answer, and ten times as long for the first one.

    On a cluster actors and learner may have to wait for their cores, for as long as it takes: their time begins when
    Ray has found a place for them.

    Args:
        hang_s: seconds of an answer.
        placement: tells whether the run is on a cluster.
    """

    def __init__(self, hang_s: float, placement: Placement) -> None:
        self._hang_s = hang_s
        self._placement = placement

    def seconds(self, role: str, slot: Slot) -> float:
        """For a call that is not answered yet, since it was made."""
        if slot.reported:
            return self._hang_s
        # Shards and evaluator reserve no cores.
        if self._placement.home is None or split(role)[0] not in (ACTOR, LEARNER):
            return _START * self._hang_s
        self._look(slot)
        return math.inf if slot.placed is None else round(slot.placed - slot.made) + _START * self._hang_s

    def _look(self, slot: Slot) -> None:
        now = time.monotonic()
        if slot.placed is None and now >= slot.next_look:
            slot.next_look = now + _LOOK_S
            if has_place(slot.handle):
                slot.placed = now


def has_place(handle: Any) -> bool:
    """Whether Ray has given a process its cores, be it that it still starts there: only then it has an address."""
    table: Any = ray._private.state.actors
    return bool(table(handle._actor_id.hex()).get("Address", {}).get("Port"))
