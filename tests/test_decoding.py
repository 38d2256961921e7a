"""Samples of several shards become one batch's frames, each there once."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.compression import FRAMES_PER_BLOCK, blocks_for, compress_frames, decompress_block
from common.types import Chunk, EnvironmentSpec, ShardSample
from replay.decoding import decode_states
from replay.shard import ReplayShard
from tests.replay_chunks import episode_chunks, open_limiter, plain_chunk, random_frames, reference_state

SPEC = EnvironmentSpec((5, 6), 4, ("noop", "right"))


def draw(chunks: list[Chunk], n: int, seed: int = 0) -> ShardSample:
    """n transitions of a shard that holds these chunks."""
    shard = ReplayShard(1000, SPEC, 0.0, open_limiter(), np.random.SeedSequence(seed))
    for chunk in chunks:
        assert shard.insert(chunk)
    sample = shard.sample(n)
    assert sample is not None
    return sample


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    chunk_length=st.integers(1, 17),
    n_step=st.integers(1, 12),
)
def test_states_of_several_shards_are_those_of_their_episodes(
    lengths: list[int], chunk_length: int, n_step: int
) -> None:
    episodes = [random_frames(SPEC, length + 1, seed=i) for i, length in enumerate(lengths)]
    samples = [draw(list(episode_chunks(SPEC, frames, chunk_length, n_step)), 9, seed=5) for frames in episodes]
    states = decode_states(samples)
    for i, (frames, sample) in enumerate(zip(episodes, samples, strict=True)):
        for row, step in enumerate(sample.ids.tolist(), start=9 * i):
            end = min(step + n_step, lengths[i])
            np.testing.assert_array_equal(states.frames[states.s_tm1[row]], reference_state(SPEC, frames, step))
            np.testing.assert_array_equal(states.frames[states.s_t[row]], reference_state(SPEC, frames, end))


def test_each_frame_in_use_is_there_once_and_no_other_is() -> None:
    frames = random_frames(SPEC, 31, seed=1)
    sample = draw(list(episode_chunks(SPEC, frames, 50, 6)), 200)
    states = decode_states([sample])
    assert not states.frames[0].any()
    in_use = np.unique(np.concatenate([states.s_tm1, states.s_t]))
    np.testing.assert_array_equal(in_use, np.arange(len(states.frames)))
    assert len(np.unique(states.frames, axis=0)) == len(states.frames) <= 32


def test_frames_are_written_into_the_memory_that_is_given() -> None:
    made: list[NDArray[np.uint8]] = []

    def memory(shape: Sequence[int]) -> NDArray[np.uint8]:
        made.append(np.full(shape, 7, np.uint8))
        return made[-1]

    sample = draw(list(episode_chunks(SPEC, random_frames(SPEC, 31, seed=1), 50, 6)), 20)
    states = decode_states([sample], memory)
    assert states.frames is made[0]
    np.testing.assert_array_equal(states.frames, decode_states([sample]).frames)


def damaged(sample: ShardSample, blocks: list[bytes]) -> ShardSample:
    ends = np.cumsum([len(block) for block in blocks])
    return sample._replace(blocks=np.frombuffer(b"".join(blocks), np.uint8), block_ends=ends)


def blocks_of(frames: NDArray[np.uint8]) -> list[bytes]:
    return [compress_frames(list(frames[i : i + FRAMES_PER_BLOCK]))[0] for i in range(0, len(frames), FRAMES_PER_BLOCK)]


def test_damaged_blocks_are_refused() -> None:
    frames = random_frames(SPEC, 8, seed=1)
    sample = draw([plain_chunk(SPEC, 7, seed=1)], 30)
    first, second = blocks_of(frames)
    decode_states([damaged(sample, [first, second])])
    for blocks, reason in (
        ([first, second[:-9]], "corrupt frames"),
        ([first, blocks_of(frames[:, :4])[1]], "are no number of frames of 30"),
        ([first, blocks_of(frames[4:7])[0]], "a block of 3 where 4 are needed"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode_states([damaged(sample, blocks)])


@given(st.integers(1, 30))
def test_frames_survive_compression(count: int) -> None:
    frames = random_frames(SPEC, count, seed=count)
    data, ends = compress_frames(list(frames))
    assert len(ends) == blocks_for(count)
    assert ends.dtype == np.int32
    blocks = [decompress_block(data[a:b], 30) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    np.testing.assert_array_equal(np.concatenate(blocks).reshape(-1, 5, 6), frames)


@given(data=st.data())
def test_a_block_with_any_byte_changed_or_missing_is_refused(data: st.DataObject) -> None:
    block, _ = compress_frames(list(random_frames(SPEC, 4, seed=3)))
    damage = data.draw(st.sampled_from(("change", "cut", "add", "replace")))
    if damage == "change":
        place = data.draw(st.integers(0, len(block) - 1))
        changed = block[:place] + bytes([block[place] ^ data.draw(st.integers(1, 255))]) + block[place + 1 :]
    elif damage == "cut":
        changed = block[: data.draw(st.integers(0, len(block) - 1))]
    elif damage == "add":
        changed = block + data.draw(st.binary(min_size=1, max_size=9))
    else:
        changed = data.draw(st.binary(max_size=200))
    with pytest.raises(ValueError, match="corrupt frames"):
        decompress_block(changed, 30)


def test_a_block_larger_than_it_may_be_is_refused() -> None:
    data, _ = compress_frames([np.zeros(30 * FRAMES_PER_BLOCK + 30, np.uint8)])
    with pytest.raises(ValueError, match="corrupt frames"):
        decompress_block(data, 30)


def test_decoding_leaves_the_sample_alone() -> None:
    sample = draw([plain_chunk(SPEC, 7, seed=1)], 30)
    before = sample._replace(s_tm1=sample.s_tm1.copy(), s_t=sample.s_t.copy())
    decode_states([sample, sample])
    np.testing.assert_array_equal(sample.s_tm1, before.s_tm1)
    np.testing.assert_array_equal(sample.s_t, before.s_t)
