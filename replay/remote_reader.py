"""The replay's client in the learner's process."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from common.types import Batch, ShardSample
from replay.client import merge, priorities_by_shard, split_evenly
from replay.decoding import FrameMemory, ordinary_memory
from replay.remote import AWAY_S, SHARD_LOST, STALLED_S, ShardHandle, wait_any

_REFUSED_SAMPLE_S = 0.015
_HUNG_UPDATE_S = 30.0
# A shard that was late is left alone for so many times as long as it took, a minute at most: one that is always late
# costs the others a tenth of their time, not all of it.
_REST = 10.0
_LONGEST_REST_S = 60.0


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
    alive: bool = True  # no call on it failed
    requests: int = 0  # sample calls in flight
    refusing: bool = False  # it refused the last request
    retry_at: float = 0.0  # time.monotonic() from which it may be asked again, if it refused, failed or was late
    stalled: int = 0  # requests that others were asked instead
    started: bool = False  # it has answered before

    def can_ask(self, now: float) -> bool:
        """A shard that refuses or failed is asked once in a while, one request at a time; a stalled one not at all."""
        in_doubt = self.refusing or not self.alive
        return not self.stalled and now >= self.retry_at and not (in_doubt and self.requests)

    def fail(self) -> None:
        """A call on it failed."""
        self.alive, self.retry_at = False, time.monotonic() + AWAY_S

    def refuse(self) -> None:
        """It has nothing to give now."""
        self.refusing, self.retry_at = True, max(self.retry_at, time.monotonic() + _REFUSED_SAMPLE_S)

    def rest(self, late_s: float) -> None:
        """It took so long to answer."""
        self.stalled -= 1
        if self.started:  # else its process was still being made
            self.retry_at = time.monotonic() + min(_REST * late_s, _LONGEST_REST_S)


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
    refusing shard is asked again after a short while; a dead one is left out until `set_shards`, but for a try every
    few seconds, in case that it was only out of reach. A share that is not answered for a second is asked from the
    others too, if there are any; what comes late goes into a later batch, and the shard is left alone for ten times as
    long as it took.

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
        self._memory: FrameMemory = ordinary_memory
        self._max_updates = max_priority_updates_in_flight
        self._shards = [_ShardState(handle) for handle in shards]
        self._orders = [_Order(batch_size) for _ in range(prefetch)]
        self._requests: dict[ray.ObjectRef[Any], _Request] = {}
        self._late: dict[ray.ObjectRef[Any], _Request] = {}  # that others were asked instead
        self._spare: deque[tuple[_ShardState, ShardSample]] = deque()  # what came late
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
        self._use_spare()
        self._request()
        return merge(order.parts, sum(shard.size for shard in self._shards), self._beta, self._memory)

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

    def set_memory(self, memory: FrameMemory) -> None:
        """Writes the frames of the batches to come into memory of this kind."""
        self._memory = memory

    def set_shards(self, shards: Sequence[ShardHandle]) -> None:
        """Replaces the shards by position; those that stay keep their calls in flight and count as alive again."""
        known = {state.handle: state for state in self._shards}
        self._shards = [known.get(handle) or _ShardState(handle) for handle in shards]
        for shard in self._shards:
            shard.alive, shard.retry_at = True, 0.0
        for ref in [ref for ref, request in self._requests.items() if request.shard not in self._shards]:
            self._take_back(ref)
        self._late = {ref: request for ref, request in self._late.items() if request.shard in self._shards}
        self._spare = deque((shard, sample) for shard, sample in self._spare if shard in self._shards)
        self._request()

    def _use_spare(self) -> None:
        """Gives what came late to the orders that have room for it."""
        for order in self._orders:
            while self._spare and len(self._spare[0][1].ids) <= order.missing:
                self._add(order, *self._spare.popleft())

    def _collect(self, timeout_s: float) -> None:
        """Asks for what is missing and handles the answers that come within the timeout or a short while."""
        self._request()
        look_again_s = _REFUSED_SAMPLE_S if any(order.missing for order in self._orders) else STALLED_S / 4
        timeout_s = min(timeout_s, look_again_s)
        for ref in wait_any([*self._requests, *self._late], timeout_s):
            if ref in self._late:
                self._finish_late(ref)
            else:
                self._finish_request(ref)
        self._give_up_stalled_requests()
        self._request()

    def _give_up_stalled_requests(self) -> None:
        """Takes requests back that were not answered for long, where there is another shard to ask."""
        now = time.monotonic()
        for ref, request in list(self._requests.items()):
            others = any(shard.can_ask(now) for shard in self._shards if shard != request.shard)
            if others and now - request.asked > STALLED_S:
                self._take_back(ref)
                request.shard.stalled += 1
                self._late[ref] = request

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
        order.missing += n
        sample = self._answer(ref, shard)
        if sample is not None:
            self._add(order, shard, sample)
        elif shard.alive:
            shard.refuse()

    def _finish_late(self, ref: "ray.ObjectRef[Any]") -> None:
        _, shard, _, asked = self._late.pop(ref)
        shard.rest(time.monotonic() - asked)
        sample = self._answer(ref, shard)
        if sample is not None:
            self._spare.append((shard, sample))
            self._use_spare()

    def _answer(self, ref: "ray.ObjectRef[Any]", shard: _ShardState) -> ShardSample | None:
        """What a shard answered; None if it refused or is gone."""
        try:
            sample: ShardSample | None = ray.get(ref)
        except SHARD_LOST:
            shard.fail()
            return None
        shard.alive = shard.started = True
        shard.refusing = False
        return sample

    def _add(self, order: _Order, shard: _ShardState, sample: ShardSample) -> None:
        order.missing -= len(sample.ids)
        order.parts.append((self._shards.index(shard), sample))
        shard.size = sample.size

    def _make_room_for_update(self) -> None:
        while len(self._updates) >= self._max_updates:
            answered = wait_any(list(self._updates), _HUNG_UPDATE_S)
            for ref in answered:
                self._finish_update(ref)
            if not answered:
                self._give_up_oldest_update()

    def _finish_update(self, ref: "ray.ObjectRef[Any]") -> None:
        shard, n = self._updates.pop(ref)
        try:
            ray.get(ref)
        except SHARD_LOST:
            shard.fail()
            self._lost_priority_updates += n

    def _give_up_oldest_update(self) -> None:
        shard, n = self._updates.pop(next(iter(self._updates)))
        shard.fail()
        self._lost_priority_updates += n
