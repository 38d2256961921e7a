"""Which node of a cluster has which process.

Learner, shards and evaluator share the *home*: a node with a GPU where the learner uses one, the driver's own before
others; else the driver's node, or the largest one where that has too few cores. Actors take the other nodes' cores
first, then what the learner leaves of the home's.
"""

from collections.abc import Sequence
from typing import Any, Final

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from driver.nodes import Node

# With a GPU, learner, shards and evaluator keep more cores busy than the one that the learner reserves.
KEPT_BESIDE_GPU: Final = 2
_NODE_ID: Final = "ray.io/node-id"


def choose_home(nodes: Sequence[Node], here: str, *, on_gpu: bool, cpus: int) -> Node:
    """The node for the learner and what belongs beside it.

    Args:
        nodes: those that there are, at least one.
        here: the driver's node.
        on_gpu: whether the learner uses a GPU.
        cpus: cores that it reserves.
    """
    able = [node for node in nodes if node.cpus >= cpus and (node.gpus > 0 or not on_gpu)]
    return max(able or nodes, key=lambda node: (node.id == here and bool(able), node.cpus, node.id))


class Placement:
    """Options for Ray by which processes find their nodes; without nodes, as on a private Ray, they leave it to Ray.

    Args:
        here: the driver's node.
        on_gpu: whether the learner uses a GPU.
        learner_cpus: cores that it reserves.
    """

    def __init__(self, here: str = "", *, on_gpu: bool = False, learner_cpus: int = 1) -> None:
        self._here = here
        self._on_gpu = on_gpu
        self._learner_cpus = learner_cpus
        self._nodes: tuple[Node, ...] = ()
        self._home = ""
        self._sites: dict[int, frozenset[str]] = {}  # by actor, the nodes that it may be on
        self._crowded: set[int] = set()  # actors that found no core free

    def update(self, nodes: Sequence[Node]) -> None:
        """Takes note of the nodes that there are now."""
        self._nodes = tuple(nodes)
        if nodes and self.home is None:  # it stays as long as its node lives
            self._home = choose_home(nodes, self._here, on_gpu=self._on_gpu, cpus=self._learner_cpus).id

    def keep(self, alive: Sequence[Node]) -> None:
        """Takes note that nodes are gone: those that are not among these."""
        ids = {node.id for node in alive}
        if left := [node for node in self._nodes if node.id in ids]:
            self.update(left)

    @property
    def home(self) -> Node | None:
        """Where the learner goes; None on a private Ray."""
        return next((node for node in self._nodes if node.id == self._home), None)

    def beside_learner(self) -> dict[str, Any]:
        """For the learner, a shard and the evaluator. Should the home go meanwhile, they die and ask again.

        Not `soft`: then Ray puts what reserves no cores on any node (2.60), and a shard goes with a worker's node.
        """
        home = self.home
        return {} if home is None else {"scheduling_strategy": NodeAffinitySchedulingStrategy(home.id, soft=False)}

    def room(self, *, keep: bool) -> int:
        """Actors that there are cores for.

        Args:
            keep: whether to leave those cores free that a learner on a GPU is faster with.
        """
        return self._elsewhere + self._at_home(keep=keep)

    def for_actor(self, index: int) -> dict[str, Any]:
        """For an actor, which has the place from now on that this finds."""
        if (home := self.home) is None:
            return {"scheduling_strategy": "SPREAD"}
        self.release(index)
        others = self._others
        at_home = sum(site == {home.id} for site in self._sites.values())
        if len(self._sites) - at_home < self._elsewhere:
            self._sites[index] = others
        elif at_home < self._at_home(keep=False):
            self._sites[index] = frozenset({home.id})
        else:
            self._sites[index] = others | {home.id}
            self._crowded.add(index)
        return {
            "scheduling_strategy": "SPREAD",
            "label_selector": {_NODE_ID: f"in({','.join(sorted(self._sites[index]))})"},
        }

    def release(self, index: int) -> None:
        """An actor is gone."""
        self._sites.pop(index, None)
        self._crowded.discard(index)

    def is_stranded(self, index: int) -> bool:
        """Whether an actor, if it still waits, may do so in vain.

        Its nodes are gone, there is room by now for one that found none, or there are nodes by now that it may not use:
        one of its own may have died, to which it was sent before that was noticed.
        """
        if not self._nodes or index not in self._sites:
            return False
        site = self._sites[index]
        gone = site.isdisjoint(node.id for node in self._nodes)
        barred = site != {self._home} and not self._others <= site
        return gone or barred or (index in self._crowded and len(self._sites) <= self.room(keep=False))

    @property
    def _others(self) -> frozenset[str]:
        """The nodes beside the home that have cores."""
        return frozenset(node.id for node in self._nodes if node.id != self._home and node.cpus)

    @property
    def _elsewhere(self) -> int:
        return sum(node.cpus for node in self._nodes if node != self.home)

    def _at_home(self, *, keep: bool) -> int:
        kept = self._learner_cpus + (KEPT_BESIDE_GPU if keep and self._on_gpu else 0)
        return max(0, (self.home.cpus if self.home else 0) - kept)
