"""Frames come back as the very states that the actor saw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.compression import FRAMES_PER_BLOCK, decompress_block
from common.types import Chunk, EnvironmentSpec
from replay.frame_store import FrameStore
from tests.replay_chunks import episode_chunks, random_frames, reference_state

SPEC = EnvironmentSpec((5, 6), 4, ("noop", "right"))


def read(store: FrameStore, serial: int, sequence: int, later: int) -> NDArray[np.uint8]:
    """The state `later` steps after the start of a transition, uint8 [S, *F]."""
    states = store.read_states(np.array([serial]), np.array([sequence]), np.array([later], np.uint8))
    blocks = [
        decompress_block(states.blocks[start:end].tobytes(), 5 * 6)
        for start, end in zip([0, *states.block_ends[:-1]], states.block_ends, strict=True)
    ]
    known = {k * FRAMES_PER_BLOCK + i: frame for k, block in enumerate(blocks) for i, frame in enumerate(block)}
    zeros = np.zeros(5 * 6, np.uint8)
    state = [zeros if number == -1 else known[number] for number in states.s_t[0].tolist()]
    return np.stack(state).reshape(SPEC.state_shape)


@settings(deadline=None)
@given(length=st.integers(1, 40), chunk_length=st.integers(1, 17), n_step=st.integers(1, 6), offset=st.integers(0, 999))
def test_every_state_of_an_episode_round_trips(length: int, chunk_length: int, n_step: int, offset: int) -> None:
    frames = random_frames(SPEC, length + 1, seed=length)
    store = FrameStore(SPEC)
    sequence = offset
    step = 0
    for chunk in episode_chunks(SPEC, frames, chunk_length, n_step):
        serial = store.append(chunk, sequence)
        for j, steps in enumerate(chunk.steps.tolist()):
            np.testing.assert_array_equal(read(store, serial, sequence + j, 0), reference_state(SPEC, frames, step))
            later = read(store, serial, sequence + j, steps)
            np.testing.assert_array_equal(later, reference_state(SPEC, frames, min(step + n_step, length)))
            step += 1
        sequence += len(chunk)
    assert step == length
    assert store.transitions == length
    assert store.check_valid() == (True, "")


def test_states_at_the_start_of_an_episode_are_padded_with_zeros() -> None:
    frames = random_frames(SPEC, 9, seed=3)
    store = FrameStore(SPEC)
    (chunk,) = episode_chunks(SPEC, frames, chunk_length=50, n_step=2)
    serial = store.append(chunk, 0)
    first = read(store, serial, 0, 0)
    assert not first[:3].any()
    np.testing.assert_array_equal(first[3], frames[0])
    third = read(store, serial, 2, 0)
    assert not third[:1].any()
    np.testing.assert_array_equal(third[1:], frames[:3])


def test_a_block_that_several_states_need_is_there_once() -> None:
    frames = random_frames(SPEC, 20, seed=4)
    store = FrameStore(SPEC)
    (chunk,) = episode_chunks(SPEC, frames, chunk_length=50, n_step=1)
    serial = store.append(chunk, 0)
    states = store.read_states(np.full(3, serial), np.array([10, 9, 10]), np.ones(3, np.uint8))
    assert len(states.block_ends) == 2  # frames 6 … 11 are in the blocks 1 and 2
    assert states.blocks.tobytes() == chunk.frames[chunk.block_ends[0] : chunk.block_ends[2]]
    assert states.s_tm1.tolist() == [[3, 4, 5, 6], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert states.s_t.tolist() == [[4, 5, 6, 7], [3, 4, 5, 6], [4, 5, 6, 7]]


def test_the_store_owns_its_memory_and_counts_it() -> None:
    frames = random_frames(SPEC, 12, seed=5)
    (chunk,) = episode_chunks(SPEC, frames, chunk_length=50, n_step=3)
    borrowed = np.concatenate([chunk.block_ends, chunk.block_ends])[: len(chunk.block_ends)]
    view = Chunk(**(vars(chunk) | {"frames": memoryview(bytearray(chunk.frames)), "block_ends": borrowed}))
    store = FrameStore(SPEC)
    serial = store.append(view, 0)
    before = read(store, serial, 5, 3)
    view.frames[:] = bytes(len(view.frames))  # type: ignore[index]
    borrowed[:] = 0
    np.testing.assert_array_equal(read(store, serial, 5, 3), before)
    assert store.nbytes > len(chunk.frames) + 4 * len(chunk.block_ends)
    store.evict_oldest()
    assert (len(store), store.nbytes, store.transitions) == (0, 0, 0)


def test_eviction_takes_the_oldest_chunk() -> None:
    store = FrameStore(SPEC)
    frames = random_frames(SPEC, 31, seed=6)
    chunks = list(episode_chunks(SPEC, frames, chunk_length=10, n_step=2))
    serials = [store.append(chunk, 10 * i) for i, chunk in enumerate(chunks)]
    store.evict_oldest()
    assert store.check_valid() == (True, "")
    np.testing.assert_array_equal(read(store, serials[1], 14, 0), reference_state(SPEC, frames, 14))
    with pytest.raises(KeyError):
        read(store, serials[0], 4, 0)


def test_check_valid_finds_damage() -> None:
    store = FrameStore(SPEC)
    for i, chunk in enumerate(episode_chunks(SPEC, random_frames(SPEC, 31, seed=6), chunk_length=10, n_step=2)):
        store.append(chunk, 11 * i)
    assert store.check_valid() == (False, "the chunks' sequence numbers have gaps")
