"""From the compressed blocks that shards answer with to the frames of a batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.compression import FRAMES_PER_BLOCK, decompress_block
from common.types import ShardSample

FrameMemory = Callable[[Sequence[int]], NDArray[np.uint8]]
"""Makes an array of a shape for a batch's frames; what is in it does not matter."""


def ordinary_memory(shape: Sequence[int]) -> NDArray[np.uint8]:
    """The process's own."""
    return np.empty(shape, np.uint8)


class DecodedStates(NamedTuple):
    """A batch's frames, each once, and its states as rows of them; see `common.types.Batch`."""

    frames: NDArray[np.uint8]  # [M, *F], row 0 is all zeros
    s_tm1: NDArray[np.int32]  # [B, S]
    s_t: NDArray[np.int32]  # [B, S]


def decode_states(samples: Sequence[ShardSample], memory: FrameMemory = ordinary_memory) -> DecodedStates:
    """Expands the frames that the samples' states consist of, and no others.

    It may run in any thread; lz4 lets go of Python's lock while it expands a block.

    Args:
        samples: what shards answered.
        memory: where the frames are written.

    Raises:
        ValueError: a frame is corrupt or missing.
    """
    shape = samples[0].frame_shape
    wanted = [_wanted_frames(sample) for sample in samples]
    ends = 1 + np.cumsum([len(numbers) for numbers in wanted])
    frames = memory((ends[-1], *shape))
    frames[0] = 0
    flat = frames.reshape(len(frames), -1)
    s_tm1, s_t = [], []
    for sample, numbers, end in zip(samples, wanted, ends.tolist(), strict=True):
        start = end - len(numbers)
        _expand(sample, numbers, flat[start:end])
        row = np.zeros(FRAMES_PER_BLOCK * len(sample.block_ends) + 1, np.int32)  # by frame number; -1 is the last one
        row[numbers] = np.arange(start, end)
        s_tm1.append(row[sample.s_tm1])
        s_t.append(row[sample.s_t])
    return DecodedStates(frames, np.concatenate(s_tm1), np.concatenate(s_t))


def _wanted_frames(sample: ShardSample) -> NDArray[np.int64]:
    """The numbers of all frames in use, ascending."""
    used = np.zeros(FRAMES_PER_BLOCK * len(sample.block_ends) + 1, bool)
    used[sample.s_tm1] = True
    used[sample.s_t] = True
    return np.flatnonzero(used[:-1])


def _expand(sample: ShardSample, numbers: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Writes the frames of these numbers, ascending, into `out`, uint8 [frames, frame bytes]."""
    data = sample.blocks.data
    ends = [0, *sample.block_ends.tolist()]
    # Frames that follow each other in one block are copied at once.
    breaks = np.flatnonzero((np.diff(numbers) != 1) | (numbers[1:] % FRAMES_PER_BLOCK == 0)) + 1
    starts, stops = [0, *breaks.tolist()], [*breaks.tolist(), len(numbers)]
    opened, block = -1, out[:0]
    for start, stop, number in zip(starts, stops, numbers[starts].tolist(), strict=True):
        index, place = divmod(number, FRAMES_PER_BLOCK)
        if index != opened:
            opened, block = index, decompress_block(data[ends[index] : ends[index + 1]], out.shape[1])
        if place + stop - start > len(block):
            raise ValueError(f"corrupt frames: a block of {len(block)} where {place + stop - start} are needed")
        out[start:stop] = block[place : place + stop - start]
