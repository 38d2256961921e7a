"""One shard: what goes in comes out, in the right proportions, until it is evicted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.types import Chunk, EnvironmentSpec
from replay.decoding import decode_states
from replay.memory import BYTES_PER_TRANSITION_ESTIMATE
from replay.rate_limiter import RateLimiter
from replay.shard import PRIORITY_EPSILON, SEQUENCE_BITS, ReplayShard
from tests.replay_chunks import GAMMA, episode_chunks, open_limiter, plain_chunk, random_frames, reference_state

SPEC = EnvironmentSpec((3, 4), 4, ("noop", "right", "left"))


def make_shard(
    capacity: int = 1000,
    *,
    alpha: float = 0.6,
    limiter: RateLimiter | None = None,
    incarnation: int = 0,
    seed: int = 0,
    spec: EnvironmentSpec = SPEC,
) -> ReplayShard:
    limiter = limiter or open_limiter()
    return ReplayShard(capacity, spec, alpha, limiter, np.random.SeedSequence(seed), incarnation)


def assert_valid(shard: ReplayShard) -> None:
    ok, reason = shard.check_valid()
    assert ok, reason


@pytest.mark.parametrize("n_step", [1, 3, 5])
def test_samples_are_the_transitions_that_were_inserted(n_step: int) -> None:
    length = 50
    frames = random_frames(SPEC, length + 1, seed=1)
    shard = make_shard()
    for chunk in episode_chunks(SPEC, frames, 20, n_step):
        assert shard.insert(chunk)
        assert_valid(shard)
    sample = shard.sample(400)
    assert sample is not None
    assert set(sample.ids.tolist()) == set(range(length))
    states = decode_states([sample])
    for row, step in enumerate(sample.ids.tolist()):
        end = min(step + n_step, length)
        np.testing.assert_array_equal(states.frames[states.s_tm1[row]], reference_state(SPEC, frames, step))
        np.testing.assert_array_equal(states.frames[states.s_t[row]], reference_state(SPEC, frames, end))
        assert sample.a_tm1[row] == step % 3
        assert sample.r_t[row] == step
        assert sample.discount_t[row] == np.float32(0 if end == length else GAMMA**n_step)
        assert sample.weight_version[row] == step
    assert {name: value.dtype.name for name, value in sample._asdict().items() if isinstance(value, np.ndarray)} == {
        **{"blocks": "uint8", "block_ends": "int64", "s_tm1": "int32", "a_tm1": "int64", "r_t": "float32"},
        **{"discount_t": "float32", "s_t": "int32", "ids": "int64", "share": "float64", "weight_version": "int32"},
    }
    assert sample.size == length


def test_shares_and_frequencies_follow_the_priorities() -> None:
    alpha, n = 0.6, 4000
    shard = make_shard(alpha=alpha)
    td = np.random.default_rng(2).exponential(size=30).astype(np.float32)
    chunk = dataclasses.replace(plain_chunk(SPEC, 30), priority=td).sealed()
    shard.insert(chunk)
    leaves = (td.astype(np.float64) + PRIORITY_EPSILON) ** alpha
    expected = leaves / leaves.sum()
    counts = np.zeros(30)
    for _ in range(10):
        sample = shard.sample(n)
        assert sample is not None
        np.testing.assert_allclose(sample.share, expected[sample.ids], rtol=1e-12)
        counts += np.bincount(sample.ids, minlength=30)
    np.testing.assert_allclose(counts / (10 * n), expected, atol=2 / n)  # stratified: less than one off per stratum


def test_any_part_of_a_draw_is_distributed_alike() -> None:
    """A client may use a draw in parts, so its order must not follow the slots."""
    shard = make_shard(alpha=0.0)
    shard.insert(plain_chunk(SPEC, 40))
    firsts = np.zeros(40)
    for _ in range(2000):
        sample = shard.sample(2)
        assert sample is not None
        firsts[sample.ids[0]] += 1
    assert ((firsts - 50) ** 2 / 50).sum() < 72.1  # 99.9 % point of chi square for 39 degrees of freedom


def test_an_exponent_of_zero_is_uniform() -> None:
    shard = make_shard(alpha=0.0)
    shard.insert(dataclasses.replace(plain_chunk(SPEC, 10), priority=np.arange(10, dtype=np.float32)).sealed())
    shard.update_priorities(np.arange(5), np.full(5, 100, np.float32))
    sample = shard.sample(1000)
    assert sample is not None
    np.testing.assert_array_equal(sample.share, np.full(1000, 0.1))
    np.testing.assert_array_equal(np.bincount(sample.ids), np.full(10, 100))


def test_updated_priorities_take_effect_and_the_last_of_equal_ids_counts() -> None:
    shard = make_shard(alpha=1.0)
    shard.insert(plain_chunk(SPEC, 4))
    shard.update_priorities(np.array([1, 0, 2, 3, 1]), np.array([5, 0, 0, 0, 7], np.float32))
    assert_valid(shard)
    sample = shard.sample(500)
    assert sample is not None
    assert (sample.ids == 1).all()
    np.testing.assert_allclose(sample.share, 1, atol=1e-5)
    np.testing.assert_allclose(sample.share, (7 + PRIORITY_EPSILON) / (7 + 4 * PRIORITY_EPSILON), rtol=1e-12)


def test_eviction_is_first_in_first_out_by_whole_chunks() -> None:
    shard = make_shard(capacity=100, limiter=open_limiter(max_insert=40))
    sizes = []
    for seed in range(4):
        shard.insert(plain_chunk(SPEC, 40, seed=seed))
        sizes.append(shard.size)
        assert_valid(shard)
    assert sizes == [40, 80, 80, 80]
    sample = shard.sample(800)
    assert sample is not None
    assert set(sample.ids.tolist()) == set(range(80, 160))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    capacity=st.integers(12, 40),
    seed=st.integers(0, 1000),
)
def test_stays_valid_and_within_capacity(lengths: list[int], capacity: int, seed: int) -> None:
    shard = make_shard(capacity, limiter=open_limiter(max_insert=12))
    rng = np.random.default_rng(seed)
    inserted = 0
    for length in lengths:
        assert shard.insert(plain_chunk(SPEC, length))
        inserted += length
        assert_valid(shard)
        assert min(inserted, capacity - 11) <= shard.size <= capacity
        sample = shard.sample(5)
        assert sample is not None
        assert (sample.ids >= inserted - shard.size).all()
        assert (sample.ids < inserted).all()
        np.testing.assert_array_equal(sample.share > 0, True)
        shard.update_priorities(rng.integers(0, inserted, 8), rng.exponential(size=8).astype(np.float32))
        assert_valid(shard)
    assert shard.stats().inserts == inserted


def test_updates_for_evicted_and_foreign_transitions_are_dropped_and_counted() -> None:
    shard = make_shard(capacity=20, limiter=open_limiter(max_insert=10), incarnation=3)
    shard.insert(plain_chunk(SPEC, 10))
    old = shard.sample(10)
    assert old is not None
    assert (old.ids >> SEQUENCE_BITS == 3).all()
    for seed in range(2):
        shard.insert(plain_chunk(SPEC, 10, seed=seed))
    before = shard.sample(1)
    shard.update_priorities(old.ids, np.full(10, 1e6, np.float32))
    assert shard.stats().stale_priority_updates == 10
    foreign = 2 << SEQUENCE_BITS | np.arange(15, 19)
    shard.update_priorities(foreign, np.full(4, 1e6, np.float32))
    assert shard.stats().stale_priority_updates == 14
    assert before is not None
    after = shard.sample(1)
    assert after is not None
    np.testing.assert_array_equal(after.share, before.share)
    shard.update_priorities(3 << SEQUENCE_BITS | np.arange(15, 19), np.full(4, 1e6, np.float32))
    assert shard.stats().stale_priority_updates == 14
    assert_valid(shard)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_priorities_are_refused_and_change_nothing(bad: float) -> None:
    shard = make_shard()
    shard.insert(plain_chunk(SPEC, 5))
    with pytest.raises(ValueError, match="finite"):
        shard.update_priorities(np.arange(2), np.array([9, bad], np.float32))
    with pytest.raises(ValueError, match="2,"):
        shard.update_priorities(np.arange(2), np.ones(3, np.float32))
    sample = shard.sample(5)
    assert sample is not None
    np.testing.assert_array_equal(sample.share, np.full(5, 0.2))


def test_a_refused_chunk_changes_nothing() -> None:
    limiter = RateLimiter(samples_per_insert=1.0, min_size=10, error_buffer=10.0, max_insert=10, max_sample=10)
    shard = make_shard(limiter=limiter)
    assert shard.insert(plain_chunk(SPEC, 10))
    assert shard.insert(plain_chunk(SPEC, 10))
    before = shard.stats()
    assert not shard.can_insert(10)
    assert not shard.insert(plain_chunk(SPEC, 10))
    assert shard.stats() == before
    assert shard.sample(10) is not None
    assert shard.insert(plain_chunk(SPEC, 10))
    assert_valid(shard)
    assert (shard.stats().samples, shard.stats().inserts, shard.stats().inserts_while_sampling) == (10, 30, 20)


def test_nothing_is_sampled_before_min_size_is_held() -> None:
    shard = make_shard(limiter=open_limiter(min_size=25))
    for _ in range(2):
        assert shard.insert(plain_chunk(SPEC, 10))
        assert not shard.can_sample(1)
        assert shard.sample(1) is None
    assert shard.insert(plain_chunk(SPEC, 10))
    assert shard.sample(1) is not None


def test_a_capacity_that_eviction_could_bring_below_min_size_is_refused() -> None:
    limiter = open_limiter(max_insert=40, min_size=61)
    with pytest.raises(ValueError, match=r"capacity=99 .* at least 100"):
        make_shard(capacity=99, limiter=limiter)
    make_shard(capacity=100, limiter=limiter)


def test_the_same_seed_draws_the_same() -> None:
    draws = []
    for seed in (1, 1, 2):
        shard = make_shard(seed=seed)
        shard.insert(plain_chunk(SPEC, 50))
        sample = shard.sample(20)
        assert sample is not None
        draws.append(sample.ids.tolist())
    assert draws[0] == draws[1] != draws[2]


def test_the_shard_keeps_no_memory_of_the_chunk() -> None:
    shard = make_shard()
    chunk = plain_chunk(SPEC, 10)
    arrays = [value for value in vars(chunk).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 7
    shard.insert(chunk)
    first = shard.sample(50)
    for array in arrays:
        array[:] = 0
    again = make_shard()
    again.insert(plain_chunk(SPEC, 10))
    second, expected = shard.sample(50), again.sample(50) and again.sample(50)
    assert first is not None
    assert second is not None
    assert expected is not None
    for got, wanted in zip(second, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"a_tm1": np.zeros(0, np.int32)}, "without transitions"),
        ({"r_t": np.zeros(9, np.float32)}, r"r_t has the shape \(9,\) instead of \(10,\)"),
        ({"steps": np.ones((10, 1), np.uint8)}, "steps has the shape"),
        ({"r_t": np.full(10, np.nan, np.float32)}, "r_t is not finite"),
        ({"priority": np.full(10, np.inf, np.float32)}, "priority is not finite"),
        ({"priority": np.full(10, -1, np.float32)}, "priority is not within"),
        ({"discount_t": np.full(10, 1.5, np.float32)}, "discount_t is not within"),
        ({"a_tm1": np.full(10, 3, np.int32)}, "a_tm1 is not within 0 … 2"),
        ({"steps": np.zeros(10, np.uint8)}, "steps is not within"),
        ({"steps": np.full(10, 3, np.uint8)}, "3 blocks of frames where its transitions need 4"),
        ({"first_state": 2}, "3 blocks of frames where its transitions need 4"),
        ({"first_state": 4}, "first_state is 4"),
        ({"first_state": -1}, "first_state is -1"),
        ({"block_ends": np.arange(3, dtype=np.int32)}, "does not increase"),
        ({"block_ends": np.arange(1, 4, dtype=np.int32)}, "ends at 3 of"),
        ({"block_ends": np.zeros((0,), np.int32)}, "block_ends has the shape"),
    ],
)
def test_chunks_that_contradict_themselves_are_refused(changes: dict[str, object], reason: str) -> None:
    shard = make_shard()
    chunk: Chunk = dataclasses.replace(plain_chunk(SPEC, 10), **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason):
        shard.insert(chunk.sealed())
    assert shard.stats().inserts == 0
    assert_valid(shard)


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("r_t", 3, 1e30),
        ("r_t", 3, np.nextafter(np.float32(3), np.float32(4))),
        ("a_tm1", 4, 2),
        ("discount_t", 0, 0),
        ("steps", 5, 1),
        ("priority", 2, 1.5),
        ("weight_version", 0, 9),
    ],
)
def test_a_number_that_another_one_took_the_place_of_is_never_sampled(name: str, row: int, value: float) -> None:
    (chunk,) = episode_chunks(SPEC, random_frames(SPEC, 11, seed=1), 10, 3)
    damaged = getattr(chunk, name).copy()
    damaged[row] = value
    shard = make_shard()
    assert shard.insert(dataclasses.replace(chunk, **{name: damaged}))
    assert shard.insert(chunk)
    assert (shard.size, shard.stats().damaged_chunks) == (10, 1)
    assert_valid(shard)


def test_a_damaged_chunk_is_dropped_also_where_the_limiter_would_refuse_it() -> None:
    limiter = RateLimiter(samples_per_insert=1.0, min_size=10, error_buffer=10.0, max_insert=10, max_sample=10)
    shard = make_shard(limiter=limiter)
    for _ in range(2):
        assert shard.insert(plain_chunk(SPEC, 10))
    chunk = plain_chunk(SPEC, 10)
    assert not shard.insert(chunk)
    assert shard.insert(dataclasses.replace(chunk, frames=bytes(len(chunk.frames))))


def test_longer_chunks_than_announced_are_refused() -> None:
    with pytest.raises(ValueError, match="max_insert=10"):
        make_shard(limiter=open_limiter(max_insert=10)).insert(plain_chunk(SPEC, 11))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_exponent_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="priority_exponent"):
        make_shard(alpha=alpha)


def test_check_valid_finds_damage() -> None:
    shard = make_shard()
    shard.insert(plain_chunk(SPEC, 10))
    shard._tree.set([3], [0.0])
    assert shard.check_valid() == (False, "a transition held has no priority, or an evicted one still has")


def test_reported_bytes_are_what_the_shard_takes_and_fit_the_estimate() -> None:
    """Frames that compress like Mario's, at their worst, to about 1,020 bytes."""
    import tracemalloc

    spec = EnvironmentSpec((84, 84), 4, ("noop", "right", "left"))
    frames = np.zeros((2401, 84, 84), np.uint8)
    frames.reshape(2401, -1)[:, :1000] = np.random.default_rng(0).integers(0, 256, (2401, 1000), np.uint8)
    chunks = list(episode_chunks(spec, frames, 80, 5))
    tracemalloc.start()
    shard = make_shard(2400, spec=spec)
    for chunk in chunks:
        shard.insert(dataclasses.replace(chunk, frames=memoryview(bytearray(chunk.frames))))  # type: ignore[arg-type]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reported = shard.stats().bytes
    assert reported == pytest.approx(taken, rel=0.02)
    assert 1020 < reported / 2400 <= BYTES_PER_TRANSITION_ESTIMATE
