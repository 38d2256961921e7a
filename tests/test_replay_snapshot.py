"""A shard goes on from another one's snapshot exactly, and takes nothing that is damaged or foreign."""

import copy
import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.types import EnvironmentSpec
from replay import snapshot as snapshots
from replay.decoding import decode_states
from replay.rate_limiter import RateLimiter
from replay.shard import ReplayShard
from replay.snapshot import MAGIC, Assembly, ShardSnapshot, pieces, pieces_of_file
from tests.replay_chunks import episode_chunks, open_limiter, plain_chunk, random_frames

SPEC = EnvironmentSpec((3, 4), 4, ("noop", "right", "left"))


def make_shard(
    capacity: int = 100, *, seed: int = 0, alpha: float = 0.6, limiter: RateLimiter | None = None, **other: Any
) -> ReplayShard:
    spec = dataclasses.replace(SPEC, **other)
    return ReplayShard(capacity, spec, alpha, limiter or open_limiter(), np.random.SeedSequence(seed))


def used_shard(transitions: int = 170) -> ReplayShard:
    """A shard that has evicted, sampled and changed priorities."""
    shard = make_shard()
    for chunk in episode_chunks(SPEC, random_frames(SPEC, transitions + 1, seed=4), 15, 3):
        assert shard.insert(chunk)
    advance(shard)
    return shard


def advance(shard: ReplayShard) -> list[Any]:
    """Samples, changes priorities, inserts; returns what was drawn."""
    drawn: list[Any] = []
    for turn in range(5):
        sample = shard.sample(20)
        assert sample is not None
        drawn += [value for value in sample._asdict().values() if isinstance(value, np.ndarray)]
        shard.update_priorities(sample.ids, np.linspace(0, 3, 20, dtype=np.float32))
        assert shard.insert(plain_chunk(SPEC, 7, seed=turn))
    return drawn


def through_a_stream(snapshot: ShardSnapshot) -> ShardSnapshot:
    head, *rest = pieces_of_file(io.BytesIO(b"".join(pieces(snapshot))))
    assembly = Assembly(head)
    for piece in rest:
        assembly.add(piece)
    return assembly.finish()


