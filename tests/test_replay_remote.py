"""Shards in processes of their own, under a real Ray."""

import dataclasses
import io
import logging
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import pytest
import ray
from ray._private.internal_api import memory_summary
from ray.exceptions import RayActorError, RayTaskError

from common.types import Batch, Chunk, EnvironmentSpec, ShardSample, ShardStats
from driver.replay_files import ReplayNotSavedError, forget_snapshots, replay_writers, restore_replay
from replay import remote_reader
from replay.rate_limiter import RateLimiter
from replay.remote import ShardHandle, start_shard
from replay.remote_reader import RemoteReplayReader
from replay.remote_writer import RemoteReplayWriter
from replay.shard import SEQUENCE_BITS
from tests.replay_chunks import GAMMA, episode_chunks, open_limiter, plain_chunk, random_frames, reference_state

SPEC = EnvironmentSpec((2,), 2, ("noop", "right"))
IMAGES = EnvironmentSpec((84, 84), 4, ("noop", "right"))


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    # A short path: those of Ray's sockets are limited to 107 bytes.
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


@pytest.fixture(autouse=True)
def _little_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine every shard is late now and then, and tests of equal shares would wait for its rest to end."""
    monkeypatch.setattr(remote_reader, "_REST", 0.1)


def objects_in_store() -> int:
    address = ray.get_runtime_context().gcs_address
    summary: str = memory_summary(address, stats_only=True)
    return int(summary.split(" objects")[0].split()[-1])


MakeShard = Callable[..., ShardHandle]


@pytest.fixture
def make_shard() -> Iterator[MakeShard]:
    """Starts shards, and ends them after the test."""
    started: list[ShardHandle] = []

    def make(
        limiter: RateLimiter | None = None,
        *,
        spec: EnvironmentSpec = SPEC,
        capacity: int = 1000,
        alpha: float = 0.6,
        seed: int = 0,
        incarnation: int = 0,
    ) -> ShardHandle:
        shard = start_shard(
            capacity=capacity,
            spec=spec,
            priority_exponent=alpha,
            limiter=limiter or open_limiter(),
            seed=np.random.SeedSequence(seed),
            incarnation=incarnation,
        )
        started.append(shard)
        ray.get(shard.ping.remote(), timeout=30)
        return shard

    yield make
    for shard in started:
        ray.kill(shard)


def stats(shard: ShardHandle) -> ShardStats:
    answer: Any = ray.get(shard.stats.remote(), timeout=10)
    assert isinstance(answer, ShardStats)
    return answer


def next_batch(reader: RemoteReplayReader) -> Batch:
    batch = reader.next_batch(20)
    assert batch is not None
    return batch


def sample(shard: ShardHandle, n: int) -> ShardSample:
    answer: Any = ray.get(shard.sample.remote(n), timeout=10)
    assert isinstance(answer, ShardSample)
    return answer


def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def answers(shard: Any) -> bool:
    try:
        ray.get(shard.ping.remote(), timeout=10)
    except RayActorError:
        return False
    return True


def kill(shard: ShardHandle) -> None:
    """Returns when the shard is really dead."""
    ray.kill(shard)
    assert eventually(lambda: not answers(shard))


def tight_limiter() -> RateLimiter:
    """Two chunks of 10 fill it up; then each batch of 10 lets one more in."""
    return RateLimiter(samples_per_insert=1.0, min_size=10, error_buffer=10.0, max_insert=10, max_sample=10)


def test_states_round_trip_bit_for_bit(make_shard: MakeShard) -> None:
    length, n_step = 100, 5
    frames = random_frames(IMAGES, length + 1, seed=1)
    shards = [make_shard(spec=IMAGES) for _ in range(2)]
    writer = RemoteReplayWriter(shards, max_in_flight=2)
    for chunk in episode_chunks(IMAGES, frames, 50, n_step):  # each chunk is larger than an inline message
        writer.push(chunk)
    assert writer.flush(10)
    reader = RemoteReplayReader(shards, 150, beta=0.4, prefetch=1)
    batch = next_batch(reader)
    s_tm1, s_t = batch.stack(batch.s_tm1), batch.stack(batch.s_t)
    seen = set()
    for row in range(150):
        step = int(batch.r_t[row])
        end = min(step + n_step, length)
        np.testing.assert_array_equal(s_tm1[row], reference_state(IMAGES, frames, step))
        np.testing.assert_array_equal(s_t[row], reference_state(IMAGES, frames, end))
        assert batch.discount_t[row] == np.float32(0 if end == length else GAMMA**n_step)
        seen.add(step)
    assert {0, 1, 2, length - 1} <= seen  # zero padding and the shortest tail were among them
    assert batch.frames.flags.owndata


def test_a_shard_keeps_no_object_store_buffer_alive(make_shard: MakeShard) -> None:
    shard = make_shard(spec=IMAGES)
    (chunk,) = episode_chunks(IMAGES, random_frames(IMAGES, 100, seed=2), 99, 1)
    assert eventually(lambda: objects_in_store() == 0)
    ref = ray.put(chunk)
    assert ray.get(shard.insert.remote(ref))
    assert objects_in_store() == 1
    del ref
    assert eventually(lambda: objects_in_store() == 0)
    assert len(sample(shard, 4).ids) == 4


def test_ping_answers_while_the_shard_is_busy(make_shard: MakeShard) -> None:
    shard = make_shard(spec=IMAGES, limiter=open_limiter(max_sample=10**6))
    (chunk,) = episode_chunks(IMAGES, random_frames(IMAGES, 91, seed=2), 90, 1)
    ray.get(shard.insert.remote(chunk))
    busy = [shard.sample.remote(1000) for _ in range(3)]
    ray.get(shard.ping.remote(), timeout=5)
    assert len(ray.wait(busy, num_returns=3, timeout=0)[1]) > 0


def test_a_shard_reserves_no_cpu_and_is_named_in_ps(make_shard: MakeShard) -> None:
    shards = [make_shard() for _ in range(3)]
    assert len(shards) == 3
    available: Any = ray.available_resources()
    assert available["CPU"] == 2
    commands = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                commands.append(file.read())
        except OSError:
            continue
    assert sum(command.startswith("ray::RemoteReplayShard") for command in commands) >= 3


def test_chunks_go_round_robin(make_shard: MakeShard) -> None:
    shards = [make_shard() for _ in range(3)]
    writer = RemoteReplayWriter(shards, max_in_flight=2)
    for _ in range(9):
        writer.push(plain_chunk(SPEC, 10))
        assert writer.flush(10)
    assert [stats(shard).size for shard in shards] == [30, 30, 30]


def test_back_pressure_stops_the_writer_and_a_batch_lets_it_go_on(make_shard: MakeShard) -> None:
    shards = [make_shard(tight_limiter()) for _ in range(2)]
    writer = RemoteReplayWriter(shards, max_in_flight=2, max_pending=4)
    for _ in range(5):
        writer.push(plain_chunk(SPEC, 10))
        assert writer.wait_ready(10)
    writer.push(plain_chunk(SPEC, 10))
    started = time.monotonic()
    assert not writer.wait_ready(0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert writer.pending == 2
    writer.push(plain_chunk(SPEC, 10))
    writer.push(plain_chunk(SPEC, 10))
    with pytest.raises(RuntimeError, match="4 chunks are pending"):
        writer.push(plain_chunk(SPEC, 10))
    assert [stats(shard).inserts for shard in shards] == [20, 20]
    assert len(sample(shards[1], 10).ids) == 10
    assert eventually(lambda: writer.wait_ready(0.1) or writer.pending == 3)
    assert [stats(shard).inserts for shard in shards] == [20, 30]


class RefusingShard:
    """Says no to everything and counts how often it was asked."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def insert(self, chunk: Chunk) -> bool:
        self._calls["insert"] += 1
        return False

    def can_insert(self, n: int) -> bool:
        self._calls["can_insert"] += 1
        return False

    def sample(self, n: int) -> None:
        self._calls["sample"] += 1

    def ping(self) -> None:
        pass

    def calls(self) -> Counter[str]:
        return self._calls


