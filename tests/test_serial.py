"""The whole system in one process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import ActorsConfig, AgentConfig, Config, EnvConfig, LearnerConfig, ReplayConfig
from common.errors import UserError
from common.networks import flatten
from common.types import Episode
from driver.serial import SerialRun
from learner.checkpoint import load_checkpoint
from replay.shard import ReplayShard
from replay.snapshot import pieces
from tests.cores import needs_fceumm

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


def _played(run: SerialRun, env_steps: int) -> tuple[list[Episode], np.ndarray]:
    episodes = run.run(env_steps)
    return episodes, run.learner.weights()


@pytest.mark.parametrize(
    "env",
    [
        EnvConfig(name="gridworld", max_steps=20),
        EnvConfig(core="nes-py", sticky_actions=0.25, max_steps=70),
        pytest.param(
            EnvConfig(core="fceumm", stages=("1-1", "4-1"), sticky_actions=0.25, max_steps=70), marks=needs_fceumm
        ),
    ],
    ids=["gridworld", "nes-py", "saved-starts-on-fceumm"],
)
def test_a_resumed_serial_run_is_the_uninterrupted_one_bit_for_bit(env: EnvConfig, tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        env=env,
        agent=AgentConfig(n_step=4, target_epsilon_late=0.3),
        actors=ActorsConfig(envs_per_actor=3, chunk_length=25, epsilon=0.6, epsilon_alpha=1.0),
        learner=replace(CONFIG.learner, average_decay=0.9),
        total_env_steps=1_000,  # of which it is saved after half, when the targets' caution has come
    )
    run = SerialRun(config)
    run.run(500)
    path = run.save(tmp_path)
    episodes, weights = _played(run, 300)
    run.close()
    resumed = SerialRun(config)
    resumed.load(path)
    assert np.array_equal(resumed.learner.policy_weights(), flatten(load_checkpoint(path).policy.network))
    again, again_weights = _played(resumed, 300)
    resumed.close()
    assert len(episodes) >= 2
    assert again == episodes
    assert np.array_equal(again_weights, weights)
    assert resumed.learner.updates == run.learner.updates > 10
    assert resumed.env_steps == run.env_steps
    assert 0 < resumed.learner.run_fraction == run.learner.run_fraction
    for shard, other in zip(run.shards, resumed.shards, strict=True):
        assert _bytes(shard) == _bytes(other)


def _bytes(shard: ReplayShard) -> bytes:
    return b"".join(pieces(shard.snapshot()))


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    grid = replace(CONFIG, env=EnvConfig(name="gridworld"))
    run = SerialRun(grid)
    run.run(200)
    path = run.save(tmp_path)
    other = SerialRun(replace(grid, actors=ActorsConfig(envs_per_actor=3)))
    with pytest.raises(UserError, match="is no checkpoint of a serial run with these settings"):
        other.load(path)


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
