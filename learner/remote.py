"""The Ray shell of the learner: prefetched batches in, priorities and weights out."""

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from common.config import AgentConfig, LearnerConfig
from common.process import give_back_memory, tune_process
from common.types import Batch, EnvironmentSpec
from learner.factory import build_learner
from learner.feeder import BatchFeeder, BatchReader, FedBatch, ready_batches
from learner.learner import StartedUpdate

_BATCH_POLL_S = 0.1


class LearnerReport(NamedTuple):
    """What the learner did in one slice; means are over its updates, NaN where there was none."""

    updates: int  # in this slice
    total_updates: int
    samples: int  # in this slice
    seconds: float
    waited_s: float  # that the training thread had no batch, or could not hand priorities over
    version: int
    losses: NDArray[np.float32]  # [updates], one per update, oldest first
    loss: float
    td_error: float  # mean absolute
    q_mean: float
    grad_norm: float
    policy_lag: float  # weight versions between acting and training
    learning_rate: float  # at the slice's end
    lost_priority_updates: int  # so far


class _Started(NamedTuple):
    """An update whose result was not read yet."""

    update: StartedUpdate
    batch: Batch
    policy_lag: float


class RemoteLearner:
    """The learner process; the driver runs it a slice at a time."""

    def __init__(
        self,
        *,
        spec: EnvironmentSpec,
        agent: AgentConfig,
        learner: LearnerConfig,
        seed: int,
        device: str,
        threads: int,
        reader: BatchReader,
        state: dict[str, Any] | None,
        version: int,
        run_fraction: float,
    ) -> None:
        """Args as `build_learner` and `run`; `state` and `version` come from a checkpoint, None and 0 without one."""
        tune_process()
        self._threads = threads
        self._learner = build_learner(spec=spec, agent=agent, learner=learner, seed=seed, device=device)
        self._learner.run_fraction = run_fraction
        if state is not None:
            self._learner.load_state_dict(state)
        reader.set_memory(self._learner.empty_frames)
        # With one training thread the feeder's has time for the target network; with more it would hold them up.
        prepare = partial(self._learner.prepare, with_target=threads == 1)
        self._feeder = BatchFeeder(reader, prepare, ready_batches(learner.prefetch))
        self._broadcast_period = learner.broadcast_period
        self._version = version
        self._waited_s = 0.0  # in the slice that runs
        self._gave_state = False  # since the last slice
        self._published: tuple[int, int, float, list[Any]] = (-1, 0, 0.0, [])
        self._policy: tuple[int, NDArray[np.float32]] = (0, np.zeros(0, np.float32))
        self._publish()

    def run(self, seconds: float, max_updates: int | None = None, run_fraction: float = 0.0) -> LearnerReport:
        """Trains for so long or so many updates; waits where the replay gives no batch.

        Args:
            seconds: of this slice.
            max_updates: in it; None: as many as there are.
            run_fraction: how much of the run is done, 0 … 1.
        """
        self._learner.run_fraction = run_fraction
        # Ray may call from another thread than the constructor's, and a thread that is new to PyTorch takes the number
        # that was set last, which is the feeder's.
        torch.set_num_threads(self._threads)
        # Adam's averages of gradients that stay zero become denormal numbers, which slow processors down.
        torch.set_flush_denormal(True)
        if self._gave_state:  # by now Ray has it elsewhere, and the copy here is freed
            self._gave_state = False
            give_back_memory()
        start = time.monotonic()
        updates, samples, self._waited_s = 0, 0, 0.0
        figures: list[NDArray[np.float64]] = []
        started: deque[_Started] = deque()
        while time.monotonic() - start < seconds and (max_updates is None or updates < max_updates):
            before = time.monotonic()
            fed = self._feeder.next_batch(_BATCH_POLL_S)
            self._waited_s += time.monotonic() - before
            if fed is None:
                continue
            started.append(self._start(fed))
            updates += 1
            samples += len(fed.batch.a_tm1)
            if len(started) > self._learner.updates_in_flight:
                figures.append(self._finish(started.popleft()))
        figures.extend(self._finish(update) for update in started)
        table = np.array(figures).reshape(updates, 5)
        loss, td_error, q_mean, grad_norm, policy_lag = (table.mean(0) if updates else np.full(5, np.nan)).tolist()
        return LearnerReport(
            updates=updates,
            total_updates=self._learner.updates,
            samples=samples,
            seconds=time.monotonic() - start,
            waited_s=self._waited_s,
            version=self._version,
            losses=table[:, 0].astype(np.float32),
            loss=loss,
            td_error=td_error,
            q_mean=q_mean,
            grad_norm=grad_norm,
            policy_lag=policy_lag,
            learning_rate=self._learner.learning_rate,
            lost_priority_updates=self._feeder.lost_priority_updates,
        )

    def state(self) -> dict[str, Any]:
        """All that a restored learner needs; see `Learner.state_dict`."""
        self._gave_state = True
        return self._learner.state_dict()

    def set_shards(self, shards: Sequence[Any]) -> None:
        """Draws from other replay shards, by position: one of them was replaced."""
        self._feeder.set_shards(shards)

    @ray.method(concurrency_group="control")
    def weights(self, version: int) -> tuple[int, int, float, list[Any]] | None:
        """The fields of `Weights`, the array as [reference to it], if newer than `version`.

        The reference is wrapped in a list so that Ray passes it on instead of fetching it here.
        """
        published = self._published
        return published if published[0] > version else None

    @ray.method(concurrency_group="control")
    def policy(self) -> tuple[int, list[Any]]:
        """(updates, [reference to the flat array]) of the weights to evaluate, as of the last broadcast."""
        updates, weights = self._policy
        return updates, [ray.put(weights)]

    def _start(self, fed: FedBatch) -> _Started:
        lag = float(self._version - fed.batch.weight_version.mean())
        update = self._learner.start(fed.prepared)
        if update.number % self._broadcast_period == 0:
            self._version += 1
            self._publish()
        return _Started(update, fed.batch, lag)

    def _finish(self, started: _Started) -> NDArray[np.float64]:
        result = self._learner.finish(started.update)
        absolute = np.abs(result.td_error)
        before = time.monotonic()
        self._feeder.update_priorities(started.batch, absolute)
        self._waited_s += time.monotonic() - before
        return np.array([result.loss, absolute.mean(), result.q_mean, result.grad_norm, started.policy_lag])

    def _publish(self) -> None:
        learner = self._learner
        self._published = (self._version, learner.updates, learner.backup_epsilon, [ray.put(learner.weights())])
        self._policy = (self._learner.updates, self._learner.policy_weights())
