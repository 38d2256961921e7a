"""One shard's process under load: real Ray calls, real frames."""

import dataclasses
import os
import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import ray

from benchmarks.processes import Memory, cpu_seconds, resident_memory
from benchmarks.replay_frames import spec
from common.types import Chunk, ShardStats
from replay.rate_limiter import RateLimiter, minimum_error_buffer
from replay.remote import ShardHandle, start_shard
from replay.remote_reader import RemoteReplayReader
from replay.remote_writer import RemoteReplayWriter

APEX_INSERTS_PER_S: Final = 12_500
APEX_SAMPLES_PER_S: Final = 9_700
"""The load that Horgan et al. (2018) publish for 360 actors: transitions inserted, and sampled by the learner."""

BATCH_SIZE: Final = 512
_MAX_INSERT: Final = 84  # of the chunks of an actor with the default settings: chunk_length - 1 + n_step
_SAMPLES_PER_INSERT: Final = APEX_SAMPLES_PER_S / APEX_INSERTS_PER_S
_WARM_UP_S: Final = 2.0
_INSERTS_IN_FLIGHT: Final = 16


@dataclass(frozen=True)
class LoadFigures:
    """What was measured while inserters and sampler ran."""

    seconds: float
    inserts_per_s: float
    samples_per_s: float
    shard_cpu: float  # CPU seconds per second
    inserter_cpu: float  # all inserters together
    sampler_cpu: float


class Inserter:
    """Pushes chunks as an actor's process does, without playing."""

    def __init__(self, shard: ShardHandle, chunks: list[Chunk], seed: int) -> None:
        self._writer = RemoteReplayWriter([shard], max_in_flight=4)
        self._chunks = chunks
        self._rng = np.random.default_rng(seed)
        self._next = int(self._rng.integers(len(chunks)))

    def pid(self) -> int:
        """Of this process."""
        return os.getpid()

    def run(self, seconds: float, per_s: float | None) -> None:
        """Pushes for so long, so many transitions per second, or as many as are accepted."""
        started = due = time.monotonic()
        while (now := time.monotonic()) < started + seconds:
            if per_s is not None and now < due:
                time.sleep(due - now)
            if not self._writer.wait_ready(0.1):
                continue
            chunk = self._chunk()
            self._writer.push(chunk)
            due += len(chunk) / per_s if per_s is not None else 0.0
        self._writer.flush(10)

    def _chunk(self) -> Chunk:
        chunk = self._chunks[self._next % len(self._chunks)]
        self._next += 1
        return dataclasses.replace(chunk, priority=_priorities(self._rng, len(chunk))).sealed()


