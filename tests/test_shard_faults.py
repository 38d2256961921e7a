"""What a shard's process makes of errors of its own and of its callers'."""

from typing import Any

import numpy as np
import pytest

from common.types import EnvironmentSpec
from replay.remote import RemoteReplayShard
from replay.snapshot import pieces
from replay.sum_tree import SumTree
from tests.replay_chunks import open_limiter, plain_chunk

SPEC = EnvironmentSpec((2,), 2, ("noop", "right"))
IDS = np.zeros(1, np.int64)


@pytest.fixture
def shard() -> RemoteReplayShard:
    """With ten transitions."""
    made = RemoteReplayShard(100, SPEC, 0.6, open_limiter(), np.random.SeedSequence(0))
    assert made.insert(plain_chunk(SPEC, 10))
    return made


def _no_memory(*_: Any) -> Any:
    raise MemoryError("no room")


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("_frames.append", lambda shard: shard.insert(plain_chunk(SPEC, 10))),
        ("_frames.read_states", lambda shard: shard.sample(4)),
        ("_tree.set", lambda shard: shard.update_priorities(IDS, np.ones(1, np.float32))),
    ],
    ids=["insert", "sample", "update_priorities"],
)
def test_an_error_of_the_shards_own_is_told_to_the_supervisor_and_not_to_callers(
    part: str, call: Any, shard: RemoteReplayShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = part.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(shard._shard, owner), name, _no_memory)
        assert not call(shard)
    # It may be half done: nothing comes in or out any more.
    assert not shard.can_insert(1)
    assert not shard.insert(plain_chunk(SPEC, 10))
    assert shard.sample(4) is None
    for told in (shard.stats, shard.begin_snapshot):
        with pytest.raises(MemoryError, match="no room"):
            told()


def test_a_shard_that_was_restored_by_half_is_at_fault(
    shard: RemoteReplayShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list(pieces(shard._shard.snapshot()))
    new = RemoteReplayShard(100, SPEC, 0.6, open_limiter(), np.random.SeedSequence(0))
    for piece in sent:
        new.restore_piece(piece)
    monkeypatch.setattr(new._shard._frames, "restore", _no_memory)
    with pytest.raises(MemoryError):
        new.finish_restore()
    assert new.sample(4) is None
    with pytest.raises(MemoryError):
        new.stats()


def test_what_a_sample_finds_wrong_in_the_shard_is_not_the_callers_error(
    shard: RemoteReplayShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard._shard, "_tree", SumTree(100))  # with no priorities at all
    assert shard.sample(4) is None
    with pytest.raises(ValueError, match="nothing to sample"):
        shard.stats()


def test_what_is_wrong_with_an_argument_is_the_callers_error(shard: RemoteReplayShard) -> None:
    with pytest.raises(ValueError, match="finite"):
        shard.update_priorities(IDS, np.full(1, np.nan, np.float32))
    with pytest.raises(ValueError, match="max_sample"):
        shard.sample(10_000)
    assert shard.sample(4) is not None
    assert shard.stats().size == 10
