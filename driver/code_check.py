"""Nodes run the head's code or get no actors."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.errors import UserError, first_line
from driver import node_code
from driver.node_code import describe_code, difference
from driver.nodes import Node

_PATIENCE_S: Final = 60.0
_ADVICE: Final = "bring the head's there (`ray up` again, or `rsync --delete`, which removes what the head has not)"


class CodeCheck:
    """Asks each node once, by a small task that is pinned to it."""

    def __init__(self) -> None:
        cloudpickle.register_pickle_by_value(node_code)
        self._ours = describe_code()
        self._asked: dict[Any, Node] = {}
        self._answers: dict[str, str | None] = {}  # by node: what is otherwise there, if anything

    def ask(self, nodes: Iterable[Node]) -> None:
        """Asks those that were not asked yet, without waiting."""
        known = {*self._answers, *(node.id for node in self._asked.values())}
        for node in nodes:
            if node.id not in known:
                strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
                decorate: Any = ray.remote
                task = decorate(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(describe_code)
                self._asked[task.remote()] = node

    def take_differing(self, timeout_s: float = 0.0) -> list[str]:
        """Takes the answers that have come; the nodes among them that run other code, in words."""
        references = list(self._asked)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=timeout_s) if references else ([], [])
        differing = []
        for reference in ready:
            node = self._asked.pop(reference)
            try:
                self._answers[node.id] = difference(self._ours, ray.get(reference))
            except RayTaskError as error:
                self._answers[node.id] = f"it cannot be told: {first_line(error.cause)}"
            except RayError:  # the node is gone, or its process was killed: asked again if it is still there
                continue
            if (what := self._answers[node.id]) is not None:
                differing.append(f"node {node.name} runs other code ({what})")
        return differing

    def same(self, nodes: Sequence[Node]) -> list[Node]:
        """Those that are known to run the head's code."""
        return [node for node in nodes if node.id in self._answers and self._answers[node.id] is None]

    def refused(self) -> list[str]:
        """The ids of those that run other code."""
        return [node for node, what in self._answers.items() if what is not None]

    def demand_same(self, nodes: Sequence[Node]) -> list[Node]:
        """Asks all nodes and waits for them, a minute at most; those that answered.

        Raises:
            UserError: one runs other code.
        """
        self.ask(nodes)
        if differing := self.take_differing(_PATIENCE_S):
            raise UserError(f"{'; '.join(sorted(differing))}: {_ADVICE}")
        return self.same(nodes)

    def warn(self, differing: str) -> str:
        """A line on a node that joined later."""
        return f"warning: {differing} and gets no actors: {_ADVICE} and restart its Ray"
