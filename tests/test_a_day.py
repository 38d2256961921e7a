"""24 hours in fast motion: what a day of the default run brings to shard and driver does not make them grow."""

import gc
import logging
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import pytest
import ray

from actors.environment import environment_spec, make_environment
from actors.remote import ActorReport
from actors.synthetic import record
from common.types import Chunk, EnvironmentSpec, Episode, ShardStats
from driver.counters import Counters, ShardTotals
from driver.display import Status, plain_line
from driver.episode_log import EpisodeLog
from driver.metrics import Metrics, progress_line, window_scalars
from driver.run_directory import RunDirectory
from driver.standstill import Standstill
from driver.window import Window
from learner.remote import LearnerReport
from replay.rate_limiter import RateLimiter
from replay.remote import start_shard
from tests.replay_chunks import episode_chunks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DAY_S = 24 * 3600
STEPS_PER_S, CHUNK_LENGTH = 500, 80
CHUNKS = DAY_S * STEPS_PER_S // CHUNK_LENGTH  # 540,000
CALLS = 200
BATCH, INSERTS_PER_BATCH = 64, 8  # the default draws one per 20 transitions; fewer here, for the sake of time


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=2,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder)


def mario_chunks(spec: EnvironmentSpec) -> list[Chunk]:
    """Frames of the game in chunks of different lengths and sizes."""
    env = make_environment()
    frames = record(env, 2_000, 0).frames
    env.close()
    rng = np.random.default_rng(0)
    chunks: list[Chunk] = []
    while len(chunks) < 200:
        start, length = int(rng.integers(len(frames) - CHUNK_LENGTH - 6)), int(rng.integers(60, CHUNK_LENGTH + 1))
        chunks.extend(episode_chunks(spec, frames[start : start + length + 1], CHUNK_LENGTH, 5, priority=rng.random()))
    return chunks


def live(shard: Any, chunks: list[Chunk], first: int, count: int) -> tuple[float, int]:
    """In the shard's process: inserts, samples, sends priorities back; MiB that are resident then, and the last id."""
    replay = shard._shard
    rng = np.random.default_rng(first)
    for number in range(first, first + count):
        assert replay.insert(chunks[number % len(chunks)])
        if number % INSERTS_PER_BATCH == 0:
            sample = replay.sample(BATCH)
            if sample is not None:  # else it has only just begun
                replay.update_priorities(sample.ids, rng.random(BATCH, np.float32))
    ok, reason = replay.check_valid()
    assert ok, reason
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, int(sample.ids.max())


def test_a_days_chunks_leave_a_shards_memory_flat() -> None:
    spec = environment_spec()
    chunks = mario_chunks(spec)
    per_chunk = sum(map(len, chunks)) / len(chunks)
    ratio = BATCH / (INSERTS_PER_BATCH * per_chunk)
    limiter = RateLimiter(ratio, 1_000, 1e9, CHUNK_LENGTH, BATCH)
    shard: Any = start_shard(
        capacity=20_000, spec=spec, priority_exponent=0.6, limiter=limiter, seed=np.random.SeedSequence(0)
    )
    pool, each = ray.put(chunks), CHUNKS // CALLS
    memory, newest = [], 0
    for call in range(CALLS):
        resident, newest = ray.get(shard.__ray_call__.remote(live, pool, call * each, each))
        memory.append(resident)
    full = memory[CALLS // 10 :]  # the ring was full long before
    print(f"{newest:,} transitions; resident MiB: {full[0]:.1f}, at most {max(full):.1f}, {full[-1]:.1f} at last")
    assert newest > 0.9 * CHUNKS * per_chunk
    assert max(full) < 1.02 * full[0]


def learner_report(second: int) -> LearnerReport:
    updates = 25
    means: Any = {"loss": 0.1, "td_error": 0.5, "q_mean": 9.0, "grad_norm": 2.0, "policy_lag": 8.0}
    return LearnerReport(
        updates=updates,
        total_updates=(second + 1) * updates,
        samples=updates * 64,
        seconds=1.0,
        waited_s=0.1,
        version=second,
        losses=np.full(updates, 0.1, np.float32),
        learning_rate=1e-4,
        lost_priority_updates=0,
        **means,
    )


def episode(second: int) -> Episode:
    last = max(0, 25 * second - 5)
    return Episode(
        stage="1-1",
        episode_return=float(second),
        length=300,
        x_pos=second % 3_200,
        final_x=second % 3_200,
        time_left=200,
        clear=second % 5 == 0,
        stages_cleared=0,
        truncated=False,
        epsilon=(0.005, 0.05, 0.3)[second % 3],
        first_update=max(0, last - 700),
        last_update=last,
    )


def test_a_days_reports_leave_the_drivers_memory_flat(tmp_path: Path) -> None:
    said: list[str] = []
    run = RunDirectory(tmp_path)
    counters, window, status = Counters(), Window(), Status()
    totals, standstill = ShardTotals(counters), Standstill(said.append)
    metrics = Metrics(run, said.append)
    log = EpisodeLog(run.episodes_path, episodes=0, warn=said.append)
    held: list[int] = []
    tracemalloc.start()
    for second in range(DAY_S):
        episodes = [episode(second)] * (1 + second % 2)
        report = ActorReport(500, episodes, episodes, 1.0, 0.3, second, 0.01, 0.3, second % 2, {"1-1": 1.0})
        for side in (window, standstill):
            side.take_actor(report)
            side.take_learner(learner_report(second))
        standstill.look()
        log.take_episodes(episodes)
        log.take_losses((second + 1) * 25, learner_report(second).losses)
        totals.take(0, ShardStats(99_000, 100_000, 10**8, 500 * second, 2_000 * second, 500 * second, 3), counters)
        status.take(episodes)
        counters.episodes += len(episodes)
        counters.env_steps += 500
        if second % 5 == 0:
            window.seconds = 5.0
            metrics.scalars(window_scalars(window, counters, totals), counters.env_steps)
            metrics.progress(progress_line(window, counters, totals, 2))
            plain_line(status)
            window = Window()
        if second % (DAY_S // 24) == DAY_S // 24 - 1:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    log.close()
    settled = held[2:]  # the losses of the last 100,000 updates are there after 67 minutes
    print(f"MiB held: {[round(size / 2**20, 2) for size in held]}")
    assert max(settled) - settled[0] < 2**17
    assert said == []
    assert len(run.episodes_path.read_text().splitlines()) == counters.episodes + 1
