"""Which node of a cluster has what: the decision itself; `test_cluster_launch.py` looks at real processes."""

from dataclasses import replace

import pytest

from common.config import ActorsConfig, Config, LearnerConfig
from driver.cluster import fit
from driver.nodes import Node, total
from driver.placement import Placement, choose_home

GIB = 2**30


def node(name: str, cpus: int, gpus: int = 0) -> Node:
    return Node(name, f"host-{name}", cpus, gpus, GIB)


@pytest.mark.parametrize(
    ("nodes", "on_gpu", "cpus", "home"),
    [
        ([node("a", 8), node("head", 4), node("z", 8)], False, 1, "head"),
        ([node("a", 8), node("head", 4, 1), node("z", 8, 1)], True, 1, "head"),
        ([node("a", 8), node("head", 4), node("z", 8, 1)], True, 1, "z"),
        ([node("a", 8, 1), node("head", 4), node("z", 16, 1)], True, 1, "z"),
        ([node("a", 8), node("head", 0), node("z", 4)], False, 1, "a"),
        ([node("a", 8), node("head", 2), node("z", 4)], False, 3, "a"),
        ([node("a", 1), node("head", 1)], False, 2, "head"),
    ],
)
def test_the_learner_goes_to_the_gpu_else_to_the_drivers_node_if_it_is_large_enough(
    nodes: list[Node], on_gpu: bool, cpus: int, home: str
) -> None:
    assert choose_home(nodes, "head", on_gpu=on_gpu, cpus=cpus).id == home


def test_three_nodes_with_17_cores_and_a_gpu_have_14_actors() -> None:
    nodes = [node("head", 5, 1), node("a", 6), node("b", 6)]
    plan, placement = fit(Config(), nodes, "head")
    assert (total(nodes).description, plan.actors, plan.learner_device) == ("3 nodes, 17 CPUs, 1 GPU", 14, "cuda")
    sites = [sites_of(placement, index) for index in range(plan.actors)]
    assert sites == [{"a", "b"}] * 12 + [{"head"}] * 2


def test_a_cpu_learner_has_threads_by_its_own_nodes_cores_and_actors_the_rest() -> None:
    plan, _ = fit(Config(), [node("head", 8), *(node(str(number), 16) for number in range(10))], "head")
    assert (plan.learner_threads, plan.learner_cpus, plan.actors) == (2, 2, 6 + 160)


def test_actors_that_are_asked_for_are_as_many_as_have_a_core() -> None:
    nodes = [node("head", 4, 1), node("a", 2)]
    for asked, actors in ((1, 1), (3, 3), (5, 5), (50, 5)):
        assert fit(replace(Config(), actors=ActorsConfig(count=asked)), nodes, "head")[0].actors == actors


def test_a_learner_that_is_to_use_the_cpu_stays_with_the_driver() -> None:
    config = replace(Config(), learner=LearnerConfig(device="cpu"))
    _, placement = fit(config, [node("head", 4), node("z", 8, 1)], "head")
    assert placement.home == node("head", 4)


def sites_of(placement: Placement, index: int) -> set[str]:
    """The nodes that an actor may go to."""
    selector = placement.for_actor(index)["label_selector"]["ray.io/node-id"]
    return set(selector.removeprefix("in(").removesuffix(")").split(","))


def placed(nodes: list[Node], actors: int, **options: int | bool) -> Placement:
    placement = Placement("head", **options)  # type: ignore[arg-type]
    placement.update(nodes)
    for index in range(actors):
        placement.for_actor(index)
    return placement


def test_cores_that_come_are_taken_by_the_actors_that_come_with_them() -> None:
    placement = placed([node("head", 3)], 2)
    assert placement.room(keep=True) == 2
    placement.update([node("head", 3), node("a", 2)])
    assert placement.room(keep=True) == 4
    assert [sites_of(placement, index) for index in (2, 3)] == [{"a"}, {"a"}]
    placement.release(1)
    assert sites_of(placement, 1) == {"head"}


def test_an_actor_whose_nodes_are_gone_is_stranded_and_finds_another_place() -> None:
    placement = placed([node("head", 3), node("a", 2)], 4)
    placement.keep([node("head", 3)])
    assert [placement.is_stranded(index) for index in range(4)] == [True, True, False, False]
    placement.release(3)
    placement.release(1)
    assert sites_of(placement, 0) == {"head"}
    assert not placement.is_stranded(0)


def test_an_actor_that_waits_may_go_to_a_node_that_came_after_it_was_sent_to_a_dead_one() -> None:
    placement = placed([node("head", 2), node("a", 1), node("b", 1)], 3)
    assert not any(placement.is_stranded(index) for index in range(3))
    placement.release(0)  # "a" is dead, which nobody knows yet
    assert sites_of(placement, 0) == {"a", "b"}
    placement.update([node("head", 2), node("b", 1), node("c", 1)])
    assert placement.is_stranded(0)
    assert not placement.is_stranded(2)  # at home
    assert sites_of(placement, 0) == {"b", "c"}
    assert not placement.is_stranded(0)


def test_an_actor_without_a_core_waits_until_there_is_one_elsewhere() -> None:
    placement = placed([node("head", 1)], 1)
    assert not placement.is_stranded(0)
    placement.update([node("head", 1), node("a", 1)])
    assert placement.is_stranded(0)
    assert sites_of(placement, 0) == {"a"}
    assert not placement.is_stranded(0)


def test_the_home_stays_while_its_node_lives() -> None:
    placement = placed([node("head", 0), node("a", 4)], 0)
    placement.update([node("head", 0), node("a", 4), node("b", 64)])
    assert placement.home == node("a", 4)
    placement.keep([node("head", 0), node("b", 64)])
    assert placement.home == node("b", 64)


def test_a_private_ray_finds_places_itself() -> None:
    placement = Placement()
    assert placement.beside_learner() == {}
    assert placement.for_actor(0) == {"scheduling_strategy": "SPREAD"}
    assert not placement.is_stranded(0)
