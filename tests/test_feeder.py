"""The feeder's thread between a reader and the training thread."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.types import Batch
from learner.feeder import BatchFeeder, BatchReader
from learner.learner import Learner
from tests.random_batches import VECTOR_SPEC, random_batch
from tests.test_learner import make_learner


class Source:
    """A reader over numbered batches, which can be made to starve, to fail and to hang."""

    def __init__(self) -> None:
        self.drawn = 0
        self.sent: list[tuple[int, NDArray[np.float32]]] = []
        self.supply = threading.Event()
        self.supply.set()
        self.taking = threading.Event()
        self.taking.set()
        self.failure: Exception | None = None
        self.lost_priority_updates = 0
        self.shards: list[tuple[Sequence[Any], int]] = []  # set so far, and batches drawn before

    def was_given(self, times: int) -> bool:
        return len(self.shards) >= times

    def set_shards(self, shards: Sequence[Any]) -> None:
        self.shards.append((shards, self.drawn))

    def set_memory(self, memory: Any) -> None: ...

    def next_batch(self, timeout_s: float) -> Batch | None:
        if self.failure is not None:
            raise self.failure
        if not self.supply.wait(timeout_s):
            return None
        self.drawn += 1
        return random_batch(VECTOR_SPEC, seed=self.drawn)._replace(ids=np.full(16, self.drawn))

    def update_priorities(self, batch: Batch, priorities: NDArray[np.float32]) -> None:
        self.taking.wait()
        self.sent.append((int(batch.ids[0]), priorities))


MakeFeeder = Callable[..., BatchFeeder]


@pytest.fixture
def make_feeder() -> Iterator[MakeFeeder]:
    """Starts feeders, and ends them after the test."""
    started: list[BatchFeeder] = []

    def make(reader: BatchReader, learner: Learner, ready: int = 2) -> BatchFeeder:
        started.append(BatchFeeder(reader, learner.prepare, ready))
        return started[-1]

    yield make
    for feeder in started:
        assert feeder.close()


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_with_none_to_keep_ready_a_batch_is_taken_only_when_it_is_waited_for(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner(), ready=0)
    for number in range(1, 4):
        time.sleep(0.1)
        assert source.drawn == number - 1
        assert feeder.next_batch(30) is not None


def test_batches_come_in_order_and_train_as_without_a_feeder(make_feeder: MakeFeeder) -> None:
    source, fed_learner, plain_learner = Source(), make_learner(), make_learner()
    feeder = make_feeder(source, fed_learner)
    for number in range(1, 6):
        fed = feeder.next_batch(30)
        assert fed is not None
        assert fed.batch.ids[0] == number
        result = fed_learner.finish(fed_learner.start(fed.prepared))
        feeder.update_priorities(fed.batch, np.abs(result.td_error))
        plain_learner.update(random_batch(VECTOR_SPEC, seed=number))
    np.testing.assert_array_equal(fed_learner.weights(), plain_learner.weights())


def test_priorities_reach_the_reader_with_their_batches(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner())
    for number in range(1, 4):
        fed = feeder.next_batch(30)
        assert fed is not None
        feeder.update_priorities(fed.batch, np.full(16, number, np.float32))
    assert eventually(lambda: len(source.sent) == 3)
    for number, (batch, priorities) in enumerate(source.sent, start=1):
        assert batch == number
        np.testing.assert_array_equal(priorities, number)


def test_priorities_reach_the_reader_while_there_are_no_batches(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner())
    fed = feeder.next_batch(30)
    assert fed is not None
    source.supply.clear()
    while feeder.next_batch(0.1) is not None:
        pass
    feeder.update_priorities(fed.batch, np.ones(16, np.float32))
    assert eventually(lambda: len(source.sent) == 1)


def test_a_learner_that_pauses_leaves_two_batches_ready_and_no_more(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner())
    assert eventually(lambda: source.drawn == 2)
    time.sleep(0.2)
    assert source.drawn == 2
    assert feeder.next_batch(30) is not None
    assert eventually(lambda: source.drawn == 3)


def test_training_waits_while_too_many_priorities_are_not_taken(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner())
    fed = feeder.next_batch(30)
    assert fed is not None
    source.taking.clear()
    handed_over = 0

    def hand_over() -> None:
        nonlocal handed_over
        for _ in range(40):
            feeder.update_priorities(fed.batch, np.ones(16, np.float32))
            handed_over += 1

    thread = threading.Thread(target=hand_over, daemon=True)
    thread.start()
    assert eventually(lambda: handed_over == 17)  # one with the reader, 16 waiting
    time.sleep(0.2)
    assert handed_over == 17
    source.taking.set()
    thread.join(30)
    assert handed_over == 40


def test_without_a_batch_the_answer_is_none_after_the_timeout(make_feeder: MakeFeeder) -> None:
    source = Source()
    source.supply.clear()
    started = time.monotonic()
    assert make_feeder(source, make_learner()).next_batch(0.2) is None
    assert 0.2 <= time.monotonic() - started < 20


def test_an_error_of_the_reader_reaches_the_training_thread_in_both_calls(make_feeder: MakeFeeder) -> None:
    source = Source()
    source.failure = RuntimeError("a shard failed")
    feeder = make_feeder(source, make_learner())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a shard failed"):
            feeder.next_batch(30)
    with pytest.raises(RuntimeError, match="a shard failed"):
        feeder.update_priorities(random_batch(VECTOR_SPEC, seed=0), np.ones(16, np.float32))


def test_a_batch_that_cannot_be_prepared_is_an_error_of_the_training_thread(make_feeder: MakeFeeder) -> None:
    class Corrupt(Source):
        def next_batch(self, timeout_s: float) -> Batch | None:
            batch = super().next_batch(timeout_s)
            return None if batch is None else batch._replace(s_t=batch.s_t + 10**6)

    with pytest.raises(IndexError):
        make_feeder(Corrupt(), make_learner()).next_batch(30)


def test_closing_does_not_wait_for_batches(make_feeder: MakeFeeder) -> None:
    source = Source()
    source.supply.clear()
    feeder = make_feeder(source, make_learner())
    assert feeder.close(timeout_s=10)


def test_the_training_threads_number_of_threads_stays() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        feeder = BatchFeeder(Source(), make_learner().prepare, 2)
        assert feeder.next_batch(30) is not None
        assert torch.get_num_threads() == 2
        assert feeder.close()
    finally:
        torch.set_num_threads(before)


def test_other_shards_reach_the_reader_while_batches_are_taken_and_while_it_rests(make_feeder: MakeFeeder) -> None:
    source = Source()
    feeder = make_feeder(source, make_learner())
    for number in range(3):
        feeder.set_shards([number])
        assert feeder.next_batch(30) is not None
        assert eventually(partial(source.was_given, number + 1))
    assert [shards for shards, _ in source.shards] == [[0], [1], [2]]
