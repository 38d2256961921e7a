"""The arithmetic over several shards, and that a whole replay never stops."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.types import Batch, Chunk, EnvironmentSpec
from replay.client import (
    LocalReplay,
    importance_weights,
    merge,
    plan_draws,
    priorities_by_shard,
    split_evenly,
)
from replay.decoding import decode_states
from replay.rate_limiter import RateLimiter, minimum_error_buffer
from replay.shard import PRIORITY_EPSILON, ReplayShard
from tests.replay_chunks import open_limiter, plain_chunk

SPEC = EnvironmentSpec((2,), 2, ("noop", "right"))


def make_shard(
    capacity: int = 1000, alpha: float = 0.6, limiter: RateLimiter | None = None, seed: int = 0, incarnation: int = 0
) -> ReplayShard:
    limiter = limiter or open_limiter()
    return ReplayShard(capacity, SPEC, alpha, limiter, np.random.SeedSequence(seed), incarnation)


def test_importance_weights_by_hand() -> None:
    share = np.array([0.5, 0.25, 0.1])
    fraction = np.array([0.5, 0.5, 0.25])
    probability = np.array([0.25, 0.125, 0.025])
    weights = importance_weights(share, fraction, total_size=40, beta=0.5)
    np.testing.assert_allclose(weights, np.sqrt(0.025 / probability), rtol=1e-6)
    assert weights.dtype == np.float32
    assert weights.max() == 1
    np.testing.assert_array_equal(importance_weights(share, fraction, 40, 0.0), [1, 1, 1])


@settings(deadline=None)
@given(st.integers(1, 300), st.lists(st.integers(0, 50), max_size=9, unique=True), st.integers(0, 100))
def test_shares_are_equal_and_complete(batch_size: int, candidates: list[int], turn: int) -> None:
    shares = split_evenly(batch_size, candidates, turn)
    if not candidates:
        assert shares == {}
        return
    assert sum(shares.values()) == batch_size
    assert set(shares) <= set(candidates)
    assert max(shares.values()) - (min(shares.values()) if len(shares) == len(candidates) else 0) <= 1
    assert min(shares.values()) > 0


def test_the_remainder_rotates() -> None:
    total: Counter[int] = Counter()
    for turn in range(5):
        total.update(split_evenly(8, [0, 1, 2, 3, 4], turn))
    assert total == dict.fromkeys(range(5), 8)


def test_shards_that_cannot_sample_are_left_out() -> None:
    room = {0: 100, 1: 20, 2: 100}
    assert plan_draws(64, [0, 1, 2], 0, lambda shard, n: n <= room[shard]) == {0: 32, 2: 32}
    assert plan_draws(60, [0, 1, 2], 0, lambda shard, n: n <= room[shard]) == {0: 20, 1: 20, 2: 20}
    assert plan_draws(64, [0, 1, 2], 0, lambda shard, n: False) == {}
    assert plan_draws(64, [0, 1], 0, lambda shard, n: n <= 40) == {0: 32, 1: 32}
    assert plan_draws(100, [0, 1], 0, lambda shard, n: n <= 40) == {}


def test_frequencies_and_weights_over_shards_follow_the_formula() -> None:
    """P(i) = q_k * p_i / T_k and w = (N * P)**-beta / max, with shards of different sizes and priorities."""
    rng = np.random.default_rng(7)
    alpha, beta, batch_size, batches = 0.6, 0.4, 32, 1000
    lengths = (40, 15, 25)
    errors = [rng.exponential(scale, n).astype(np.float32) for scale, n in zip((1, 20, 0.1), lengths, strict=True)]
    shards = [make_shard(alpha=alpha, seed=seed) for seed in range(3)]
    for shard, td in zip(shards, errors, strict=True):
        shard.insert(dataclasses.replace(plain_chunk(SPEC, len(td)), priority=td).sealed())
    leaves = [(td.astype(np.float64) + PRIORITY_EPSILON) ** alpha for td in errors]
    share = [p / p.sum() for p in leaves]
    replay = LocalReplay(shards, batch_size, beta)
    counts = [np.zeros(n) for n in lengths]
    for _ in range(batches):
        batch = replay.sample_batch()
        assert batch is not None
        q = np.bincount(batch.shard, minlength=3) / batch_size
        assert sorted(q * batch_size) == [10, 11, 11]
        probability = np.array([q[k] * share[k][i] for k, i in zip(batch.shard, batch.ids, strict=True)])
        expected = (sum(lengths) * probability) ** -beta
        np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)
        for k in range(3):
            counts[k] += np.bincount(batch.ids[batch.shard == k], minlength=lengths[k])
    draws = batch_size * batches
    expected_counts = draws / 3 * np.concatenate(share)
    chi_square = ((np.concatenate(counts) - expected_counts) ** 2 / expected_counts).sum()
    assert chi_square < 124.84  # 99.9 % point for 80 - 1 degrees of freedom; stratified draws vary less


def test_full_correction_makes_the_batch_mean_that_of_the_whole_replay() -> None:
    shards = [make_shard(alpha=1.0, seed=seed) for seed in range(2)]
    rng = np.random.default_rng(3)
    values = []
    for shard, length in zip(shards, (60, 20), strict=True):
        value = rng.uniform(0, 1, length).astype(np.float32)
        td = value + np.float32(0.1)  # what is worth more is drawn more often
        shard.insert(dataclasses.replace(plain_chunk(SPEC, length), r_t=value, priority=td).sealed())
        values.append(value)
    batch = LocalReplay(shards, 4000, beta=1.0).sample_batch()
    assert batch is not None
    uniform_mean = np.concatenate(values).mean()
    assert np.average(batch.r_t, weights=batch.weight) == pytest.approx(uniform_mean, abs=0.005)
    assert abs(batch.r_t.mean() - uniform_mean) > 0.05


def test_several_draws_of_one_shard_add_up() -> None:
    shards = [make_shard(), make_shard()]
    for shard in shards:
        shard.insert(plain_chunk(SPEC, 10))
    samples = []
    for k, n in ((0, 4), (1, 3), (0, 5)):
        sample = shards[k].sample(n)
        assert sample is not None
        samples.append((k, sample))
    batch = merge(samples, 20, beta=1.0)
    np.testing.assert_array_equal(batch.shard, [0] * 4 + [1] * 3 + [0] * 5)
    np.testing.assert_allclose(batch.weight, [3 / 9] * 4 + [1] * 3 + [3 / 9] * 5, rtol=1e-6)
    alone = [decode_states([sample]) for _, sample in samples]
    s_t = np.concatenate([states.frames[states.s_t] for states in alone])
    np.testing.assert_array_equal(batch.stack(batch.s_t), s_t)
    assert batch.shard.dtype == np.int32


def test_priorities_go_back_to_the_shard_they_came_from() -> None:
    shards = [make_shard(alpha=1.0), make_shard(alpha=1.0)]
    replay = LocalReplay(shards, 16, beta=0.4)
    for _ in range(2):
        assert replay.push(plain_chunk(SPEC, 10))
    batch = replay.sample_batch()
    assert batch is not None
    replay.update_priorities(batch, -(batch.ids + 10 * batch.shard + 1).astype(np.float32))
    for k, shard in enumerate(shards):
        sample = shard.sample(2000)
        assert sample is not None
        seen = np.isin(sample.ids, batch.ids[batch.shard == k])
        ratio = sample.share[seen] / (sample.ids[seen] + 10 * k + 1)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_td_errors_that_are_not_finite_are_refused() -> None:
    replay = LocalReplay([make_shard()], 4, beta=0.4)
    replay.push(plain_chunk(SPEC, 10))
    batch = replay.sample_batch()
    assert batch is not None
    with pytest.raises(ValueError, match="finite"):
        replay.update_priorities(batch, np.array([1, np.nan, 1, 1], np.float32))
    with pytest.raises(ValueError, match="finite"):
        priorities_by_shard(batch, np.full(4, np.inf, np.float32))


def test_chunks_go_round_robin_to_the_next_shard_that_accepts() -> None:
    limiters = [RateLimiter(1.0, 10, 10.0, 10, 10) for _ in range(3)]
    shards = [make_shard(limiter=limiter) for limiter in limiters]
    replay = LocalReplay(shards, 10, beta=0.4)
    accepted = [replay.push(plain_chunk(SPEC, 10)) for _ in range(7)]
    assert accepted == [True] * 6 + [False]
    assert [shard.size for shard in shards] == [20, 20, 20]
    assert shards[1].sample(10) is not None
    assert replay.push(plain_chunk(SPEC, 10))
    assert [shard.size for shard in shards] == [20, 30, 20]


def test_a_batch_that_cannot_be_full_draws_nothing() -> None:
    shards = [make_shard(limiter=RateLimiter(1.0, 10, 10.0, 10, 10)) for _ in range(2)]
    replay = LocalReplay(shards, 10, beta=0.4)
    assert replay.sample_batch() is None
    replay.push(plain_chunk(SPEC, 10))
    batch = replay.sample_batch()
    assert batch is not None
    assert (batch.shard == 0).all()
    assert replay.sample_batch() is None
    assert [shard.stats().samples for shard in shards] == [10, 0]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("chunk_length", "batch_size", "sigma", "slack", "rounds"),
    [
        (1, 64, 8.0, 1.0, 300),
        (5, 8, 0.3, 1.0, 300),
        (20, 10, 4.1, 1.0, 200),
        (20, 10, 4.1, 2.0, 200),
        (80, 64, 8.0, 1.0, 100),
        (80, 64, 8.0, 2.0, 100),
    ],
)
def test_the_replay_never_stops(
    chunk_length: int, batch_size: int, sigma: float, slack: float, rounds: int, seed: int
) -> None:
    """1 actor, 4 shards, all priority in one, one replaced empty midway; either side is as fast as it can be."""
    rng = np.random.default_rng(seed)
    shard_count, capacity, min_size = 4, 400, 100
    chunks = {n: zero_priority(n) for n in range(1, chunk_length + 1)}
    error_buffer = slack * minimum_error_buffer(sigma, chunk_length, batch_size)

    def new_shard(incarnation: int) -> ReplayShard:
        limiter = RateLimiter(sigma, min_size, error_buffer, chunk_length, batch_size)
        return make_shard(capacity, limiter=limiter, seed=seed, incarnation=incarnation)

    shards = [new_shard(0) for _ in range(shard_count)]
    replay = LocalReplay(shards, batch_size, beta=0.4)
    chunk = chunks[chunk_length]
    for round_ in range(rounds):
        if round_ == rounds // 2:
            shards[2] = new_shard(1)
        actor_is_fast = (round_ // 10) % 2 == 0
        inserted = replay.push(chunk)
        while inserted and actor_is_fast and replay.push(chunk):
            pass
        chunk = chunks[int(rng.integers(1, chunk_length + 1))] if inserted else chunk
        batch = replay.sample_batch()
        assert inserted or batch is not None, f"stopped in round {round_}"
        while batch is not None:
            replay.update_priorities(batch, all_in_one(batch))
            batch = None if actor_is_fast else replay.sample_batch()
    for shard in shards:
        stats = shard.stats()
        assert shard.check_valid() == (True, "")
        assert stats.inserts_while_sampling > 0
        difference = stats.samples - sigma * stats.inserts_while_sampling
        assert abs(difference) <= max(error_buffer, sigma * (chunk_length - 1)) + 1e-6


def zero_priority(length: int) -> Chunk:
    return plain_chunk(SPEC, length, priority=0.0)


def all_in_one(batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.where(batch.shard == 0, 1000, 0).astype(np.float32)
