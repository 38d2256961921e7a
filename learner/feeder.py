"""A thread that fetches and prepares batches ahead of the training thread, and takes the priorities back."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from common.types import Batch
from learner.learner import PreparedBatch

# One is trained on while the next is prepared; the other covers for a feeder that other processes keep off the cores.
MOST_READY_BATCHES = 2
_MAX_PRIORITY_UPDATES = 16
# Priorities wait at most so long for a reader that waits for a batch.
_READER_TIMEOUT_S = 0.02


def ready_batches(prefetch: int) -> int:
    """Batches that a learner has at hand which takes so many at once from the shards; see `BatchFeeder`."""
    return min(MOST_READY_BATCHES, prefetch - 1)


class BatchReader(Protocol):
    """Where the learner's batches come from."""

    @property
    def lost_priority_updates(self) -> int:
        """Priorities that could not be delivered because their shard was gone."""

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next batch, waiting at most so long."""

    def update_priorities(self, batch: Batch, priorities: NDArray[np.float32]) -> None:
        """Sends absolute TD errors back without waiting for the answer."""

    def set_shards(self, shards: Sequence[Any]) -> None:
        """Takes other shards, by position."""

    def set_memory(self, memory: Callable[[Sequence[int]], NDArray[np.uint8]]) -> None:
        """Makes the batches' frames in memory of this kind."""


class FedBatch(NamedTuple):
    """A batch and what `Learner.prepare` made of it."""

    batch: Batch
    prepared: PreparedBatch


class BatchFeeder:
    """Owns the reader and runs it in a thread, so that the training thread waits for no call and no decompression.

    Bounded both ways: the thread stops fetching with `ready` batches at hand, and the training thread waits when 16
    batches' priorities are not taken yet. An error in the thread is raised to the training thread by its next call.

    Args:
        reader: only the thread uses it from now on.
        prepare: `Learner.prepare`.
        ready: batches to have at hand; 0: a batch is taken from the reader only when the training thread waits for it,
            as runs want it in which steps and updates take turns.
    """

    def __init__(self, reader: BatchReader, prepare: Callable[[Batch], PreparedBatch], ready: int) -> None:
        self._reader = reader
        self._prepare = prepare
        self._keep_ready = ready
        self._awaited = False  # whether the training thread waits for a batch
        self._changed = threading.Condition()
        self._ready: deque[FedBatch] = deque()
        self._priorities: deque[tuple[Batch, NDArray[np.float32]]] = deque()
        self._shards: Sequence[Any] | None = None  # that the reader is to take
        self._error: BaseException | None = None
        self._closed = False
        # A daemon, so that a process that ends does not wait for a reader that hangs.
        self._thread = threading.Thread(target=self._run, name="batch-feeder", daemon=True)
        self._thread.start()

    @property
    def lost_priority_updates(self) -> int:
        """Priorities that could not be delivered because their shard was gone."""
        return self._reader.lost_priority_updates

    def next_batch(self, timeout_s: float) -> FedBatch | None:
        """The next batch, or None if there is none in so many seconds.

        Raises:
            Exception: what the thread failed with.
        """
        with self._changed:
            self._awaited = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready or self._error, timeout_s)
            self._awaited = False
            self._raise_error()
            if not self._ready:
                return None
            self._changed.notify_all()
            return self._ready.popleft()

    def update_priorities(self, batch: Batch, priorities: NDArray[np.float32]) -> None:
        """Hands the absolute TD errors, float32 [B], of a batch over.

        Raises:
            Exception: what the thread failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._priorities) < _MAX_PRIORITY_UPDATES or self._error or self._closed)
            self._raise_error()
            self._priorities.append((batch, priorities))
            self._changed.notify_all()

    def set_shards(self, shards: Sequence[Any]) -> None:
        """Has the reader take other shards, by position, before its next batch."""
        with self._changed:
            self._shards = shards
            self._changed.notify_all()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Ends the thread; whether it ended in time. What it had not delivered is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        # For this thread and those that are new to PyTorch; the cores are the training thread's.
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        try:
            while not self._closed:
                self._pass_shards_on()
                self._send_priorities()
                if not self._fetch():
                    self._wait_for_work()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _pass_shards_on(self) -> None:
        with self._changed:
            shards, self._shards = self._shards, None
        if shards is not None:
            self._reader.set_shards(shards)

    def _send_priorities(self) -> None:
        while not self._closed:
            with self._changed:
                if not self._priorities:
                    return
                batch, priorities = self._priorities.popleft()
                self._changed.notify_all()
            self._reader.update_priorities(batch, priorities)

    def _fetch(self) -> bool:
        """Whether the reader was asked."""
        if not self._has_room():
            return False
        batch = self._reader.next_batch(_READER_TIMEOUT_S)
        if batch is None:
            return True
        fed = FedBatch(batch, self._prepare(batch))
        with self._changed:
            self._ready.append(fed)
            self._changed.notify_all()
        return True

    def _wait_for_work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._priorities or self._shards or self._has_room())

    def _has_room(self) -> bool:
        return len(self._ready) < max(self._keep_ready, self._awaited)
