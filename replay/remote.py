"""The Ray shell of the replay: the shard's process, and what its clients in actors and learner share.

The clients, `RemoteReplayWriter` and `RemoteReplayReader`, belong to one thread each. Everything that they hold is
bounded, and all waiting has a time limit.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError

from common.types import Chunk, EnvironmentSpec, ShardSample, ShardStats
from replay.rate_limiter import RateLimiter
from replay.shard import ReplayShard
from replay.snapshot import Assembly, pieces

ShardHandle = ActorHandle[Any]
_T = TypeVar("_T")

SHARD_LOST = (RayActorError, ObjectLostError, NodeDiedError, OutOfMemoryError)
"""What a call raises when its shard, or the node that held its answer, is gone."""

STALLED_S = 1.0
"""A call on a shard that is not answered for so long must not hold the other shards up."""

AWAY_S = 5.0
"""A client tries a shard that a call failed on again after so long. It is nearly always dead, and replaced soon; but
where it was only out of reach for a moment, nobody else would say so."""


class RemoteReplayShard:
    """A `ReplayShard` in a process of its own; see there for arguments and methods.

    An error of its own, such as memory that ran out, is not its callers': it refuses whatever they ask from then on,
    `stats`, which the supervisor asks, raises it, and there is no snapshot. Only a ValueError, what is wrong with an
    argument, is raised at once.
    """

    def __init__(
        self,
        capacity: int,
        spec: EnvironmentSpec,
        priority_exponent: float,
        limiter: RateLimiter,
        seed: np.random.SeedSequence,
        incarnation: int = 0,
    ) -> None:
        self._shard = ReplayShard(capacity, spec, priority_exponent, limiter, seed, incarnation)
        self._pieces: Iterator[bytes] = iter(())
        self._assembly: Assembly | None = None
        self._fault: Exception | None = None

    def can_insert(self, n: int) -> bool:
        """See `ReplayShard.can_insert`."""
        return self._fault is None and self._shard.can_insert(n)

    def insert(self, chunk: Chunk) -> bool:
        """See `ReplayShard.insert`."""
        return self._try(lambda: self._shard.insert(chunk), refusal=False)

    def sample(self, n: int) -> ShardSample | None:
        """See `ReplayShard.sample`."""
        self._shard.can_sample(n)  # raises what is wrong with n
        return self._try(lambda: self._shard.sample(n), refusal=None, callers=())

    def update_priorities(self, ids: NDArray[np.int64], priorities: NDArray[np.float32]) -> None:
        """See `ReplayShard.update_priorities`."""
        self._try(lambda: self._shard.update_priorities(ids, priorities), refusal=None)

    def stats(self) -> ShardStats:
        """See `ReplayShard.stats`."""
        self._raise_fault()
        return self._shard.stats()

    def begin_snapshot(self) -> None:
        """Takes a snapshot of the shard as it is now; `snapshot_piece` sends it, and not to two callers at once."""
        self._raise_fault()
        self._pieces = pieces(self._shard.snapshot())

    @ray.method(concurrency_group="snapshot")
    def snapshot_piece(self) -> bytes | None:
        """The snapshot's next piece, None after the last one; in a thread beside sampling and inserting."""
        return next(self._pieces, None)

    def restore_piece(self, piece: bytes) -> None:
        """Takes the next piece of a snapshot.

        Raises:
            ValueError: it is damaged.
        """
        if self._assembly is None:
            self._assembly = Assembly(piece)
        else:
            self._assembly.add(piece)

    def finish_restore(self) -> None:
        """Makes the snapshot that was sent this shard's contents.

        Raises:
            ValueError: see `ReplayShard.restore`.
        """
        assembly, self._assembly = self._assembly, None
        if assembly is None:
            raise ValueError("no snapshot was sent")
        snapshot = assembly.finish()
        self._try(lambda: self._shard.restore(snapshot), refusal=None)
        self._raise_fault()

    def forget_snapshot(self) -> None:
        """Gives up what is left to be sent of a snapshot."""
        self._pieces = iter(())

    def forget_restore(self) -> None:
        """Gives up what came of a snapshot that was to be restored."""
        self._assembly = None

    @ray.method(concurrency_group="health")
    def ping(self) -> None:
        """Answers at once, whatever else this process is doing."""

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _try(self, call: Callable[[], _T], refusal: _T, callers: tuple[type[Exception], ...] = (ValueError,)) -> _T:
        """What a call answers; `callers` are the errors that are its callers'."""
        if self._fault is not None:
            return refusal
        try:
            return call()
        except callers:
            raise
        except Exception as error:  # whichever it is
            self._fault = error
            return refusal


def start_shard(
    *,
    capacity: int,
    spec: EnvironmentSpec,
    priority_exponent: float,
    limiter: RateLimiter,
    seed: np.random.SeedSequence,
    incarnation: int = 0,
    **options: Any,
) -> ShardHandle:
    """Starts a shard's process, without waiting for it. It reserves no CPU and is not restarted by Ray.

    Args:
        options: further Ray actor options, such as `scheduling_strategy`.
    """
    actor_class = ray.remote(concurrency_groups={"health": 1, "snapshot": 1})(RemoteReplayShard)  # type: ignore[call-overload]
    # Ray's server is to keep no record of its calls, which would be megabytes a minute.
    silent = actor_class.options(num_cpus=0, max_restarts=0, enable_task_events=False, **options)
    shard: ShardHandle = silent.remote(capacity, spec, priority_exponent, limiter, seed, incarnation)
    return shard


def wait_any(refs: list["ray.ObjectRef[Any]"], timeout_s: float) -> list["ray.ObjectRef[Any]"]:
    """All calls that have finished, as soon as there is one; none after the timeout."""
    if not refs:
        time.sleep(timeout_s)
        return []
    ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
    if not ready:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return ready
