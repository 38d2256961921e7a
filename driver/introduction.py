"""What a run tells its user before it begins."""

from collections.abc import Iterator

from common.config import Config
from driver.plan import Plan, machine_cores
from driver.ray_session import Session


def introduction(config: Config, plan: Plan, session: Session) -> Iterator[str]:
    """Lines on what was found and what will be started."""
    size = session.size
    threads = _count(plan.learner_threads, "thread")
    learner = "the GPU" if plan.learner_device == "cuda" else f"the CPU ({threads})"
    if session.address is None:
        yield f"private Ray on {machine_cores()} cores{' and a GPU' if size.gpus else ''}"
    else:
        yield f"Ray cluster at {session.address}: {size.description}"
    envs = _count(config.actors.envs_per_actor, "environment")
    core = f" on the emulator core {plan.core}" if plan.core else ""
    shards = _count(config.replay.shards, "replay shard")
    yield f"{_count(plan.actors, 'actor')} with {envs} each{core}, {shards}, learner on {learner}"
    if session.address is None and config.actors.count != "auto" and plan.cpus > machine_cores():
        yield f"note: {plan.actors} actors and the learner share {machine_cores()} cores, as you asked"
    if session.address is not None and plan.cpus > size.cpus:
        yield f"note: {plan.cpus} cores are asked of a cluster that has {size.cpus}; the rest start when it grows"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
