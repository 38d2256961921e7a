"""What a run tells its user before it begins."""

import os
from collections.abc import Iterator

from common.actions import stages_beyond
from common.config import Config
from driver.cluster import Cluster
from driver.plan import Plan, machine_cores
from driver.ray_session import Session


def introduction(config: Config, plan: Plan, session: Session, cluster: Cluster | None) -> Iterator[str]:
    """Lines on what was found and what will be started."""
    size = session.size
    threads = _count(plan.learner_threads, "thread")
    learner = "the GPU" if plan.learner_device == "cuda" else f"the CPU ({threads})"
    if cluster is None:
        yield f"private Ray on {machine_cores()} cores{' and a GPU' if size.gpus else ''}"
    else:
        yield f"Ray cluster at {session.address}: {cluster.size.description}: {_count(plan.actors, 'actor')}"
        if os.environ.get("RAY_AUTH_MODE") != "token":
            yield "warning: this cluster asks nobody for a token: who reaches its port may run anything there"
        learner += f" of node {cluster.placement.home.name}" if cluster.placement.home else ""
    envs = _count(config.actors.envs_per_actor, "environment")
    core = f" on the emulator core {plan.core}" if plan.core else ""
    shards = _count(config.replay.shards, "replay shard")
    yield f"{_count(plan.actors, 'actor')} with {envs} each{core}, {shards}, learner on {learner}"
    played = config.env.stages if config.env.name == "mario" else ()
    for stage, needed in stages_beyond(config.env.actions, played).items():
        yield f"note: no way through {stage} is known with --env.actions {config.env.actions}: take {needed}"
    if session.address is None and config.actors.count != "auto" and plan.cpus > machine_cores():
        yield f"note: {plan.actors} actors and the learner share {machine_cores()} cores, as you asked"
    if cluster is not None and config.actors.count != "auto" and config.actors.count > plan.actors:
        yield f"note: {config.actors.count} actors are asked for; the others start when the cluster has cores for them"
    if cluster is not None and config.actors.count == "auto" and plan.actors == 0:
        yield "note: the learner has the only core; one more is asked for, and all that come get an actor each"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
