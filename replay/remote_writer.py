"""The replay's client in an actor's process."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from common.types import Chunk
from replay.remote import AWAY_S, SHARD_LOST, STALLED_S, ShardHandle, wait_any

# Asking Ray whether calls have finished takes as long as a frame of the game: not at every step of an actor.
_LOOK_S = 0.020
_MIN_POLL_S = 0.010
_MAX_POLL_S = 0.200


class _Insert(NamedTuple):
    """An insert call in flight."""

    chunk: Chunk
    shard: ShardHandle
    sent: float  # time.monotonic()


class RemoteReplayWriter:
    """Sends an actor's chunks to the shards, round-robin over the live ones.

    A shard is sent one chunk at a time, so that one that hangs can't take them all; what it has not answered for a
    second no longer counts against `max_in_flight`. A refused chunk is not sent again blindly: the shards are asked
    `can_insert` in turn, one at a time, until one says yes. The interval doubles with each question and halves with
    each accepted chunk, so that it costs a few questions per chunk, however many actors wait. A dead shard's chunk goes
    to the next one; it is left out until `set_shards`, but for a try every few seconds, in case that it was only out of
    reach.

    Args:
        shards: handles of the shards.
        max_in_flight: `wait_ready` says yes while fewer chunks than this are pending; also, insert calls at once. With
            each shard that stalls there may be one more.
        max_pending: chunks that may be pending at all. Several environments can end a chunk in one step.
    """

    def __init__(self, shards: Sequence[ShardHandle], max_in_flight: int, max_pending: int = 256) -> None:
        if not 1 <= max_in_flight <= max_pending:
            raise ValueError(f"max_in_flight must be in 1 … max_pending={max_pending}, not {max_in_flight}")
        self._max_in_flight = max_in_flight
        self._max_pending = max_pending
        self._queue: deque[Chunk] = deque()
        self._inserts: dict[ray.ObjectRef[Any], _Insert] = {}
        self._polls: dict[ray.ObjectRef[Any], ShardHandle] = {}
        self._live: list[ShardHandle] = list(shards)
        self._away: dict[ShardHandle, float] = {}  # shards that a call failed on, and when they are tried again
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
        return self._wait_until(lambda: len(self._queue) + self._fresh_inserts() < self._max_in_flight, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Whether every chunk has been accepted, after at most so many seconds."""
        return self._wait_until(lambda: self.pending == 0, timeout_s)

    def set_shards(self, shards: Sequence[ShardHandle]) -> None:
        """Replaces the shards. Chunks on their way to one that is no longer among them are sent again."""
        self._live, self._away = list(shards), {}
        gone = [ref for ref, insert in self._inserts.items() if insert.shard not in self._live]
        self._queue.extendleft(self._inserts.pop(ref).chunk for ref in gone)
        self._polls = {ref: shard for ref, shard in self._polls.items() if shard in self._live}
        self._send()

    def _fresh_inserts(self) -> int:
        """Those that may still be answered as usual."""
        now = time.monotonic()
        return sum(now - insert.sent < STALLED_S for insert in self._inserts.values())

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        now = time.monotonic()
        deadline = now + timeout_s
        if now >= self._next_look or not condition():
            self._next_look = now + _LOOK_S
            self._advance(0.0)
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._advance(left)
        return True

    def _advance(self, timeout_s: float) -> None:
        """Handles the calls that finish within the timeout, or the next round of polls if that is due earlier."""
        self._try_again()
        if self._queue:
            timeout_s = min(timeout_s, max(0.0, self._next_poll - time.monotonic(), _MIN_POLL_S))
        for ref in wait_any([*self._inserts, *self._polls], timeout_s):
            if ref in self._inserts:
                self._finish_insert(ref)
            elif ref in self._polls:
                self._finish_poll(ref)
        self._send()

    def _finish_insert(self, ref: "ray.ObjectRef[Any]") -> None:
        chunk, shard, _ = self._inserts.pop(ref)
        try:
            accepted = ray.get(ref)
        except SHARD_LOST:
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
        except SHARD_LOST:
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
        count = min(len(self._queue), self._max_in_flight - self._fresh_inserts())
        first = self._turn % max(1, len(self._live))
        in_turn = self._live[first:] + self._live[:first]
        busy = {insert.shard for insert in self._inserts.values()}
        return [shard for shard in in_turn if shard not in busy][: max(0, count)]

    def _insert(self, shard: ShardHandle) -> None:
        chunk = self._queue.popleft()
        self._inserts[shard.insert.remote(chunk)] = _Insert(chunk, shard, time.monotonic())
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
        if shard in self._live:
            self._live.remove(shard)
            self._away[shard] = time.monotonic() + AWAY_S

    def _try_again(self) -> None:
        now = time.monotonic()
        for shard in [shard for shard, due in self._away.items() if now >= due]:
            del self._away[shard]
            self._live.append(shard)
