"""The nodes of a Ray cluster."""

from collections.abc import Sequence
from typing import NamedTuple

import ray

from driver.ray_session import ClusterSize


class Node(NamedTuple):
    """A node that is alive."""

    id: str
    name: str  # its address, or what `ray start --node-name` called it
    cpus: int  # that Ray may give to processes
    gpus: int
    memory_bytes: int


def alive_nodes() -> list[Node]:
    """The nodes of the Ray that this process is connected to, in a fixed order."""
    found = []
    for entry in ray.nodes():
        if entry["Alive"]:
            resources = entry["Resources"]
            name = entry["NodeName"] or entry["NodeManagerAddress"]
            amounts = [int(resources.get(kind, 0)) for kind in ("CPU", "GPU", "memory")]
            found.append(Node(entry["NodeID"], name, *amounts))
    return sorted(found)


def this_node() -> str:
    """The id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def total(nodes: Sequence[Node]) -> ClusterSize:
    """What they have together."""
    return ClusterSize(
        len(nodes),
        sum(node.cpus for node in nodes),
        sum(node.gpus for node in nodes),
        sum(node.memory_bytes for node in nodes),
    )