@pytest.fixture
def refusing_shards() -> Iterator[list[Any]]:
    shards: list[Any] = [ray.remote(RefusingShard).options(num_cpus=0).remote() for _ in range(2)]
    ray.get([shard.calls.remote() for shard in shards])
    yield shards
    for shard in shards:
        ray.kill(shard)


def test_a_refused_chunk_is_not_sent_again_before_a_shard_has_room(refusing_shards: list[Any]) -> None:
    writer = RemoteReplayWriter(refusing_shards, max_in_flight=1)
    writer.push(plain_chunk(SPEC, 10))
    assert not writer.wait_ready(1.5)
    seen = ray.get([shard.calls.remote() for shard in refusing_shards])
    assert sum(calls["insert"] for calls in seen) == 1
    # In turn, 10, 20, 40, 80, 160, 200, 200 … ms apart: more shards are not asked more questions.
    assert min(calls["can_insert"] for calls in seen) >= 2
    assert sum(calls["can_insert"] for calls in seen) <= 13


def test_a_dead_shards_chunks_go_to_the_next_one(make_shard: MakeShard) -> None:
    shards = [make_shard(), make_shard()]
    writer = RemoteReplayWriter(shards, max_in_flight=4)
    kill(shards[0])
    for _ in range(4):
        writer.push(plain_chunk(SPEC, 10))
        assert writer.wait_ready(10)
    assert writer.flush(10)
    assert stats(shards[1]).size == 40
    kill(shards[1])
    writer.push(plain_chunk(SPEC, 10))
    assert not writer.flush(0.5)
    replacement = make_shard(incarnation=1)
    writer.set_shards([replacement])
    assert writer.flush(10)
    assert stats(replacement).size == 10


