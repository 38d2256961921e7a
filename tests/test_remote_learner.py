"""The learner in a process of its own, fed by a real shard, under a real Ray."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from common.config import AgentConfig, LearnerConfig
from common.networks import build_network, flatten
from common.types import EnvironmentSpec
from learner import remote
from learner.feeder import FedBatch
from learner.remote import LearnerReport, RemoteLearner
from replay.remote import ShardHandle, start_shard
from replay.remote_reader import RemoteReplayReader
from tests.replay_chunks import open_limiter, plain_chunk

SPEC = EnvironmentSpec((84, 84), 4, ("noop", "right"))
BATCH_SIZE = 8


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


@pytest.fixture
def shard() -> Iterator[ShardHandle]:
    """A shard that holds 40 transitions of the same small priority."""
    handle = start_shard(
        capacity=1000,
        spec=SPEC,
        priority_exponent=1.0,
        limiter=open_limiter(),
        seed=np.random.SeedSequence(0),
        incarnation=0,
    )
    assert ray.get(handle.insert.remote(plain_chunk(SPEC, 40, priority=1e-6)), timeout=60)
    yield handle
    ray.kill(handle)


class ThreadsSeen(RemoteLearner):
    """Tells with how many of PyTorch's threads it trained."""

    def _start(self, fed: FedBatch) -> Any:
        self._threads_seen = torch.get_num_threads()
        return super()._start(fed)

    def threads_seen(self) -> int:
        return self._threads_seen


@pytest.fixture
def learner(shard: ShardHandle) -> Iterator[Any]:
    """A learner process that draws from the shard."""
    handle = start_learner(shard, threads=1)
    yield handle
    ray.kill(handle)


