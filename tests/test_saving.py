"""When checkpoints are due; what a shard's or the learner's death changes about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config import CheckpointConfig
from driver.checkpoints import CheckpointNotNowError, Saved
from driver.counters import Counters
from driver.saving import Saving
from learner.checkpoint import CheckpointError


class _Supervisor:
    """Gives the learner's state at once, or when it is asked to."""

    shards: tuple[Any, ...] = ()
    filling = False

    def __init__(self) -> None:
        self.actors: dict[int, Any] = {}
        self.asked: list[Callable[[dict[str, Any]], None]] = []

    def request_state(self, done: Callable[[dict[str, Any]], None]) -> None:
        self.asked.append(done)

    def wait_until_filled(self, timeout_s: float) -> None: ...


class _Writer:
    busy = False

    def __init__(self) -> None:
        self.outcome: Saved | CheckpointError | None = None
        self.started = 0
        self.without_replay = False

    def start(self, *_: Any, without_replay: bool) -> None:
        self.started += 1
        self.without_replay = without_replay

    def finished(self) -> Saved | CheckpointError | None:
        outcome, self.outcome = self.outcome, None
        return outcome


class _Scene:
    """A run with a checkpoint due every ten seconds."""

    def __init__(self) -> None:
        self.supervisor, self.writer, self.said = _Supervisor(), _Writer(), list[str]()
        self.counters = Counters()
        writer: Any = self.writer
        supervisor: Any = self.supervisor
        best: Any = type("Best", (), {"score": None})
        settings = CheckpointConfig(interval_s=10)
        self.saving = Saving(settings, writer, supervisor, self.counters, best, None, self.said.append)
        self._now = self.saving._last[0]

    def after(self, seconds: float, updates: int) -> None:
        self._now += seconds
        self.counters.updates = updates
        self.saving.begin_if_due(self._now)
        if self.supervisor.asked:
            self.supervisor.asked.pop()({"updates": updates})


def test_a_checkpoint_is_written_when_it_is_due_and_something_was_learned() -> None:
    scene = _Scene()
    for seconds, updates in ((5, 3), (6, 4), (5, 6), (6, 7), (11, 7)):
        scene.after(seconds, updates)
    assert scene.writer.started == 2


def test_only_a_checkpoint_that_is_on_the_disk_counts_as_written() -> None:
    scene = _Scene()
    scene.writer.outcome = CheckpointError("no room")
    scene.after(1, 1)
    assert not scene.saving.wrote_any
    scene.writer.outcome = Saved(Path("step-1"), 1, 0, 0.1)
    scene.after(1, 1)
    assert scene.saving.wrote_any


def test_a_learner_that_fell_back_is_saved_as_soon_as_it_is_due() -> None:
    scene = _Scene()
    scene.after(11, 200_000)
    scene.after(11, 100_000)
    assert scene.writer.started == 2


def test_no_checkpoint_begins_while_a_shard_is_filled_and_it_does_once_that_is_done() -> None:
    scene = _Scene()
    scene.supervisor.filling = True
    scene.after(11, 10)
    assert scene.writer.started == 0
    scene.supervisor.filling = False
    scene.after(1, 11)
    assert scene.writer.started == 1


def test_a_shard_that_dies_before_the_learners_answer_puts_the_checkpoint_off() -> None:
    scene = _Scene()
    scene.counters.updates = 10
    scene.saving.begin_if_due(scene._now + 11)
    scene.supervisor.filling = True
    scene.supervisor.asked.pop()({"updates": 10})
    assert scene.writer.started == 0
    scene.supervisor.filling = False
    scene.after(12, 11)
    assert scene.writer.started == 1


def test_a_checkpoint_that_a_shard_did_not_answer_for_is_tried_again_at_once() -> None:
    scene = _Scene()
    scene.after(11, 10)
    scene.writer.outcome = CheckpointNotNowError("there is no checkpoint now: a replay shard does not answer")
    scene.after(1, 11)
    assert scene.writer.started == 2
    assert scene.said == [
        "warning: there is no checkpoint now: a replay shard does not answer; earlier checkpoints are whole, "
        "training goes on"
    ]


def test_a_shard_that_never_answers_leaves_checkpoints_without_the_replay() -> None:
    scene = _Scene()
    scene.after(11, 10)
    for failure in range(1, 4):
        assert not scene.writer.without_replay
        scene.writer.outcome = CheckpointNotNowError("there is no checkpoint now: a replay shard does not answer")
        scene.after(1, 10 + failure)
    assert scene.writer.without_replay
    scene.writer.outcome = Saved(Path("step-000000000010"), 10, 0, 1.0)
    scene.after(11, 20)
    assert not scene.writer.without_replay


def test_a_state_that_a_dead_learner_owed_is_asked_of_the_new_one() -> None:
    scene = _Scene()
    scene.counters.updates = 10
    scene.saving.begin_if_due(scene._now + 11)
    scene.supervisor.asked.clear()
    scene.saving.learner_replaced()
    scene.after(12, 9)
    assert scene.writer.started == 1


def test_an_old_checkpoint_that_cannot_be_removed_is_said_beside_the_new_one() -> None:
    scene = _Scene()
    scene.writer.outcome = Saved(Path("step-000000000010"), 10, 0, 1.0, "an old checkpoint cannot be removed: why")
    scene.after(1, 10)
    assert scene.said[-1] == "warning: an old checkpoint cannot be removed: why"
