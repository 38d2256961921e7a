"""A damaged chunk is left out, whatever was damaged; a shard never breaks on one that its actor sealed like that."""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.types import Chunk, EnvironmentSpec
from replay.decoding import decode_states
from replay.shard import ReplayShard
from tests.replay_chunks import episode_chunks, open_limiter, plain_chunk, random_frames

SPEC = EnvironmentSpec((5, 6), 4, ("noop", "right"))
GOOD = list(episode_chunks(SPEC, random_frames(SPEC, 41, seed=0), 12, 3))
INTEGERS = {"a_tm1": np.int32, "weight_version": np.int32, "steps": np.uint8, "block_ends": np.int32}
FLOATS = ("r_t", "discount_t", "priority")
SCALARS = ("first_state", "actor", "checksum")


@st.composite
def damaged_chunks(draw: st.DrawFn) -> Chunk:
    """A good chunk of which one field has other values, and perhaps another length."""
    chunk = draw(st.sampled_from(GOOD))
    name = draw(st.sampled_from([*INTEGERS, *FLOATS, "frames", *SCALARS]))
    if name in SCALARS:
        value: Any = draw(st.integers(-(2**40), 2**40) | st.integers(0, 4))
    elif name == "frames":
        data = bytearray(chunk.frames)
        for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4)):
            data[place] ^= draw(st.integers(1, 255))
        value = bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)
    else:
        kept = getattr(chunk, name)
        length = draw(st.sampled_from([len(kept), 0, 1, len(kept) + 1]))
        value = draw(arrays.arrays(INTEGERS.get(name, np.float32), length))
        if length == len(kept) and draw(st.booleans()):  # one other value alone
            value = np.where(np.arange(length) == draw(st.integers(0, length - 1)), value, kept)
    assume(as_bytes(value) != as_bytes(getattr(chunk, name)))
    return replace(chunk, **{name: value})


def as_bytes(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray) else str(value).encode()


def make_shard() -> ReplayShard:
    """With 20 transitions."""
    shard = ReplayShard(200, SPEC, 0.6, open_limiter(), np.random.SeedSequence(0))
    assert shard.insert(plain_chunk(SPEC, 20))
    return shard


@settings(max_examples=400)
@given(damaged_chunks())
def test_a_damaged_chunk_is_left_out_and_counted(chunk: Chunk) -> None:
    shard = make_shard()
    assert shard.insert(chunk)  # and so it is not sent again
    assert (shard.size, shard.stats().inserts, shard.stats().damaged_chunks) == (20, 20, 1)
    assert shard.check_valid() == (True, "")


@settings(max_examples=400)
@given(damaged_chunks())
def test_a_chunk_that_was_sealed_like_that_is_refused_or_can_be_sampled(chunk: Chunk) -> None:
    shard = make_shard()
    before = shard.size
    try:
        accepted = shard.insert(chunk.sealed())
    except ValueError:
        accepted = False
    assert shard.size == before + accepted * len(chunk)
    assert shard.check_valid() == (True, "")
    sample = shard.sample(30)
    assert sample is not None
    with contextlib.suppress(ValueError):  # corrupt frames
        states = decode_states([sample])
        assert max(states.s_tm1.max(), states.s_t.max()) < len(states.frames)
    shard.update_priorities(sample.ids, np.ones(30, np.float32))
