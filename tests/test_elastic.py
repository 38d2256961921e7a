"""The number of actors follows the cluster's cores."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from ray.cluster_utils import Cluster

from driver.elastic import ElasticActors
from driver.nodes import Node
from driver.placement import Placement
from tests.launching import GRID, finish, progress, start, wait_for
from tests.ray_cluster import join, ray_cluster

GIB = 2**30


class _Supervisor:
    complete = True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def resize(self, actors: int) -> None:
        self.sizes.append(actors)

    def settle(self) -> None:
        pass


class _Code:
    """Nodes called "other…" run other code."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._told: set[str] = set()

    def ask(self, nodes: Sequence[Node]) -> None:
        self._nodes = list(nodes)

    def take_differing(self) -> list[str]:
        new = [node.id for node in self._nodes if node.id.startswith("other") and node.id not in self._told]
        self._told.update(new)
        return [f"node {name} runs other code" for name in new]

    def same(self, nodes: Sequence[Node]) -> list[Node]:
        return [node for node in nodes if not node.id.startswith("other")]

    def refused(self) -> list[str]:
        return sorted(self._told)

    def warn(self, differing: str) -> str:
        return f"warning: {differing}"


class _Scene:
    """A head and what joins it."""

    def __init__(self, count: int | Literal["auto"], head_cpus: int = 3, *, on_gpu: bool = False) -> None:
        self._head = Node("head", "head", head_cpus, int(on_gpu), GIB)
        self.placement = Placement("head", on_gpu=on_gpu)
        self.placement.update([self._head])
        self.supervisor, self.said, self.asked = _Supervisor(), list[str](), list[tuple[int, list[str]]]()
        self._second = 0.0
        ask = self.asked
        self.elastic = ElasticActors(
            count,
            self.placement,
            _Code(),
            lambda cores, refused: ask.append((cores, list(refused))),
            self.supervisor,
            self.said.append,
        )

    def with_nodes(self, **cores: int) -> None:
        """What happens when there are these nodes beside the head."""
        nodes = [self._head, *(Node(name, name, cpus, 0, GIB) for name, cpus in cores.items())]
        self._second += 10
        self.elastic.follow(self._second, lambda: nodes)


def test_actors_are_as_many_as_fit_beside_the_learner() -> None:
    scene = _Scene("auto")
    for cores in ({}, {"a": 14}, {"a": 14}, {"a": 6}, {}):
        scene.with_nodes(**cores)
    assert scene.supervisor.sizes == [16, 8, 2]
    assert scene.said[0] == "the cluster has 2 nodes, 17 CPUs now: 16 actors instead of 2"
    assert {cores for cores, _ in scene.asked} == {0}


@pytest.mark.parametrize(("count", "sizes", "asked"), [("auto", [4, 0], [1, 0, 1]), (6, [4, 0], [6, 2, 6])])
def test_a_learner_that_has_the_only_core_asks_for_others_and_is_alone_when_they_go(
    count: int | Literal["auto"], sizes: list[int], asked: list[int]
) -> None:
    scene = _Scene(count, head_cpus=1)
    for cores in ({}, {"a": 4}, {}):
        scene.with_nodes(**cores)
    assert scene.supervisor.sizes == sizes
    assert [cores for cores, _ in scene.asked] == asked


def test_a_small_machine_with_a_gpu_has_one_actor_at_least() -> None:
    scene = _Scene("auto", on_gpu=True)
    for cores in ({"a": 4}, {}):
        scene.with_nodes(**cores)
    assert scene.supervisor.sizes == [4, 1]
    assert [cores for cores, _ in scene.asked] == [0, 0]


def test_a_fixed_number_of_actors_comes_with_the_cores_and_the_missing_ones_are_asked_for() -> None:
    scene = _Scene(6)
    for cores in ({}, {"a": 2}, {"a": 2, "b": 20}, {"a": 2}):
        scene.with_nodes(**cores)
    assert scene.supervisor.sizes == [4, 6, 4]
    assert [cores for cores, _ in scene.asked] == [4, 2, 0, 2]
    scene.supervisor.complete = False
    scene.with_nodes()
    assert len(scene.asked) == 4


def test_a_node_that_joins_with_other_code_is_named_once_and_gets_no_actors() -> None:
    scene = _Scene(6)
    for cores in ({"other": 20}, {"other": 20}, {"other": 20, "a": 1}):
        scene.with_nodes(**cores)
    assert scene.supervisor.sizes == [3]
    assert [line for line in scene.said if "other" in line] == ["warning: node other runs other code"]
    assert scene.asked[-1] == (3, ["other"])


def test_the_cluster_is_not_asked_at_every_call() -> None:
    scene, looks = _Scene("auto"), list[float]()

    def look() -> list[Node]:
        looks.append(0.0)
        return []

    for tenth in range(100):
        scene.elastic.follow(100 + tenth / 10, look)
    assert 3 <= len(looks) <= 4


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with ray_cluster(monkeypatch, head_cpus=3) as made:
        yield made


@pytest.mark.slow
def test_actors_appear_on_a_node_that_joins_and_leave_with_one_that_goes(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", "auto", "--ray.address", cluster.address)

    def alive() -> int:
        lines = progress(run)
        return lines[-1]["actors_alive"] if lines else 0

    wait_for(lambda: alive() == 2, process)
    node = join(cluster, 2)
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
