"""The nodes of a Ray cluster."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import ray

from driver.head_watch import SILENT_S, Part
from driver.ray_session import ClusterSize

# Nobody starts it again, and its object store is gone with it: the next use of that ends this program without a word.
_DAEMON_REFUSED_S: Final = 0.5


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


def ray_parts() -> list[Part]:
    """The parts of Ray itself (GCS, raylet) that this process cannot do without."""
    here = this_node()
    addresses = [
        f"{entry['NodeManagerAddress']}:{entry['NodeManagerPort']}" for entry in ray.nodes() if entry["NodeID"] == here
    ]
    return [
        Part("Ray's server", ray.get_runtime_context().gcs_address, SILENT_S),
        *(Part("Ray's daemon on this machine", address, _DAEMON_REFUSED_S) for address in addresses),
    ]


def total(nodes: Sequence[Node]) -> ClusterSize:
    """What they have together."""
    return ClusterSize(
        len(nodes),
        sum(node.cpus for node in nodes),
        sum(node.gpus for node in nodes),
        sum(node.memory_bytes for node in nodes),
    )
