"""Lossless compression of consecutive frames, as they travel in chunks and samples and lie in the replay.

Frames are packed in blocks of `FRAMES_PER_BLOCK`: what a frame shares with those before it costs little, while a state
of four frames is still read from two blocks at most. docs/performance.md compares block sizes and codecs. Each block
ends with a checksum: most damaged lz4 data still decompresses, to other frames.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import lz4.block
import numpy as np
from numpy.typing import NDArray

FRAMES_PER_BLOCK: Final = 4
"""Frames in each block but a chunk's last, which may have fewer."""

_CHECKSUM: Final = struct.Struct("<I")  # CRC-32 of what is before it

_LZ4_HC_LEVEL: Final = 3
"""The fastest level of lz4's thorough mode: smaller and faster to read than its fast mode, slower to write."""


def compress_frames(frames: Sequence[NDArray[np.uint8]]) -> tuple[bytes, NDArray[np.int32]]:
    """Consecutive `uint8` frames of one shape as lz4 blocks without size headers, each with its checksum.

    Returns:
        The K blocks one after the other, and int32 [K], where each ends.
    """
    starts = range(0, len(frames), FRAMES_PER_BLOCK)
    blocks = [_compress(np.stack(frames[start : start + FRAMES_PER_BLOCK])) for start in starts]
    return b"".join(blocks), np.cumsum([len(block) for block in blocks], dtype=np.int32)


def decompress_block(data: bytes | memoryview, frame_bytes: int) -> NDArray[np.uint8]:
    """The 1 … FRAMES_PER_BLOCK frames of one block, uint8 [frames, frame_bytes], read-only.

    Raises:
        ValueError: the data is not a block of frames of that many bytes.
    """
    if not is_intact(data):
        raise ValueError("corrupt frames: the checksum is wrong")
    try:
        raw = lz4.block.decompress(data[: -_CHECKSUM.size], uncompressed_size=FRAMES_PER_BLOCK * frame_bytes)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(f"corrupt frames: {error}") from error
    if not raw or len(raw) % frame_bytes:
        raise ValueError(f"corrupt frames: {len(raw)} bytes are no number of frames of {frame_bytes}")
    return np.frombuffer(raw, np.uint8).reshape(-1, frame_bytes)


def is_intact(data: bytes | memoryview) -> bool:
    """Whether a block's checksum is right; its frames are not decompressed."""
    end = len(data) - _CHECKSUM.size
    return end >= 0 and zlib.crc32(data[:end]) == int.from_bytes(data[end:], "little")


def blocks_for(frames: int) -> int:
    """Blocks that hold so many frames."""
    return -(-frames // FRAMES_PER_BLOCK)


def _compress(frames: NDArray[np.uint8]) -> bytes:
    data: bytes = lz4.block.compress(frames, store_size=False, mode="high_compression", compression=_LZ4_HC_LEVEL)
    return data + _CHECKSUM.pack(zlib.crc32(data))