@pytest.mark.parametrize("piece_bytes", [1, 500, 4 << 20])
def test_a_restored_shard_goes_on_exactly(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_PIECE_BYTES", piece_bytes)
    shard, restored = used_shard(), make_shard(seed=1)
    restored.insert(plain_chunk(SPEC, 9))  # gone afterwards
    restored.restore(through_a_stream(shard.snapshot()))
    assert restored.check_valid() == (True, "")
    assert restored.size == shard.size
    for one, other in zip(advance(shard), advance(restored), strict=True):
        np.testing.assert_array_equal(one, other)
    assert restored.check_valid() == (True, "")


def test_a_snapshot_is_of_one_moment() -> None:
    shard = used_shard()
    snapshot = shard.snapshot()
    before = b"".join(pieces(snapshot))
    advance(shard)
    assert b"".join(pieces(snapshot)) == before


def test_counters_are_those_since_the_restoring() -> None:
    shard, restored = used_shard(), make_shard()
    restored.restore(shard.snapshot())
    assert (restored.stats().inserts, restored.stats().samples, restored.stats().inserts_while_sampling) == (0, 0, 0)
    advance(restored)
    assert (restored.stats().inserts, restored.stats().samples) == (35, 100)


def test_an_empty_shard_can_be_restored() -> None:
    restored = used_shard()
    restored.restore(through_a_stream(make_shard().snapshot()))
    assert (restored.size, restored.check_valid()) == (0, (True, ""))
    assert not restored.can_sample(1)


def test_a_smaller_shard_takes_the_newest_chunks_that_fit() -> None:
    shard, smaller = used_shard(), make_shard(capacity=50, limiter=open_limiter(max_insert=20))
    newest = shard.snapshot().tables.r_t[-50:]
    smaller.restore(shard.snapshot())
    assert smaller.check_valid() == (True, "")
    assert 30 < smaller.size <= 50
    np.testing.assert_array_equal(smaller.snapshot().tables.r_t, newest[-smaller.size :])
    advance(smaller)
    assert smaller.check_valid() == (True, "")


@pytest.mark.parametrize(
    ("other", "name"),
    [({"alpha": 0.5}, "priority_exponent"), ({"frame_stack": 2}, "frame_stack"), ({"action_names": ("a",)}, "actions")],
)
def test_a_snapshot_of_other_settings_is_refused(other: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"it was made with {name} "):
        make_shard(**other).restore(used_shard().snapshot())


def test_the_ratio_goes_on_where_it_was() -> None:
    limiter, restored = (RateLimiter(2.0, 10, 50, max_insert=20, max_sample=20) for _ in range(2))
    limiter.insert(20)
    limiter.insert(14)
    limiter.sample(20)
    restored.restore(limiter.state(), size=34)
    assert restored.state() == limiter.state()


def test_another_ratio_begins_afresh_without_a_burst() -> None:
    limiter = RateLimiter(1.0, 10, 40, max_insert=20, max_sample=20)
    for _ in range(50):
        limiter.insert(20) if limiter.can_insert(20) else limiter.sample(20)
    other = RateLimiter(8.0, 10, 100, max_insert=20, max_sample=20)
    other.restore(limiter.state(), size=500)
    drawn = 0
    while other.can_sample(20):
        other.sample(20)
        drawn += 20
    assert 0 < drawn <= 100  # the error buffer, not eight samples for each of 500 transitions


def test_too_few_transitions_wait_for_more() -> None:
    limiter = RateLimiter(1.0, 10, 40, max_insert=20, max_sample=20)
    limiter.insert(20)
    limiter.restore(limiter.state(), size=6)
    assert not limiter.can_sample(1)
    limiter.insert(4)
    assert limiter.can_sample(1)


def test_streams_that_are_cut_short_are_refused() -> None:
    stream = b"".join(pieces(used_shard().snapshot()))
    for size in (0, 5, 15, 100, len(stream) // 2, len(stream) - 1):
        with pytest.raises(ValueError, match=r"it does not begin|it is cut short"):
            list(pieces_of_file(io.BytesIO(stream[:size])))


def test_missing_and_misplaced_pieces_are_refused() -> None:
    head, frames = pieces(used_shard().snapshot())
    with pytest.raises(ValueError, match="frames of 10 chunks are missing"):
        Assembly(head).finish()
    for wrong in (frames[:-1], frames + b"x"):
        with pytest.raises(ValueError, match="not as long"):
            Assembly(head).add(wrong)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_stream_is_refused_or_unchanged(data: st.DataObject) -> None:
    """A flip that neither the archive's checksums nor the checks find may lie only in what is not read."""
    stream = bytearray(_HEAD)
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        head, *_ = pieces_of_file(io.BytesIO(bytes(stream) + _FRAMES))
        assembly = Assembly(head)
        assembly.add(_FRAMES)
        snapshot = assembly.finish()
    except ValueError:
        return
    assert snapshot.header == _SNAPSHOT.header
    for one, other in zip(snapshot.tables, _SNAPSHOT.tables, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    for stream in (data, MAGIC + data, MAGIC + len(data).to_bytes(8, "little") + data):
        with pytest.raises(ValueError, match=r"it does not begin|it is cut short|cannot be read"):
            list(pieces_of_file(io.BytesIO(stream)))


@pytest.mark.parametrize(
    ("table", "value", "reason"),
    [
        ("a_tm1", 3, "a_tm1 is not within 0"),
        ("discount_t", 1.5, "discount_t is not within"),
        ("steps", 0, "steps is not within"),
        ("first_state", 4, "first_state is not within"),
        ("r_t", np.nan, "r_t is not finite"),
        ("r_t", 1e31, "r_t is not within"),
        ("tree", 0.0, "tree is not within"),
        ("tree", 1e-300, "tree is not within"),
        ("tree", 1e308, "tree is not within"),
        ("steps", 200, "blocks of frames"),
    ],
)
def test_tables_that_make_no_sense_leave_the_shard_as_it_was(table: str, value: float, reason: str) -> None:
    snapshot, shard = used_shard().snapshot(), used_shard()
    before = b"".join(pieces(shard.snapshot()))
    getattr(snapshot.tables, table)[3] = value
    with pytest.raises(ValueError, match=reason):
        shard.restore(snapshot)
    assert b"".join(pieces(shard.snapshot())) == before


def damage(shard: ReplayShard, *chunks: int) -> None:
    """Flips a bit of these chunks' frames, by age, in the shard's own memory."""
    held = shard._frames._chunks
    for serial in [list(held)[place] for place in chunks]:
        frames = bytearray(held[serial].frames)
        frames[5] ^= 1
        held[serial] = held[serial]._replace(frames=bytes(frames))


def decode_all(shard: ReplayShard) -> set[float]:
    """Each transition's reward, once a draw of all of them has been decoded."""
    sample = shard.sample(4000)
    assert sample is not None
    decode_states([sample])
    return set(sample.r_t.tolist())


@pytest.mark.parametrize("chunks", [(0,), (2, 3), (5,)])
def test_what_was_damaged_in_a_shards_memory_is_left_out_of_the_restored_one(chunks: tuple[int, ...]) -> None:
    """Whatever the checkpoint's own checksum says: the file is as it was written."""
    shard, restored = make_shard(alpha=0.0), make_shard(alpha=0.0, seed=1)
    for chunk in episode_chunks(SPEC, random_frames(SPEC, 91, seed=4), 15, 3):
        assert shard.insert(chunk)
    newest_id = max(shard.sample(4000).ids)  # type: ignore[union-attr]
    damage(shard, *chunks)
    with pytest.raises(ValueError, match="corrupt frames"):
        decode_all(shard)
    restored.restore(through_a_stream(shard.snapshot()))
    assert restored.check_valid() == (True, "")
    assert restored.stats().damaged_chunks == len(chunks)
    assert restored.size == 90 - 15 * len(chunks)
    assert decode_all(restored) == {float(t) for t in range(90) if t // 15 not in chunks}
    assert max(restored.sample(4000).ids) == newest_id  # type: ignore[union-attr]
    advance(restored)
    assert restored.check_valid() == (True, "")


def test_damaged_chunks_take_no_room_from_those_that_fit() -> None:
    shard, smaller = used_shard(), make_shard(capacity=50, limiter=open_limiter(max_insert=20))
    damage(shard, -1, -2)
    smaller.restore(shard.snapshot())
    assert (smaller.stats().damaged_chunks, smaller.check_valid()) == (2, (True, ""))
    assert 30 < smaller.size <= 50


def test_a_shard_of_which_everything_is_damaged_waits_for_other_transitions() -> None:
    limiter = RateLimiter(1.0, 10, 1e6, max_insert=20, max_sample=20)
    shard, restored = make_shard(limiter=limiter), make_shard(limiter=copy.deepcopy(limiter))
    assert shard.insert(plain_chunk(SPEC, 15))
    damage(shard, 0)
    assert shard.can_sample(1)
    restored.restore(through_a_stream(shard.snapshot()))
    assert (restored.size, restored.stats().damaged_chunks, restored.can_sample(1)) == (0, 1, False)
    assert restored.insert(plain_chunk(SPEC, 15))
    assert restored.sample(1) is not None


@pytest.mark.parametrize("header", [{"oldest": "x"}, {"oldest": -4}, {"limiter": []}, {"rng": {}}, {"rng": None}])
def test_a_header_that_makes_no_sense_leaves_the_shard_as_it_was(header: dict[str, Any]) -> None:
    snapshot, shard = used_shard().snapshot(), used_shard()
    before = b"".join(pieces(shard.snapshot()))
    with pytest.raises(ValueError, match="its header is damaged"):
        shard.restore(snapshot._replace(header={**snapshot.header, **header}))
    assert b"".join(pieces(shard.snapshot())) == before


_SNAPSHOT = used_shard(transitions=40).snapshot()
_HEAD, _FRAMES = pieces(_SNAPSHOT)
