"""The Ray shell of the replay: the shard's process, and the clients inside actors and learner.

Both clients belong to one thread. Everything that they hold is bounded, and all waiting has a time limit.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError

from common.types import Batch, Chunk, EnvironmentSpec, ShardSample, ShardStats
from replay.client import merge, priorities_by_shard, split_evenly
from replay.rate_limiter import RateLimiter
from replay.shard import ReplayShard
from replay.snapshot import Assembly, pieces

ShardHandle = ActorHandle[Any]

_SHARD_LOST = (RayActorError, ObjectLostError)
"""What a call raises when its shard, or the node that held its answer, is gone."""

# Asking Ray whether calls have finished takes as long as a frame of the game: not at every step of an actor.
_LOOK_S = 0.020
_MIN_POLL_S = 0.010
_MAX_POLL_S = 0.200
_REFUSED_SAMPLE_S = 0.015
_HUNG_UPDATE_S = 30.0
_STALLED_S = 5.0


class RemoteReplayShard:
    """A `ReplayShard` in a process of its own; see there for arguments and methods."""

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

    def can_insert(self, n: int) -> bool:
        """See `ReplayShard.can_insert`."""
        return self._shard.can_insert(n)

    def insert(self, chunk: Chunk) -> bool:
        """See `ReplayShard.insert`."""
        return self._shard.insert(chunk)

    def sample(self, n: int) -> ShardSample | None:
        """See `ReplayShard.sample`."""
        return self._shard.sample(n)

    def update_priorities(self, ids: NDArray[np.int64], priorities: NDArray[np.float32]) -> None:
        """See `ReplayShard.update_priorities`."""
        self._shard.update_priorities(ids, priorities)

    def stats(self) -> ShardStats:
        """See `ReplayShard.stats`."""
        return self._shard.stats()

    def begin_snapshot(self) -> None:
        """Takes a snapshot of the shard as it is now; `snapshot_piece` sends it, and not to two callers at once."""
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
        self._shard.restore(assembly.finish())

    @ray.method(concurrency_group="health")
    def ping(self) -> None:
        """Answers at once, whatever else this process is doing."""


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
    shard: ShardHandle = actor_class.options(num_cpus=0, max_restarts=0, **options).remote(
        capacity, spec, priority_exponent, limiter, seed, incarnation
    )
    return shard


class RemoteReplayWriter:
    """Sends an actor's chunks to the shards, round-robin over the live ones.

    A shard is sent one chunk at a time, so that one that hangs can't take them all. A refused chunk is not sent
    again blindly: the shards are asked `can_insert` in turn, one at a time, until one says yes. The interval doubles
    with each question and halves with each accepted chunk, so that it costs a few questions per chunk, however many
    actors wait. A dead shard's chunk goes to the next one; it is left out until `set_shards`.

    Args:
        shards: handles of the shards.
        max_in_flight: `wait_ready` says yes while fewer chunks than this are pending; also, insert calls at once.
        max_pending: chunks that may be pending at all. Several environments can end a chunk in one step.
    """

    def __init__(self, shards: Sequence[ShardHandle], max_in_flight: int, max_pending: int = 256) -> None:
        if not 1 <= max_in_flight <= max_pending:
            raise ValueError(f"max_in_flight must be in 1 … max_pending={max_pending}, not {max_in_flight}")
        self._max_in_flight = max_in_flight
        self._max_pending = max_pending
        self._queue: deque[Chunk] = deque()
        self._inserts: dict[ray.ObjectRef[Any], tuple[Chunk, ShardHandle]] = {}
        self._polls: dict[ray.ObjectRef[Any], ShardHandle] = {}
        self._live: list[ShardHandle] = list(shards)
        self._turn = 0
        self._refused = False  # since the last accepted chunk
        self._poll_turn = 0
        self._poll_interval_s = _MIN_POLL_S
        self._next_poll = 0.0
        self._next_look = 0.0

    @property
    def pending(self) -> int:
        """Chunks that no shard has accepted yet."""
        return len(self._queue) + len(self._inserts)

    def push(self, chunk: Chunk) -> None:
        """Queues a chunk and starts sending it; never waits.

        Raises:
            RuntimeError: `max_pending` chunks are pending, because `wait_ready` was not heeded.
        """
        if self.pending >= self._max_pending:
            raise RuntimeError(f"{self.pending} chunks are pending: wait until wait_ready() is true before pushing")
        self._queue.append(chunk)
        self._send()

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether fewer than `max_in_flight` chunks are pending, after at most so many seconds.

        Raises:
            ray.exceptions.RayTaskError: a shard found a chunk invalid.
        """
        return self._wait_below(self._max_in_flight, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Whether every chunk has been accepted, after at most so many seconds."""
        return self._wait_below(1, timeout_s)

    def set_shards(self, shards: Sequence[ShardHandle]) -> None:
        """Replaces the shards. Chunks on their way to one that is no longer among them are sent again."""
        self._live = list(shards)
        gone = [ref for ref, (_, shard) in self._inserts.items() if shard not in self._live]
        self._queue.extendleft(self._inserts.pop(ref)[0] for ref in gone)
        self._polls = {ref: shard for ref, shard in self._polls.items() if shard in self._live}
        self._send()

    def _wait_below(self, limit: int, timeout_s: float) -> bool:
        now = time.monotonic()
        deadline = now + timeout_s
        if self.pending >= limit or now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._advance(0.0)
        while self.pending >= limit:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._advance(left)
        return True

    def _advance(self, timeout_s: float) -> None:
        """Handles the calls that finish within the timeout, or the next round of polls if that is due earlier."""
        if self._queue:
            timeout_s = min(timeout_s, max(0.0, self._next_poll - time.monotonic(), _MIN_POLL_S))
        for ref in _wait_any([*self._inserts, *self._polls], timeout_s):
            if ref in self._inserts:
                self._finish_insert(ref)
            elif ref in self._polls:
                self._finish_poll(ref)
        self._send()

    def _finish_insert(self, ref: "ray.ObjectRef[Any]") -> None:
        chunk, shard = self._inserts.pop(ref)
        try:
            accepted = ray.get(ref)
        except _SHARD_LOST:
            self._forget(shard)
            self._queue.appendleft(chunk)
            return
        self._refused = not accepted
        if accepted:
            self._poll_interval_s = max(self._poll_interval_s / 2, _MIN_POLL_S)
        else:
            self._queue.appendleft(chunk)
            self._postpone_polls()

    def _finish_poll(self, ref: "ray.ObjectRef[Any]") -> None:
        shard = self._polls.pop(ref)
        try:
            has_room = ray.get(ref)
        except _SHARD_LOST:
            self._forget(shard)
            return
        if has_room and shard in self._idle_shards():
            self._insert(shard)

    def _send(self) -> None:
        if self._refused:
            self._poll()
            return
        for shard in self._idle_shards():
            self._insert(shard)

    def _idle_shards(self) -> list[ShardHandle]:
        """Live shards without an insert call in flight, the next in turn first; as many as chunks may be sent now."""
        count = min(len(self._queue), self._max_in_flight - len(self._inserts))
        first = self._turn % max(1, len(self._live))
        in_turn = self._live[first:] + self._live[:first]
        busy = {shard for _, shard in self._inserts.values()}
        return [shard for shard in in_turn if shard not in busy][: max(0, count)]

    def _insert(self, shard: ShardHandle) -> None:
        chunk = self._queue.popleft()
        self._inserts[shard.insert.remote(chunk)] = (chunk, shard)
        self._turn = self._live.index(shard) + 1

    def _poll(self) -> None:
        if not self._queue or time.monotonic() < self._next_poll:
            return
        unanswered = set(self._polls.values())
        first = self._poll_turn % max(1, len(self._live))
        shard = next((each for each in self._live[first:] + self._live[:first] if each not in unanswered), None)
        if shard is not None:
            self._polls[shard.can_insert.remote(len(self._queue[0]))] = shard
            self._poll_turn = self._live.index(shard) + 1
        self._postpone_polls()

    def _postpone_polls(self) -> None:
        self._next_poll = time.monotonic() + self._poll_interval_s
        self._poll_interval_s = min(2 * self._poll_interval_s, _MAX_POLL_S)

    def _forget(self, shard: ShardHandle) -> None:
        self._live = [other for other in self._live if other != shard]


@dataclass(eq=False)
class _Order:
    """One batch in the making."""

    missing: int  # samples that nobody has been asked for
    requested: int = 0  # samples asked for and not answered
    parts: list[tuple[int, ShardSample]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.missing == 0 and self.requested == 0


@dataclass(eq=False)
class _ShardState:
    """What the reader knows of one shard."""

    handle: ShardHandle
    size: int = 0  # transitions, as last heard
    alive: bool = True
    requests: int = 0  # sample calls in flight
    refusing: bool = False  # it refused the last request
    retry_at: float = 0.0  # time.monotonic() from which it may be asked again
    stalled: int = 0  # requests that others were asked instead

    def can_ask(self, now: float) -> bool:
        """A refusing shard is asked once in a while, with one request at a time; a stalled one not at all."""
        return self.alive and not self.stalled and (not self.refusing or (self.requests == 0 and now >= self.retry_at))


class _Request(NamedTuple):
    """A sample call in flight."""

    order: _Order
    shard: _ShardState
    n: int
    asked: float  # time.monotonic()


class RemoteReplayReader:
    """Draws the learner's batches from all shards, ahead of their use, and sends priorities back.

    Each batch is asked from the shards in equal shares, one call per shard. A share that a shard refuses, or that
    dies with it, is asked from the others, and what the others answered stays: nothing drawn is thrown away. A
    refusing shard is asked again after a short while; a dead one is left out until `set_shards`. A share that is not
    answered for seconds is asked from the others too, if there are any; what comes late is not used.

    Args:
        shards: handles of the shards. Their limiters must allow draws of `batch_size`.
        batch_size: B.
        beta: exponent of the importance weights.
        prefetch: batches on their way at once, >= 1.
        max_priority_updates_in_flight: calls, >= 1.
    """

    def __init__(
        self,
        shards: Sequence[ShardHandle],
        batch_size: int,
        beta: float,
        prefetch: int,
        max_priority_updates_in_flight: int = 64,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("prefetch", prefetch),
            ("max_priority_updates_in_flight", max_priority_updates_in_flight),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self._batch_size = batch_size
        self._beta = beta
        self._max_updates = max_priority_updates_in_flight
        self._shards = [_ShardState(handle) for handle in shards]
        self._orders = [_Order(batch_size) for _ in range(prefetch)]
        self._requests: dict[ray.ObjectRef[Any], _Request] = {}
        self._late: dict[ray.ObjectRef[Any], _ShardState] = {}  # requests that others were asked instead
        self._updates: dict[ray.ObjectRef[Any], tuple[_ShardState, int]] = {}
        self._turn = 0
        self._waited_s = 0.0
        self._lost_priority_updates = 0

    @property
    def waited_s(self) -> float:
        """Seconds spent in `next_batch` without a batch at hand, since construction."""
        return self._waited_s

    @property
    def lost_priority_updates(self) -> int:
        """Priorities that could not be delivered because their shard was gone."""
        return self._lost_priority_updates

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next batch, whose arrays are its own memory, or None if there is none in so many seconds.

        Raises:
            ray.exceptions.RayTaskError: a shard failed otherwise than by dying.
        """
        started = time.monotonic()
        self._collect(0.0)
        while True:
            order = next((order for order in self._orders if order.complete), None)
            now = time.monotonic()
            if order is not None or now - started >= timeout_s:
                break
            self._collect(started + timeout_s - now)
        self._waited_s += now - started
        if order is None:
            return None
        self._orders.remove(order)
        self._orders.append(_Order(self._batch_size))
        self._request()
        return merge(order.parts, sum(shard.size for shard in self._shards), self._beta)

    def update_priorities(self, batch: Batch, td_errors: NDArray[np.float32]) -> None:
        """Sends new TD errors, float32 [B] of either sign, without waiting for them to arrive.

        With `max_priority_updates_in_flight` calls unanswered it waits until one is answered.

        Raises:
            ValueError: a TD error is not finite.
            ray.exceptions.RayTaskError: a shard refused an earlier update as invalid.
        """
        for index, (ids, priorities) in priorities_by_shard(batch, td_errors).items():
            shard = self._shards[index] if index < len(self._shards) else None
            if shard is None or not shard.alive:
                self._lost_priority_updates += len(ids)
                continue
            self._make_room_for_update()
            self._updates[shard.handle.update_priorities.remote(ids, priorities)] = (shard, len(ids))

    def set_shards(self, shards: Sequence[ShardHandle]) -> None:
        """Replaces the shards by position; those that stay keep their calls in flight and count as alive again."""
        known = {state.handle: state for state in self._shards}
        self._shards = [known.get(handle) or _ShardState(handle) for handle in shards]
        for shard in self._shards:
            shard.alive = True
        for ref in [ref for ref, request in self._requests.items() if request.shard not in self._shards]:
            self._take_back(ref)
        self._late = {ref: shard for ref, shard in self._late.items() if shard in self._shards}
        self._request()

    def _collect(self, timeout_s: float) -> None:
        """Asks for what is missing and handles the answers that come within the timeout or a short while."""
        self._request()
        if any(order.missing for order in self._orders):
            timeout_s = min(timeout_s, _REFUSED_SAMPLE_S)
        for ref in _wait_any([*self._requests, *self._late], timeout_s):
            if ref in self._late:
                self._late.pop(ref).stalled -= 1
            else:
                self._finish_request(ref)
        self._give_up_stalled_requests()
        self._request()

    def _give_up_stalled_requests(self) -> None:
        """Takes requests back that were not answered for long, where there is another shard to ask."""
        before = time.monotonic() - _STALLED_S
        for ref, request in list(self._requests.items()):
            others = [shard for shard in self._shards if shard.alive and not shard.stalled and shard != request.shard]
            if request.asked < before and others:
                self._take_back(ref)
                request.shard.stalled += 1
                self._late[ref] = request.shard

    def _take_back(self, ref: "ray.ObjectRef[Any]") -> None:
        request = self._requests.pop(ref)
        request.shard.requests -= 1
        request.order.requested -= request.n
        request.order.missing += request.n

    def _request(self) -> None:
        now = time.monotonic()
        for order in self._orders:
            askable = [index for index, shard in enumerate(self._shards) if shard.can_ask(now)]
            if order.missing == 0 or not askable:
                continue
            self._turn += 1
            for index, n in split_evenly(order.missing, askable, self._turn).items():
                self._ask(order, self._shards[index], n)

    def _ask(self, order: _Order, shard: _ShardState, n: int) -> None:
        self._requests[shard.handle.sample.remote(n)] = _Request(order, shard, n, time.monotonic())
        shard.requests += 1
        order.requested += n
        order.missing -= n

    def _finish_request(self, ref: "ray.ObjectRef[Any]") -> None:
        order, shard, n, _ = self._requests.pop(ref)
        shard.requests -= 1
        order.requested -= n
        try:
            sample = ray.get(ref)
        except _SHARD_LOST:
            shard.alive = False
            order.missing += n
            return
        shard.refusing = sample is None
        if sample is None:
            shard.retry_at = time.monotonic() + _REFUSED_SAMPLE_S
            order.missing += n
            return
        shard.size = sample.size
        order.parts.append((self._shards.index(shard), sample))

    def _make_room_for_update(self) -> None:
        while len(self._updates) >= self._max_updates:
            answered = _wait_any(list(self._updates), _HUNG_UPDATE_S)
            for ref in answered:
                self._finish_update(ref)
            if not answered:
                self._give_up_oldest_update()

    def _finish_update(self, ref: "ray.ObjectRef[Any]") -> None:
        shard, n = self._updates.pop(ref)
        try:
            ray.get(ref)
        except _SHARD_LOST:
            shard.alive = False
            self._lost_priority_updates += n

    def _give_up_oldest_update(self) -> None:
        shard, n = self._updates.pop(next(iter(self._updates)))
        shard.alive = False
        self._lost_priority_updates += n


def _wait_any(refs: list["ray.ObjectRef[Any]"], timeout_s: float) -> list["ray.ObjectRef[Any]"]:
    """All calls that have finished, as soon as there is one; none after the timeout."""
    if not refs:
        time.sleep(timeout_s)
        return []
    ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
    if not ready:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return ready