def test_an_invalid_chunk_is_an_error(make_shard: MakeShard) -> None:
    writer = RemoteReplayWriter([make_shard()], max_in_flight=1)
    writer.push(dataclasses.replace(plain_chunk(SPEC, 10), first_state=7).sealed())
    with pytest.raises(RayTaskError, match="first_state is 7"):
        writer.flush(10)


def test_a_damaged_chunk_is_counted_and_the_writer_goes_on(make_shard: MakeShard) -> None:
    shard = make_shard(spec=IMAGES)
    writer = RemoteReplayWriter([shard], max_in_flight=1)
    chunk = plain_chunk(IMAGES, 10)
    frames = bytearray(chunk.frames)
    frames[len(frames) // 2] ^= 4
    writer.push(dataclasses.replace(chunk, frames=bytes(frames)))
    writer.push(chunk)
    assert writer.flush(10)
    assert (stats(shard).size, stats(shard).damaged_chunks) == (10, 1)
    assert len(next_batch(RemoteReplayReader([shard], 100, beta=0.4, prefetch=1)).ids) == 100


def fill(shards: list[ShardHandle], chunks_each: int = 2) -> None:
    assert all(ray.get([shard.insert.remote(plain_chunk(SPEC, 10)) for shard in shards for _ in range(chunks_each)]))


def test_batches_come_in_equal_shares(make_shard: MakeShard) -> None:
    shards = [make_shard(seed=seed) for seed in range(3)]
    fill(shards)
    reader = RemoteReplayReader(shards, 20, beta=0.4, prefetch=3)
    total = np.zeros(3, int)
    for _ in range(30):
        batch = next_batch(reader)
        counts = np.bincount(batch.shard, minlength=3)
        assert sorted(counts.tolist()) == [6, 7, 7]
        assert batch.weight.max() == 1
        total += counts
    assert total.tolist() == [200, 200, 200]
    assert eventually(lambda: sum(stats(shard).samples for shard in shards) == 20 * 33)
    assert [stats(shard).samples for shard in shards] == [220, 220, 220]


def test_nothing_drawn_is_thrown_away_when_shards_refuse(make_shard: MakeShard) -> None:
    """Every sample that was drawn is in a batch or waits for the rest of one; neither side stops."""
    shards = [make_shard(tight_limiter(), seed=seed) for seed in range(3)]
    fill(shards, 1)
    reader = RemoteReplayReader(shards, 10, beta=0.4, prefetch=2)
    writer = RemoteReplayWriter(shards, max_in_flight=2)
    received = pushed = 0
    deadline = time.monotonic() + 60
    while received < 400:
        assert time.monotonic() < deadline, "actor and learner wait for each other"
        if writer.wait_ready(0.01):
            writer.push(plain_chunk(SPEC, 10))
            pushed += 10
        batch = reader.next_batch(0.01)
        received += 0 if batch is None else len(batch.ids)
    assert writer.flush(10)
    while (batch := reader.next_batch(0.5)) is not None:
        received += len(batch.ids)
    inserted = sum(stats(shard).inserts for shard in shards)
    drawn = sum(stats(shard).samples for shard in shards)
    assert inserted == 30 + pushed
    assert 0 <= drawn - received < 2 * 10
    assert abs(drawn - (inserted - 30)) <= 3 * 10  # samples per insert is 1, within the three error buffers


def test_a_refusing_shard_is_left_to_the_others_and_asked_again(make_shard: MakeShard) -> None:
    shards = [make_shard(), make_shard(RateLimiter(1.0, 100, 1e6, 10, 1000))]
    fill(shards, 2)
    reader = RemoteReplayReader(shards, 16, beta=0.4, prefetch=3)
    for _ in range(5):
        assert (next_batch(reader).shard == 0).all()
        time.sleep(0.02)
    fill(shards[1:], 8)

    def equal_shares() -> bool:
        return bool((np.bincount(next_batch(reader).shard, minlength=2) == 8).all())

    assert eventually(equal_shares)
    for _ in range(3):  # batches that were on their way
        next_batch(reader)
    for _ in range(5):
        time.sleep(0.1)
        assert all(equal_shares() for _ in range(3))  # without a pause: several requests at once


def test_waiting_for_samples_has_a_limit_and_is_counted(make_shard: MakeShard) -> None:
    reader = RemoteReplayReader([make_shard()], 16, beta=0.4, prefetch=1)
    started = time.monotonic()
    assert reader.next_batch(0.4) is None
    assert 0.4 <= time.monotonic() - started < 5
    assert 0.4 <= reader.waited_s < 5


def test_a_refusing_shard_is_not_flooded(refusing_shards: list[Any]) -> None:
    reader = RemoteReplayReader(refusing_shards, 16, beta=0.4, prefetch=4)
    assert reader.next_batch(1.0) is None
    seen = ray.get([shard.calls.remote() for shard in refusing_shards])
    assert all(3 <= calls["sample"] <= 80 for calls in seen)


def test_a_dead_shard_is_left_out_until_it_is_replaced(make_shard: MakeShard) -> None:
    shards = [make_shard(), make_shard()]
    fill(shards)
    reader = RemoteReplayReader(shards, 16, beta=0.4, prefetch=2)
    old = next_batch(reader)
    assert set(old.shard) == {0, 1}
    kill(shards[1])
    for _ in range(6):
        batch = next_batch(reader)
    assert (batch.shard == 0).all()
    reader.update_priorities(old, np.ones(16, np.float32))
    assert reader.lost_priority_updates == 8
    replacement = make_shard(incarnation=1)
    fill([replacement])
    reader.set_shards([shards[0], replacement])
    reader.update_priorities(old, np.ones(16, np.float32))
    assert eventually(lambda: stats(replacement).stale_priority_updates == 8)
    for _ in range(4):
        batch = next_batch(reader)
    assert np.bincount(batch.shard).tolist() == [8, 8]
    assert set(batch.ids[batch.shard == 1] >> SEQUENCE_BITS) == {1}


def test_a_shard_that_was_out_of_reach_is_used_again(make_shard: MakeShard) -> None:
    """By reader and writer, though nobody tells them of it."""
    shard: Any = ray.remote(RefusingShard).options(num_cpus=0, max_restarts=1).remote()
    ray.get(shard.calls.remote())
    reader = RemoteReplayReader([shard], 16, beta=0.4, prefetch=1)
    writer = RemoteReplayWriter([shard], max_in_flight=1)
    writer.push(plain_chunk(SPEC, 10))
    ray.kill(shard, no_restart=False)
    # Their calls fail at once or meet the new process.
    assert eventually(lambda: reader.next_batch(0.1) is None and not writer.wait_ready(0.1) and answers(shard), 30)

    def seen() -> Counter[str]:
        calls: Any = ray.get(shard.calls.remote(), timeout=20)
        return Counter(calls)

    def asked() -> bool:
        reader.next_batch(0.1)
        writer.wait_ready(0.1)
        return seen()["sample"] > 0 and seen()["insert"] + seen()["can_insert"] > 0

    assert eventually(asked, 30)
    ray.kill(shard)


def pid_of(shard: Any) -> int:
    pid: Any = ray.get(shard.__ray_call__.remote(lambda self: os.getpid()), timeout=30)
    return int(pid)


@contextmanager
def paused(shard: ShardHandle) -> Iterator[None]:
    pid = pid_of(shard)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_shard_that_pauses_holds_nobody_up_and_nothing_of_its_answers_is_lost(make_shard: MakeShard) -> None:
    shards = [make_shard(seed=seed) for seed in range(2)]
    fill(shards)
    reader = RemoteReplayReader(shards, 16, beta=0.4, prefetch=3)
    writer = RemoteReplayWriter(shards, max_in_flight=1)
    taken: list[Batch] = []

    def take() -> Batch:
        taken.append(next_batch(reader))
        return taken[-1]

    assert set(take().shard) == {0, 1}
    with paused(shards[1]):
        for _ in range(20):
            reader.update_priorities(take(), np.ones(16, np.float32))
            assert writer.wait_ready(20)
            writer.push(plain_chunk(SPEC, 10))
        assert all((batch.shard == 0).all() for batch in taken[-10:])
    assert writer.flush(20)
    assert sum(stats(shard).size for shard in shards) == 2 * 2 * 10 + 20 * 10
    deadline = time.monotonic() + 30
    while 1 not in take().shard:
        assert time.monotonic() < deadline, "it is not asked again"
    for _ in range(10):  # what came late is in them
        take()
    time.sleep(1)  # for what was asked for the next ones
    assert sum(stats(shard).samples for shard in shards) - 16 * len(taken) <= 3 * 16


class SlowShard(RefusingShard):
    """Takes long to say no."""

    def sample(self, n: int) -> None:
        super().sample(n)
        time.sleep(1.5)


def test_a_shard_that_is_always_slow_is_asked_now_and_then(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reader, "_REST", 10.0)
    slow: Any = ray.remote(SlowShard).options(num_cpus=0).remote()
    quick = make_shard()
    ray.get(slow.calls.remote())
    fill([quick])
    reader = RemoteReplayReader([quick, slow], 16, beta=0.4, prefetch=2)
    for _ in range(3):  # the first answer may come late: then the process was being made
        next_batch(reader)
        time.sleep(2)
    before: Any = ray.get(slow.calls.remote(), timeout=30)
    for _ in range(300):
        next_batch(reader)
    after: Any = ray.get(slow.calls.remote(), timeout=30)
    assert before["sample"] >= 2
    assert after["sample"] - before["sample"] <= 4
    ray.kill(slow)


def test_priorities_arrive_and_calls_in_flight_are_bounded(make_shard: MakeShard) -> None:
    shards = [make_shard(alpha=1.0, seed=seed) for seed in range(2)]
    fill(shards, 1)
    reader = RemoteReplayReader(shards, 40, beta=0.4, prefetch=1, max_priority_updates_in_flight=3)
    batch = next_batch(reader)
    assert len(set(zip(batch.shard.tolist(), batch.ids.tolist(), strict=True))) == 20
    for scale in range(20):
        reader.update_priorities(batch, np.where(batch.ids == 4, -scale, 0).astype(np.float32))
        assert len(reader._updates) <= 3
    for shard in shards:
        assert (sample(shard, 50).ids == 4).all()


def test_td_errors_that_are_not_finite_are_refused(make_shard: MakeShard) -> None:
    shard = make_shard()
    fill([shard])
    reader = RemoteReplayReader([shard], 4, beta=0.4, prefetch=1)
    batch = next_batch(reader)
    with pytest.raises(ValueError, match="finite"):
        reader.update_priorities(batch, np.array([0, 1, np.nan, 2], np.float32))


def insert_many(shard: Any, transitions: int) -> None:
    """In the shard's process."""
    for chunk in episode_chunks(SPEC, random_frames(SPEC, transitions + 1, seed=4), 80, 3):
        assert shard._shard.insert(chunk)


def await_samples(shard: Any, count: int) -> None:
    """In the shard's process: no piece of its snapshot is made before so many draws since it was asked for."""

    def have_come() -> bool:
        enough = shard._shard.stats().samples + count
        return eventually(lambda: shard._shard.stats().samples >= enough, 20)

    def patient(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            assert have_come(), "a piece holds sampling up"
            yield piece

    shard._pieces = patient(shard._pieces)


def test_a_snapshot_is_sent_beside_sampling_and_makes_an_equal_shard(make_shard: MakeShard, tmp_path: Path) -> None:
    """Each piece comes after draws that were asked for later than it: on one thread neither would ever come."""
    shard, restored = make_shard(capacity=40_000), make_shard(capacity=40_000, seed=1, incarnation=1)
    ray.get(shard.__ray_call__.remote(insert_many, 40_000), timeout=60)
    writers = replay_writers([shard])
    ray.get(shard.__ray_call__.remote(await_samples, 150), timeout=10)
    path = tmp_path / "replay-0.bin"
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
        writing = thread.submit(writers[path.name], file)
        later = sample(shard, 50)  # not part of the snapshot
        draws = 1
        while not writing.done():
            sample(shard, 50)
            draws += 1
        writing.result()
    assert draws >= 2 * 3  # two pieces
    assert stats(shard).samples == 50 * draws
    assert restore_replay([restored], {"replay-0.bin": tmp_path / "replay-0.bin"}) is None
    again = sample(restored, 50)
    assert (again.ids & ((1 << SEQUENCE_BITS) - 1) == later.ids).all()
    for name in ("blocks", "s_tm1", "a_tm1", "r_t", "discount_t", "share"):
        np.testing.assert_array_equal(getattr(again, name), getattr(later, name))


def test_a_replay_that_cannot_be_restored_says_why_and_stays_empty(make_shard: MakeShard, tmp_path: Path) -> None:
    shard, other = make_shard(), make_shard(alpha=0.5)
    assert ray.get(shard.insert.remote(plain_chunk(SPEC, 40)), timeout=10)
    file = tmp_path / "replay-0.bin"
    with file.open("wb") as stream:
        replay_writers([shard])["replay-0.bin"](stream)
    files = {"replay-0.bin": file}
    assert restore_replay([other], files) == "replay-0.bin: it was made with priority_exponent 0.6 instead of 0.5"
    assert restore_replay([other], {}) == "the checkpoint holds no replay"
    assert restore_replay([other, shard], files) == "the checkpoint's replay has another number of shards, 1"
    file.write_bytes(file.read_bytes()[:-1])
    assert restore_replay([other], files) == "replay-0.bin: it is cut short"
    assert stats(other).size == 0
    assert kept_of_snapshots(other) == (0, None)


def kept_of_snapshots(shard: Any) -> tuple[int, object]:
    """Pieces that a shard still has to send, and what it holds of a snapshot that it is sent."""
    answer: Any = ray.get(shard.__ray_call__.remote(lambda self: (len(list(self._pieces)), self._assembly)), timeout=10)
    pieces, assembly = answer
    return pieces, assembly


def test_a_snapshot_that_nobody_reads_any_more_is_not_kept(make_shard: MakeShard) -> None:
    """On a full disk it would keep the evicted frames alive for as long as that lasts."""
    shard = make_shard()
    fill([shard])
    replay_writers([shard])
    assert kept_of_snapshots(shard) == (2, None)
    replay_writers([shard])
    forget_snapshots([shard])
    assert kept_of_snapshots(shard) == (0, None)


def test_a_dead_shards_contents_are_missed(make_shard: MakeShard) -> None:
    shard = make_shard()
    (writer,) = replay_writers([shard]).values()
    ray.kill(shard)
    with pytest.raises(ReplayNotSavedError, match="does not answer"):
        writer(io.BytesIO())
    with pytest.raises(ReplayNotSavedError, match="does not answer"):
        replay_writers([shard])
