"""Lossless compression of single frames, as they travel in chunks and lie in the replay."""

from collections.abc import Sequence

import lz4.block
import numpy as np
from numpy.typing import NDArray


def compress_frame(frame: NDArray[np.uint8]) -> bytes:
    """One `uint8` frame of any shape as an lz4 block without a size header."""
    compressed: bytes = lz4.block.compress(np.ascontiguousarray(frame), store_size=False)
    return compressed


def decompress_frame(data: bytes | memoryview, out: NDArray[np.uint8]) -> None:
    """Writes one frame into `out`, a contiguous array of the frame's shape.

    Raises:
        ValueError: the data is not a frame of that many bytes.
    """
    try:
        raw = lz4.block.decompress(data, uncompressed_size=out.nbytes)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(f"corrupt frame: {error}") from error
    if len(raw) != out.nbytes:
        raise ValueError(f"corrupt frame: {len(raw)} bytes instead of {out.nbytes}")
    out.reshape(-1)[:] = np.frombuffer(raw, np.uint8)


def join_frames(frames: Sequence[bytes]) -> tuple[bytes, NDArray[np.int32]]:
    """Compressed frames as one block of bytes and the int32 [M] positions where each ends."""
    ends = np.cumsum([len(frame) for frame in frames], dtype=np.int32)
    return b"".join(frames), ends
