"""Compressed frames in whole chunks, first in, first out."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.compression import FRAMES_PER_BLOCK
from common.types import Chunk, EnvironmentSpec
from replay.snapshot import Tables

_PER_CHUNK_BYTES = 160
"""A chunk's tuple, its dictionary entry and boxed integers, beside the blocks and their ends."""

_BLOCK_BITS = 32
"""Low bits of a block's key that hold its place in its chunk; those above count chunks from the oldest on."""


class CompressedStates(NamedTuple):
    """The states of n transitions; see `common.types.ShardSample`."""

    blocks: NDArray[np.uint8]
    block_ends: NDArray[np.int64]  # [K]
    s_tm1: NDArray[np.int32]  # [n, S]
    s_t: NDArray[np.int32]  # [n, S]


class _StoredChunk(NamedTuple):
    frames: bytes
    ends: NDArray[np.int32]  # [K], of its blocks
    first_state: int
    first_sequence: int
    length: int


class FrameStore:
    """The frames of the chunks that a shard holds, each chunk under a serial number that is never reused.

    Args:
        spec: the environment's; gives the frame shape F and the stack S.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        self._spec = spec
        self._chunks: dict[int, _StoredChunk] = {}
        self._first_serial = 0
        self._next_serial = 0
        self._nbytes = 0

    def __len__(self) -> int:
        """Chunks held."""
        return len(self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes of all chunks, Python's overhead included."""
        return self._nbytes

    @property
    def transitions(self) -> int:
        """Transitions in the chunks held."""
        return sum(chunk.length for chunk in self._chunks.values())

    @property
    def oldest_length(self) -> int:
        """Transitions in the oldest chunk."""
        return self._chunks[self._first_serial].length

    def append(self, chunk: Chunk, first_sequence: int) -> int:
        """Copies a chunk's frames into this store's own memory.

        Args:
            chunk: a valid chunk.
            first_sequence: sequence number of its first transition.

        Returns:
            The chunk's serial number.
        """
        serial = self._next_serial
        own = _StoredChunk(
            bytes(chunk.frames), np.array(chunk.block_ends, np.int32), chunk.first_state, first_sequence, len(chunk)
        )
        self._chunks[serial] = own
        self._next_serial += 1
        self._nbytes += _chunk_bytes(own)
        return serial

    def snapshot(self) -> tuple[dict[str, NDArray[np.int32]], list[bytes]]:
        """The chunks' tables, by the names of `replay.snapshot.Tables`, and their frames, oldest first."""
        chunks = list(self._chunks.values())
        ends = [chunk.ends for chunk in chunks]
        tables = {
            "length": np.array([chunk.length for chunk in chunks], np.int32),
            "first_state": np.array([chunk.first_state for chunk in chunks], np.int32),
            "num_blocks": np.array([len(each) for each in ends], np.int32),
            "block_ends": np.concatenate([*ends, np.zeros(0, np.int32)]),
        }
        return tables, [chunk.frames for chunk in chunks]

    def restore(self, tables: Tables, frames: Sequence[bytes], first_sequence: int) -> NDArray[np.int64]:
        """Holds these chunks instead of its own; returns each chunk's serial number, int64 [C].

        Args:
            tables: see there.
            frames: of each chunk, oldest first.
            first_sequence: sequence number of the first chunk's first transition.
        """
        ends = np.split(tables.block_ends, np.cumsum(tables.num_blocks))[:-1]
        firsts = first_sequence + np.cumsum(tables.length, dtype=np.int64) - tables.length
        self._chunks = {
            serial: _StoredChunk(data, own_ends.copy(), first_state, first, length)
            for serial, (data, own_ends, first_state, first, length) in enumerate(
                zip(frames, ends, tables.first_state.tolist(), firsts.tolist(), tables.length.tolist(), strict=True)
            )
        }
        self._first_serial, self._next_serial = 0, len(frames)
        self._nbytes = sum(_chunk_bytes(chunk) for chunk in self._chunks.values())
        return np.arange(len(frames))

    def evict_oldest(self) -> None:
        """Forgets the oldest chunk."""
        self._nbytes -= _chunk_bytes(self._chunks.pop(self._first_serial))
        self._first_serial += 1

    def read_states(
        self, serials: NDArray[np.integer], sequences: NDArray[np.int64], steps: NDArray[np.uint8]
    ) -> CompressedStates:
        """The frames of n transitions' states, still compressed, each block of frames once.

        Args:
            serials: [n], the transitions' chunks.
            sequences: int64 [n], their sequence numbers.
            steps: uint8 [n], from s_tm1 to s_t.
        """
        held = [self._chunks[serial] for serial in serials.tolist()]
        s_tm1 = sequences + np.array([chunk.first_state - chunk.first_sequence for chunk in held])  # newest frame, [n]
        newest = np.stack([s_tm1, s_tm1 + steps])  # [2, n]
        positions = newest[..., None] + np.arange(1 - self._spec.frame_stack, 1)  # in the chunk, [2, n, S]
        block, place = np.divmod(np.maximum(positions, 0), FRAMES_PER_BLOCK)
        keys = (serials.astype(np.int64) - self._first_serial)[:, None] << _BLOCK_BITS | block  # [2, n, S]
        wanted, index = np.unique(keys, return_inverse=True)
        blocks = [self._block(key) for key in wanted.tolist()]
        numbers = index.reshape(keys.shape) * FRAMES_PER_BLOCK + place
        numbers[positions < 0] = -1
        return CompressedStates(
            blocks=np.frombuffer(b"".join(blocks), np.uint8),
            block_ends=np.cumsum([len(data) for data in blocks]),
            s_tm1=numbers[0].astype(np.int32),
            s_t=numbers[1].astype(np.int32),
        )

    def check_valid(self) -> tuple[bool, str]:
        """Whether the store is consistent, and if not, why."""
        if list(self._chunks) != list(range(self._first_serial, self._next_serial)):
            return False, "the chunks' serial numbers have gaps"
        if self._nbytes != sum(_chunk_bytes(chunk) for chunk in self._chunks.values()):
            return False, "the number of bytes is wrong"
        if not all(chunk.ends.flags.owndata for chunk in self._chunks.values()):
            return False, "a chunk's memory belongs to someone else"
        chunks = list(self._chunks.values())
        if any(b.first_sequence != a.first_sequence + a.length for a, b in pairwise(chunks)):
            return False, "the chunks' sequence numbers have gaps"
        return True, ""

    def _block(self, key: int) -> bytes:
        chunk = self._chunks[self._first_serial + (key >> _BLOCK_BITS)]
        place = key & ((1 << _BLOCK_BITS) - 1)
        start = int(chunk.ends[place - 1]) if place else 0
        return chunk.frames[start : int(chunk.ends[place])]


def _chunk_bytes(chunk: _StoredChunk) -> int:
    return sys.getsizeof(chunk.frames) + sys.getsizeof(chunk.ends) + _PER_CHUNK_BYTES
