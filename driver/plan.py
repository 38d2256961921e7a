"""How many processes of which size fit the machine or the cluster."""

import os
from dataclasses import dataclass

from common.config import Config
from common.errors import UserError
from common.validation import largest_chunk
from replay.rate_limiter import minimum_error_buffer


@dataclass(frozen=True)
class Plan:
    """What will be started."""

    actors: int
    learner_device: str  # "cpu" or "cuda"
    learner_threads: int
    learner_cpus: int  # reserved; shards and evaluator reserve none

    @property
    def cpus(self) -> int:
        """Cores that the processes reserve."""
        return self.actors + self.learner_cpus


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def make_plan(config: Config, *, cpus: int, gpus: int) -> Plan:
    """Fits a run into `cpus` cores and `gpus` GPUs.

    Raises:
        UserError: CUDA was asked for where there is none.
    """
    wanted = config.learner.device
    if wanted.startswith("cuda") and gpus == 0:
        raise UserError(f"--learner.device {wanted}: no GPU was found; leave it out to train on the CPU")
    on_gpu = gpus > 0 and wanted != "cpu"
    auto_threads = 1 if on_gpu else max(1, cpus // 4)
    threads = auto_threads if config.learner.threads == "auto" else config.learner.threads
    learner_cpus = 1 if on_gpu else min(threads, max(1, cpus - 1))
    actors = _auto_actors(cpus, learner_cpus) if config.actors.count == "auto" else config.actors.count
    return Plan(actors, "cuda" if on_gpu else "cpu", threads, learner_cpus)


def _auto_actors(cpus: int, learner_cpus: int) -> int:
    """The cores that the learner leaves; on two cores both.

    There one actor would leave the learner waiting for batches, while of two the rate limiter takes back what
    the learner needs: the actors wait instead.
    """
    return 2 if cpus == 2 else max(1, cpus - learner_cpus)


def error_buffer(config: Config) -> float:
    """Samples by which each shard's ratio may run ahead or behind."""
    if config.replay.error_buffer is not None:
        return config.replay.error_buffer
    smallest = minimum_error_buffer(config.replay.samples_per_insert, largest_chunk(config), config.learner.batch_size)
    return 2 * smallest