class Sampler:
    """Takes batches as the learner's process does and sends priorities back, without training."""

    def __init__(self, shard: ShardHandle, seed: int) -> None:
        self._shard = shard
        self._reader = RemoteReplayReader([shard], BATCH_SIZE, beta=0.4, prefetch=3)
        self._rng = np.random.default_rng(seed)

    def pid(self) -> int:
        """Of this process."""
        return os.getpid()

    def run(self, seconds: float, decode: bool) -> None:
        """Samples for so long; without `decode` the frames stay compressed, which takes far less CPU."""
        deadline = time.monotonic() + seconds
        if decode:
            self._take_batches(deadline)
        else:
            self._take_samples(deadline)

    def _take_batches(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            batch = self._reader.next_batch(0.1)
            if batch is not None:
                self._reader.update_priorities(batch, _priorities(self._rng, len(batch.ids)))

    def _take_samples(self, deadline: float) -> None:
        shard: Any = self._shard
        in_flight: deque[Any] = deque()
        while time.monotonic() < deadline:
            while len(in_flight) < 3:
                in_flight.append(shard.sample.remote(BATCH_SIZE))
            sample = ray.get(in_flight.popleft())
            if sample is None:
                time.sleep(0.005)
                continue
            ray.get(shard.update_priorities.remote(sample.ids, _priorities(self._rng, len(sample.ids))))


class ShardBench:
    """One shard with its inserters and its sampler, each in a process of its own.

    Args:
        chunks: what the inserters push, over and over.
        capacity: of the shard, transitions.
        inserters: processes.
    """

    def __init__(self, chunks: list[Chunk], capacity: int, inserters: int) -> None:
        slack = 2 * minimum_error_buffer(_SAMPLES_PER_INSERT, _MAX_INSERT, BATCH_SIZE)
        self._min_size = capacity - _MAX_INSERT + 1
        limiter = RateLimiter(float(Fraction(_SAMPLES_PER_INSERT)), self._min_size, slack, _MAX_INSERT, BATCH_SIZE)
        self._chunks = chunks
        self._shard: Any = start_shard(
            capacity=capacity, spec=spec(), priority_exponent=0.6, limiter=limiter, seed=np.random.SeedSequence(0)
        )
        pool = ray.put(chunks)
        self._inserters = [_process(Inserter).remote(self._shard, pool, seed) for seed in range(inserters)]
        self._sampler: Any = _process(Sampler).remote(self._shard, inserters)
        pids: Any = ray.get([role.pid.remote() for role in [*self._inserters, self._sampler]])
        self._inserter_pids: list[int] = pids[:-1]
        self._sampler_pid: int = pids[-1]
        shard_pid: Any = ray.get(self._shard.__ray_call__.remote(lambda shard: os.getpid()))
        self._shard_pid: int = shard_pid

    def memory(self) -> Memory:
        """Of the shard's process."""
        return resident_memory(self._shard_pid)

    def stats(self) -> ShardStats:
        """The shard's own counters."""
        stats: ShardStats = ray.get(self._shard.stats.remote())
        return stats

    def fill(self) -> float:
        """Inserts until sampling begins, with at most 84 transitions missing to the capacity; returns the seconds."""
        started = time.monotonic()
        rng = np.random.default_rng(9)
        in_flight: list[Any] = []
        inserted, turn = 0, 0
        while inserted < self._min_size:
            chunk = self._chunks[turn % len(self._chunks)]
            turn += 1
            inserted += len(chunk)
            fresh = dataclasses.replace(chunk, priority=_priorities(rng, len(chunk))).sealed()
            in_flight.append(self._shard.insert.remote(fresh))
            if len(in_flight) >= _INSERTS_IN_FLIGHT:
                done, in_flight = ray.wait(in_flight)
                assert all(ray.get(done)), "the rate limiter refused a chunk while the shard was filled"
        ray.get(in_flight)
        return time.monotonic() - started

    def run(self, seconds: float, inserts_per_s: float | None, *, decode: bool = True) -> LoadFigures:
        """Inserts and samples at once for so long, after a warm-up."""
        total_s = _WARM_UP_S + seconds
        each = None if inserts_per_s is None else inserts_per_s / len(self._inserters)
        running = [inserter.run.remote(total_s + 1, each) for inserter in self._inserters]
        running.append(self._sampler.run.remote(total_s + 1, decode))
        time.sleep(_WARM_UP_S)
        before = self._snapshot()
        time.sleep(seconds)
        after = self._snapshot()
        ray.get(running)
        elapsed, inserts, samples, *cpu = ((late - early) for late, early in zip(after, before, strict=True))
        return LoadFigures(
            seconds=elapsed,
            inserts_per_s=inserts / elapsed,
            samples_per_s=samples / elapsed,
            shard_cpu=cpu[0] / elapsed,
            inserter_cpu=cpu[1] / elapsed,
            sampler_cpu=cpu[2] / elapsed,
        )

    def _snapshot(self) -> tuple[float, ...]:
        """Time, inserts, samples, CPU seconds of shard, inserters and sampler."""
        stats = self.stats()
        cpu = (cpu_seconds(self._shard_pid), sum(map(cpu_seconds, self._inserter_pids)), cpu_seconds(self._sampler_pid))
        return (time.monotonic(), stats.inserts, stats.samples, *cpu)


def _process(role: type) -> Any:
    decorate: Any = ray.remote
    return decorate(num_cpus=0, max_restarts=0)(role)


def _priorities(rng: np.random.Generator, count: int) -> Any:
    return rng.exponential(size=count).astype(np.float32)
