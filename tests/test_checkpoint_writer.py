"""The thread that writes checkpoints, where one cannot be written."""

import gc
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.environment import environment_spec
from common.config import Config
from driver import checkpoints
from driver.checkpoints import CheckpointNotNowError, CheckpointWriter
from driver.counters import Counters
from driver.replay_files import ReplayNotSavedError
from tests.checkpoints import make_run


class _State(dict[str, Any]):
    """A learner's state that can be watched."""


def test_a_checkpoint_that_could_not_be_written_keeps_nothing_of_the_learners_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(shards: Sequence[Any]) -> dict[str, Any]:
        raise ReplayNotSavedError("shard 0 does not answer")

    monkeypatch.setattr(checkpoints, "replay_writers", ask)
    monkeypatch.setattr(checkpoints, "actor_states_writer", lambda actors: {})
    writer = CheckpointWriter(make_run(tmp_path / "run"), Config(), environment_spec())
    state = _State(updates=1)
    kept = weakref.ref(state)
    gc.disable()  # which would find it in the end, after several more
    try:
        writer.start(state, Counters(), None, (), {}, without_replay=False)
        outcome = writer.wait()
        del state
        assert isinstance(outcome, CheckpointNotNowError)
        assert "shard 0 does not answer" in str(outcome)
        deadline = time.monotonic() + 10
        while kept() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread lets go of it a moment later
        assert kept() is None
    finally:
        gc.enable()
        writer.close()
