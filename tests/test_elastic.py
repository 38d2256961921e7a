"""The number of actors follows the cluster's cores."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from driver.elastic import ElasticActors
from driver.plan import Plan
from driver.ray_session import ClusterSize
from tests.launching import GRID, finish, progress, start, wait_for

GIB = 2**30


class _Supervisor:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def resize(self, actors: int) -> None:
        self.sizes.append(actors)


def test_actors_are_as_many_as_fit_beside_the_learner() -> None:
    supervisor, said = _Supervisor(), list[str]()
    elastic = ElasticActors(Plan(2, "cpu", 1, 1, None), supervisor, said.append)
    for second, cpus in enumerate([3, 3, 17, 17, 9, 1]):
        elastic.follow(10.0 * second, lambda cpus=cpus: ClusterSize(2, cpus, 0, GIB))  # type: ignore[misc]
    assert supervisor.sizes == [16, 8, 1]
    assert said[0] == "the cluster has 2 nodes, 17 CPUs now: 16 actors instead of 2"


def test_the_cluster_is_not_asked_at_every_call() -> None:
    supervisor, asked = _Supervisor(), list[float]()
    elastic = ElasticActors(Plan(2, "cpu", 1, 1, None), supervisor, lambda line: None)
    for tenth in range(100):
        elastic.follow(100 + tenth / 10, lambda: asked.append(0.0) or ClusterSize(1, 3, 0, GIB))  # type: ignore[func-returns-value]
    assert 3 <= len(asked) <= 4


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with three cores, in a folder of its own."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (folder / "ray").mkdir()
    head = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 100 * 2**20, "temp_dir": str(folder)}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_actors_appear_on_a_node_that_joins_and_leave_with_one_that_goes(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", "auto", "--ray.address", cluster.address)

    def alive() -> int:
        lines = progress(run)
        return lines[-1]["actors_alive"] if lines else 0

    wait_for(lambda: alive() == 2, process)
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    wait_for(lambda: alive() == 4, process)
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: "1 node, 3 CPUs now: 2 actors instead of 4" in (run / "mario.log").read_text(), process)
    wait_for(lambda: alive() == 2, process)
    before = progress(run)[-1]
    wait_for(lambda: progress(run)[-1]["env_steps"] > before["env_steps"] + 200, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert "the cluster has 2 nodes, 5 CPUs now: 4 actors instead of 2" in out
    assert "raylet" not in out
