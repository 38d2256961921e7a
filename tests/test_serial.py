"""The whole system in one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import ActorsConfig, Config, EnvConfig, LearnerConfig, ReplayConfig
from driver.serial import SerialRun

CONFIG = Config(
    env=EnvConfig(),
    actors=ActorsConfig(envs_per_actor=2, chunk_length=16),
    replay=ReplayConfig(shards=2, capacity=2_000, min_size=120, samples_per_insert=1.0),
    learner=LearnerConfig(batch_size=16, target_update_period=5, broadcast_period=3),
    seed=3,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _weights(config: Config, env_steps: int) -> tuple[int, np.ndarray]:
    run = SerialRun(config)
    run.run(env_steps)
    run.close()
    for shard in run.shards:
        assert shard.check_valid() == (True, "")
    return run.learner.updates, run.learner.weights()


def test_a_serial_run_on_mario_is_repeatable_bit_for_bit() -> None:
    updates, weights = _weights(CONFIG, 400)
    again_updates, again = _weights(CONFIG, 400)
    assert updates == again_updates > 5
    assert np.array_equal(weights, again)


def test_another_seed_gives_another_run() -> None:
    grid = replace(CONFIG, env=EnvConfig(name="gridworld"))
    assert not np.array_equal(_weights(grid, 400)[1], _weights(replace(grid, seed=4), 400)[1])


def test_samples_per_insert_settles_on_its_setting() -> None:
    config = replace(CONFIG, env=EnvConfig(name="gridworld"), replay=replace(CONFIG.replay, samples_per_insert=4.0))
    run = SerialRun(config)
    run.run(6_000)
    stats = [shard.stats() for shard in run.shards]
    ratio = sum(s.samples for s in stats) / sum(s.inserts_while_sampling for s in stats)
    assert ratio == pytest.approx(4.0, rel=0.05)


def test_a_full_replay_of_mario_takes_at_most_1250_bytes_a_transition() -> None:
    config = replace(
        CONFIG,
        actors=ActorsConfig(envs_per_actor=4),
        replay=ReplayConfig(shards=2, capacity=1_600, min_size=200, samples_per_insert=0.05),
    )
    run = SerialRun(config)
    run.run(2_600)
    run.close()
    stats = [shard.stats() for shard in run.shards]
    size = sum(s.size for s in stats)
    assert size > 1_300  # full, but for the room that the next chunks need
    assert sum(s.bytes for s in stats) / size <= 1_250
