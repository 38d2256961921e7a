"""The Ray shell of the learner: prefetched batches in, priorities and weights out."""

import time
from typing import Any, NamedTuple, Protocol

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from common.config import AgentConfig, LearnerConfig
from common.types import Batch, EnvironmentSpec
from learner.factory import build_learner

_BATCH_POLL_S = 0.1


class BatchReader(Protocol):
    """Where the learner's batches come from."""

    @property
    def lost_priority_updates(self) -> int:
        """Priorities that could not be delivered because their shard was gone."""

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next batch, waiting at most so long."""

    def update_priorities(self, batch: Batch, priorities: NDArray[np.float32]) -> None:
        """Sends absolute TD errors back without waiting for the answer."""


class LearnerReport(NamedTuple):
    """What the learner did in one slice; means are over its updates, NaN where there was none."""

    updates: int  # in this slice
    total_updates: int
    samples: int  # in this slice
    seconds: float
    waited_s: float  # for batches
    version: int
    losses: NDArray[np.float32]  # [updates], one per update, oldest first
    loss: float
    td_error: float  # mean absolute
    q_mean: float
    grad_norm: float
    policy_lag: float  # weight versions between acting and training
    lost_priority_updates: int  # so far


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
    ) -> None:
        """Args as `build_learner`; `state` and `version` come from a checkpoint, None and 0 for a fresh run."""
        torch.set_num_threads(threads)
        self._learner = build_learner(spec=spec, agent=agent, learner=learner, seed=seed, device=device)
        if state is not None:
            self._learner.load_state_dict(state)
        self._reader = reader
        self._broadcast_period = learner.broadcast_period
        self._version = version
        self._published: tuple[int, int, list[Any]] = (-1, 0, [])
        self._publish()

    def run(self, seconds: float, max_updates: int | None = None) -> LearnerReport:
        """Trains for so long or so many updates; waits where the replay gives no batch."""
        start = time.monotonic()
        updates, samples, waited_s = 0, 0, 0.0
        sums, losses = np.zeros(5), []
        while time.monotonic() - start < seconds and (max_updates is None or updates < max_updates):
            before = time.monotonic()
            batch = self._reader.next_batch(_BATCH_POLL_S)
            waited_s += time.monotonic() - before
            if batch is None:
                continue
            figures = self._train(batch)
            sums += figures
            losses.append(figures[0])
            updates += 1
            samples += len(batch.a_tm1)
        loss, td_error, q_mean, grad_norm, policy_lag = (sums / updates if updates else np.full(5, np.nan)).tolist()
        return LearnerReport(
            updates=updates,
            total_updates=self._learner.updates,
            samples=samples,
            seconds=time.monotonic() - start,
            waited_s=waited_s,
            version=self._version,
            losses=np.array(losses, np.float32),
            loss=loss,
            td_error=td_error,
            q_mean=q_mean,
            grad_norm=grad_norm,
            policy_lag=policy_lag,
            lost_priority_updates=self._reader.lost_priority_updates,
        )

    def state(self) -> dict[str, Any]:
        """All that a restored learner needs; see `Learner.state_dict`."""
        return self._learner.state_dict()

    @ray.method(concurrency_group="control")
    def weights(self, version: int) -> tuple[int, int, list[Any]] | None:
        """(version, updates, [reference to the flat array]) if newer than `version`.

        The reference is wrapped in a list so that Ray passes it on instead of fetching it here.
        """
        published = self._published
        return published if published[0] > version else None

    def _train(self, batch: Batch) -> NDArray[np.float64]:
        result = self._learner.update(batch)
        absolute = np.abs(result.td_error)
        self._reader.update_priorities(batch, absolute)
        lag = self._version - batch.weight_version.mean()
        if self._learner.updates % self._broadcast_period == 0:
            self._version += 1
            self._publish()
        return np.array([result.loss, absolute.mean(), result.q_mean, result.grad_norm, lag])

    def _publish(self) -> None:
        self._published = (self._version, self._learner.updates, [ray.put(self._learner.weights())])
