"""What a shard's process makes of errors of its own and of its callers'."""

from typing import Any

import numpy as np
import pytest

from common.types import EnvironmentSpec
from replay.remote import RemoteReplayShard
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


def test_what_is_wrong_with_an_argument_is_the_callers_error(shard: RemoteReplayShard) -> None:
    with pytest.raises(ValueError, match="finite"):
        shard.update_priorities(IDS, np.full(1, np.nan, np.float32))
    assert shard.sample(4) is not None
    assert shard.stats().size == 10
