"""Compressed frames in whole chunks, first in, first out, from which states are stacked."""

import sys
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.compression import decompress_frame
from common.types import Chunk, EnvironmentSpec

_PER_CHUNK_BYTES = 160
"""A chunk's tuple, its dictionary entry and boxed integers, beside the frames and their ends."""

KnownFrames = dict[tuple[int, int], NDArray[np.uint8]]
"""Decompressed frames of one draw by (chunk serial, frame position)."""


class _StoredChunk(NamedTuple):
    frames: bytes
    ends: NDArray[np.int32]  # [M]
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
            bytes(chunk.frames), np.array(chunk.frame_ends, np.int32), chunk.first_state, first_sequence, len(chunk)
        )
        self._chunks[serial] = own
        self._next_serial += 1
        self._nbytes += _chunk_bytes(own)
        return serial

    def evict_oldest(self) -> None:
        """Forgets the oldest chunk."""
        self._nbytes -= _chunk_bytes(self._chunks.pop(self._first_serial))
        self._first_serial += 1

    def read_state(self, serial: int, sequence: int, later: int, out: NDArray[np.uint8], known: KnownFrames) -> None:
        """Stacks one state, with zeros for the frames before the episode's first.

        Args:
            serial: the chunk.
            sequence: sequence number of the transition.
            later: how many steps after the transition's start the state is.
            out: contiguous uint8 [S, *F], overwritten.
            known: frames that this draw has decompressed already; new ones are added.
        """
        chunk = self._chunks[serial]
        newest = chunk.first_state + (sequence - chunk.first_sequence) + later
        stack = self._spec.frame_stack
        for position, index in enumerate(range(newest - stack + 1, newest + 1)):
            if index < 0:
                out[position] = 0
            elif (serial, index) in known:
                out[position] = known[serial, index]
            else:
                start = int(chunk.ends[index - 1]) if index else 0
                decompress_frame(memoryview(chunk.frames)[start : int(chunk.ends[index])], out[position])
                known[serial, index] = out[position]

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


def _chunk_bytes(chunk: _StoredChunk) -> int:
    return sys.getsizeof(chunk.frames) + sys.getsizeof(chunk.ends) + _PER_CHUNK_BYTES