def start_learner(
    shard: ShardHandle,
    threads: int,
    kind: type[RemoteLearner] = ThreadsSeen,
    run_fraction: float = 0.0,
    agent: AgentConfig | None = None,
    **settings: Any,
) -> Any:
    decorate: Any = ray.remote
    return decorate(num_cpus=0, max_restarts=0, concurrency_groups={"control": 1})(kind).remote(
        spec=SPEC,
        agent=agent or AgentConfig(),
        learner=LearnerConfig(batch_size=BATCH_SIZE, broadcast_period=2, **settings),
        seed=3,
        device="cpu",
        threads=threads,
        reader=RemoteReplayReader([shard], BATCH_SIZE, beta=0.4, prefetch=2),
        state=None,
        version=0,
        run_fraction=run_fraction,
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_it_trains_with_the_threads_it_was_given(shard: ShardHandle, threads: int) -> None:
    handle = start_learner(shard, threads)
    run(handle, 3)
    assert ray.get(handle.threads_seen.remote(), timeout=30) == threads
    ray.kill(handle)


class MemoryGivenBack(RemoteLearner):
    """Counts how often it gave memory back."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._times = 0
        vars(remote)["give_back_memory"] = self._count  # in its own process

    def times(self) -> int:
        return self._times

    def _count(self) -> None:
        self._times += 1


def test_the_memory_of_its_states_copy_is_given_back_once(shard: ShardHandle) -> None:
    handle = start_learner(shard, threads=1, kind=MemoryGivenBack)
    run(handle, 1)
    assert ray.get(handle.times.remote(), timeout=30) == 0
    ray.get(handle.state.remote(), timeout=30)
    for _ in range(2):
        run(handle, 1)
        assert ray.get(handle.times.remote(), timeout=30) == 1
    ray.kill(handle)


def run(learner: Any, updates: int) -> LearnerReport:
    report: Any = ray.get(learner.run.remote(60.0, updates), timeout=120)
    assert isinstance(report, LearnerReport)
    return report


def shares(shard: ShardHandle) -> Any:
    """The drawn transitions' shares of the priority sum."""
    sample: Any = ray.get(shard.sample.remote(100), timeout=30)
    return sample.share


def test_it_trains_reports_and_publishes(learner: Any) -> None:
    report = run(learner, 5)
    assert (report.updates, report.total_updates, report.samples) == (5, 5, 5 * BATCH_SIZE)
    assert report.losses.shape == (5,)
    assert report.loss == pytest.approx(report.losses.mean())
    assert 0 <= report.waited_s <= report.seconds
    assert report.version == 2  # broadcast after the 2nd and the 4th update
    version, updates, backup_epsilon, (reference,) = ray.get(learner.weights.remote(0), timeout=30)
    agent = AgentConfig()
    assert (version, updates, backup_epsilon) == (2, 4, agent.target_epsilon)
    fresh = flatten(build_network(SPEC, False, 0, agent.network, agent.layer_norm, agent.quantiles))
    assert ray.get(reference, timeout=30).shape == fresh.shape
    assert run(learner, 3).total_updates == 8


def test_its_first_weights_have_the_caution_of_their_time(shard: ShardHandle) -> None:
    handle = start_learner(shard, 1, run_fraction=0.5, agent=AgentConfig(target_epsilon_late=0.3))
    _, _, backup_epsilon, _ = ray.get(handle.weights.remote(-1), timeout=30)
    assert backup_epsilon == 0.3
    ray.kill(handle)


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_it_hands_out_the_policy_to_evaluate(shard: ShardHandle, average_decay: float) -> None:
    handle = start_learner(shard, 1, average_decay=average_decay)
    run(handle, 4)  # the last of them is broadcast
    updates, (reference,) = ray.get(handle.policy.remote(), timeout=30)
    state: Any = ray.get(handle.state.remote(), timeout=30)
    expected = state["average" if average_decay else "online"]
    assert updates == 4
    np.testing.assert_array_equal(
        ray.get(reference, timeout=30), np.concatenate([value.numpy().ravel() for value in expected.values()])
    )
    ray.kill(handle)


def test_priorities_come_back_to_the_shard(learner: Any, shard: ShardHandle) -> None:
    assert shares(shard).max() == pytest.approx(1 / 40)
    run(learner, 20)
    assert shares(shard).max() > 0.03  # TD errors differ, and are larger than what was inserted


def test_a_learner_that_pauses_draws_no_more_than_it_can_hold(learner: Any, shard: ShardHandle) -> None:
    run(learner, 3)
    stats: Any = ray.get(shard.stats.remote(), timeout=30)
    trained, ready, asked_for = 3, 2, 2
    assert stats.samples <= BATCH_SIZE * (trained + ready + asked_for)


def _damage_newest(shard: Any) -> None:
    """In the shard's process: what lies in its memory is not what was inserted any more."""
    serial, chunk = max(shard._shard._frames._chunks.items())
    shard._shard._frames._chunks[serial] = chunk._replace(frames=bytes(len(chunk.frames)))


def test_the_error_of_a_shard_ends_the_slice(learner: Any, shard: ShardHandle) -> None:
    run(learner, 1)
    ray.get(shard.insert.remote(plain_chunk(SPEC, 40, priority=1e12)), timeout=30)  # drawn at once
    ray.get(shard.__ray_call__.remote(_damage_newest), timeout=30)
    with pytest.raises(RayTaskError, match="corrupt frame"):
        run(learner, 1000)


def test_a_learner_without_a_shard_waits_and_stops_in_time(learner: Any, shard: ShardHandle) -> None:
    run(learner, 1)
    ray.kill(shard)
    report: Any = ray.get(learner.run.remote(0.5, None), timeout=60)
    while report.updates:  # with the batches that it had
        report = ray.get(learner.run.remote(0.5, None), timeout=60)
    assert np.isnan(report.loss)
    assert report.waited_s == pytest.approx(report.seconds, rel=0.2)


def test_a_learner_that_is_told_to_terminate_does(shard: ShardHandle) -> None:
    decorate: Any = ray.remote
    handle = decorate(num_cpus=0, max_restarts=0, concurrency_groups={"control": 1})(RemoteLearner).remote(
        spec=SPEC,
        agent=AgentConfig(),
        learner=LearnerConfig(batch_size=BATCH_SIZE),
        seed=3,
        device="cpu",
        threads=1,
        reader=RemoteReplayReader([shard], BATCH_SIZE, beta=0.4, prefetch=2),
        state=None,
        version=0,
        run_fraction=0.0,
    )
    run(handle, 1)
    gone = handle.__ray_terminate__.remote()
    with pytest.raises(RayActorError):
        ray.get(gone, timeout=60)
