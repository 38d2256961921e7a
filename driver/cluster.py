"""A run's place in a cluster: what there is, what of it runs the head's code, who goes where."""

from dataclasses import replace
from typing import NamedTuple

from common.config import Config
from common.errors import UserError
from driver.code_check import CodeCheck
from driver.elastic import actors_of
from driver.nodes import Node, alive_nodes, this_node, total
from driver.placement import Placement, choose_home
from driver.plan import Plan, make_plan
from driver.ray_session import ClusterSize


class Cluster(NamedTuple):
    """What the run found and decided."""

    plan: Plan
    placement: Placement
    code: CodeCheck
    size: ClusterSize


def look_around(config: Config) -> Cluster:
    """Finds the cluster's nodes and fits the run into them.

    Raises:
        UserError: a node runs other code, none answers, or see `make_plan`.
    """
    code = CodeCheck()
    nodes = code.demand_same(alive_nodes())
    if not nodes:
        raise UserError("no node of the Ray cluster runs a task within a minute: look at `ray status`")
    here = this_node()
    if here not in {node.id for node in nodes}:
        raise UserError(
            "the node of launch.py itself runs no task within a minute: look at `ray status` and `ray logs`"
        )
    plan, placement = fit(config, nodes, here)
    return Cluster(plan, placement, code, total(nodes))


def fit(config: Config, nodes: list[Node], here: str) -> tuple[Plan, Placement]:
    """The run's processes and their places.

    Args:
        config: the run's.
        nodes: of the cluster.
        here: the driver's node.

    Raises:
        UserError: see `make_plan`.
    """
    gpus = total(nodes).gpus
    on_gpu = gpus > 0 and config.learner.device != "cpu"
    home = choose_home(nodes, here, on_gpu=on_gpu, cpus=1)
    plan = make_plan(config, cpus=home.cpus, gpus=gpus, private=False)
    placement = Placement(here, on_gpu=on_gpu, learner_cpus=plan.learner_cpus)
    placement.update(nodes)
    return replace(plan, actors=actors_of(config.actors.count, placement)), placement
