"""Clusters of several Ray nodes on this machine."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.launching import descendants

STORE_BYTES = 100 * 2**20


@contextlib.contextmanager
def ray_cluster(monkeypatch: pytest.MonkeyPatch, head_cpus: int, **head_options: Any) -> Iterator[Cluster]:
    """A head with so many cores, in a folder of its own."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (folder / "ray").mkdir()
    head = {"num_cpus": head_cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES, **head_options}
    made = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": str(folder)})
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def join(cluster: Cluster, cpus: int) -> Any:
    """A node that joins."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)


def roles_on(node: Any) -> dict[str, int]:
    """How many processes of each of our roles run on a node, by class."""
    found: dict[str, int] = {}
    for raylet in node.all_processes["raylet"]:
        for title in descendants(raylet.process.pid).values():
            if title.startswith("ray::Remote"):
                name = title.removeprefix("ray::").partition(".")[0].split()[0]
                found[name] = found.get(name, 0) + 1
    return found


def with_code(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nodes and programs that are started from now on find this project there, before what is installed."""
    monkeypatch.setenv("PYTHONPATH", os.fspath(folder))
