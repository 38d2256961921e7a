"""The run's counters over its life, and its ends."""

from dataclasses import replace

import pytest

from common.config import Config
from common.errors import UserError
from common.types import ShardStats
from driver.counters import Counters, ShardTotals
from driver.limits import Limits


def _stats(samples: int, inserts: int) -> ShardStats:
    return ShardStats(10, 100, 1_000, inserts + 5, samples, inserts, 1)


def test_samples_per_insert_counts_all_shards_and_earlier_sessions() -> None:
    counters = Counters(replay_samples=1_000, replay_inserts=100)
    totals = ShardTotals(counters)
    totals.take(0, _stats(400, 50), counters)
    totals.take(1, _stats(200, 25), counters)
    totals.take(0, _stats(800, 100), counters)  # newer figures replace older ones
    assert counters.samples_per_insert() == (1_000 + 800 + 200) / (100 + 100 + 25)
    assert (totals.size, totals.bytes, totals.stale_priority_updates) == (20, 2_000, 2)


def test_damaged_chunks_stay_counted_when_their_shard_is_replaced() -> None:
    counters = Counters()
    totals = ShardTotals(counters)
    totals.take(0, replace(_stats(0, 0), damaged_chunks=2), counters)
    totals.take(1, replace(_stats(0, 0), damaged_chunks=1), counters)
    totals.replaced(0)
    assert totals.damaged_chunks == 3
    totals.take(0, replace(_stats(0, 0), damaged_chunks=4), counters)
    assert totals.damaged_chunks == 7


def test_counters_survive_json_and_another_version_is_refused() -> None:
    counters = Counters(env_steps=7, restarts={"actor": 2})
    assert Counters.from_json(counters.to_json()) == counters
    with pytest.raises(UserError, match="version"):
        Counters.from_json({"env_steps": 7})


def test_a_run_without_a_limit_ends_after_thirty_minutes_and_one_with_a_limit_does_not() -> None:
    assert Limits.of(Config()).time_s == 1_800
    assert Limits.of(replace(Config(), max_updates=10)).time_s is None


@pytest.mark.parametrize(
    ("config", "counters"),
    [
        (replace(Config(), total_env_steps=100), Counters(env_steps=100)),
        (replace(Config(), max_episodes=5), Counters(episodes=5)),
        (replace(Config(), max_updates=9), Counters(updates=9)),
        (replace(Config(), max_minutes=2.0), Counters(time_s=120.0)),
    ],
)
def test_each_limit_is_reached_by_its_counter(config: Config, counters: Counters) -> None:
    limits = Limits.of(config)
    assert limits.reached(Counters()) is None
    assert limits.reached(counters) is not None
    assert limits.fraction(counters) == 1.0


def test_the_nearest_limit_tells_how_much_is_done() -> None:
    limits = Limits.of(replace(Config(), total_env_steps=100, max_minutes=10.0))
    assert limits.fraction(Counters(env_steps=50, time_s=60)) == 0.5
    assert limits.remaining_env_steps(Counters(env_steps=130)) == 0
