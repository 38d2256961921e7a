"""How many processes of which size fit the machine or the cluster."""

import os
from dataclasses import dataclass

from actors.cores import CoreName, resolve_core
from actors.saved_starts import resolve_saved_starts
from common.config import Config
from common.errors import UserError
from common.types import EnvironmentSpec
from common.validation import largest_chunk
from replay.memory import bytes_per_transition
from replay.rate_limiter import RateLimiter, minimum_error_buffer

# Of the samples per insert, by which they may be off when sampling begins.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Plan:
    """What will be started."""

    actors: int
    learner_device: str  # "cpu" or "cuda"
    learner_threads: int
    learner_cpus: int  # reserved; shards and evaluator reserve none
    core: CoreName | None  # emulator core, None where the environment has none

    @property
    def cpus(self) -> int:
        """Cores that the processes reserve."""
        return self.actors + self.learner_cpus


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def make_plan(config: Config, *, cpus: int, gpus: int, private: bool) -> Plan:
    """Fits a run into `cpus` cores and `gpus` GPUs.

    Args:
        config: the run's.
        cpus: cores of the machine, or of the learner's node in a cluster, whose other nodes only have more actors.
        gpus: its GPUs.
        private: whether Ray is the run's own: then its processes may share cores.

    Raises:
        UserError: CUDA was asked for where there is none, an emulator core that is not installed, or saved starts
            on one that cannot save its state.
    """
    wanted = config.learner.device
    if wanted == "cuda" and gpus == 0:
        raise UserError(f"--learner.device {wanted}: no GPU was found; leave it out to train on the CPU")
    on_gpu = gpus > 0 and wanted != "cpu"
    auto_threads = 1 if on_gpu else max(1, cpus // 4)
    threads = auto_threads if config.learner.threads == "auto" else config.learner.threads
    learner_cpus = 1 if on_gpu else min(threads, max(1, cpus - 1))
    actors = _auto_actors(cpus, learner_cpus, private) if config.actors.count == "auto" else config.actors.count
    core = resolve_core(config.env.core) if config.env.name in ("mario", "synthetic") else None
    resolve_saved_starts(config.actors.saved_starts, config.env)
    return Plan(actors, "cuda" if on_gpu else "cpu", threads, learner_cpus, core)


def _auto_actors(cpus: int, learner_cpus: int, private: bool) -> int:
    """The cores that the learner leaves; both on a machine that has two.

    There one actor would leave the learner waiting for batches, while of two the rate limiter takes back what
    the learner needs: the actors wait instead.
    """
    return 2 if private and cpus == 2 else max(1, cpus - learner_cpus)


def build_limiter(config: Config) -> RateLimiter:
    """The rate limiter of one shard."""
    return RateLimiter(
        samples_per_insert=config.replay.samples_per_insert,
        min_size=max(1, config.replay.min_size // config.replay.shards),
        error_buffer=error_buffer(config),
        max_insert=largest_chunk(config),
        max_sample=config.learner.batch_size,
    )


def transition_bytes(config: Config, spec: EnvironmentSpec) -> int:
    """Estimated bytes of one stored transition, all-in."""
    chunk = config.actors.chunk_length
    return bytes_per_transition(spec, (chunk + spec.frame_stack - 1 + config.agent.n_step) / chunk)


def error_buffer(config: Config) -> float:
    """Samples by which each shard's ratio may run ahead or behind.

    By default a tenth of what makes up `min_size`, as in Acme (its `samples_per_insert_tolerance_rate`), and twice the
    smallest possible at least. The faster both sides are, the more often they would wait for each other with less.
    """
    replay = config.replay
    if replay.error_buffer is not None:
        return replay.error_buffer
    smallest = minimum_error_buffer(replay.samples_per_insert, largest_chunk(config), config.learner.batch_size)
    return max(2 * smallest, _TOLERANCE * replay.samples_per_insert * replay.min_size / replay.shards)
