"""Ways to compress frames, on the benchmarks' recordings: bytes and time for each.

    python -m benchmarks.replay_codecs --recordings FILE

An actor writes each frame once (1.1 times with the chunks' overlap); the learner reads a sample's two states, which are
`_FRAMES_PER_SAMPLE` consecutive frames, from all blocks that they touch.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import lz4.block
import numpy as np
from numpy.typing import NDArray

from benchmarks.replay_frames import load

_FRAMES_PER_SAMPLE: Final = 9  # stack 4, n-step 5: the frames t - 3 … t and t + 2 … t + 5
_FRAME_BYTES: Final = 84 * 84
_BLOCK_SIZES: Final = (1, 2, 4, 8)
_FRAMES_PER_CHUNK: Final = 88
_CHUNKS: Final = 60
_ROUNDS: Final = 3

Write = Callable[[NDArray[np.uint8]], bytes]
Read = Callable[[bytes], bytes]


def codecs() -> dict[str, tuple[Write, Read]]:
    """By name; zstd only where the package `zstandard` is installed."""
    found: dict[str, tuple[Write, Read]] = {"lz4": (lambda frames: _lz4(frames), _read_lz4)}
    for level in (3, 9, 12):
        found[f"lz4 HC {level}"] = (_lz4_thorough(level), _read_lz4)
    try:
        import zstandard
    except ModuleNotFoundError:
        return found
    for level in (-1, 1, 3):
        found[f"zstd {level}"] = _zstd(zstandard, level)
    return found


def _zstd(package: Any, level: int) -> tuple[Write, Read]:
    """`package`: zstandard, whose types are only known where it is installed."""
    return package.ZstdCompressor(level).compress, package.ZstdDecompressor().decompress


def _lz4(frames: NDArray[np.uint8], **options: Any) -> bytes:
    data: bytes = lz4.block.compress(frames, store_size=False, **options)
    return data


def _lz4_thorough(level: int) -> Write:
    return lambda frames: _lz4(frames, mode="high_compression", compression=level)


def _read_lz4(data: bytes) -> bytes:
    raw: bytes = lz4.block.decompress(data, uncompressed_size=max(_BLOCK_SIZES) * _FRAME_BYTES)
    return raw


def measure(write: Write, read: Read, block: int, chunks: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Bytes per frame and microseconds, of CPU, per frame written, per frame read and per sample read."""
    parts = [np.ascontiguousarray(chunk[i : i + block]) for chunk in chunks for i in range(0, len(chunk), block)]
    frames = sum(len(part) for part in parts)
    started = time.process_time()
    data = [write(part) for part in parts]
    write_us = (time.process_time() - started) / frames * 1e6
    assert all(read(blob) == part.tobytes() for blob, part in zip(data, parts, strict=True))
    rounds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        for blob in data:
            read(blob)
        rounds.append((time.process_time() - started) / frames * 1e6)
    touched = _FRAMES_PER_SAMPLE - 1 + block if block > 1 else _FRAMES_PER_SAMPLE - 1  # single frames: none between
    return {
        "bytes_per_frame": sum(map(len, data)) / frames,
        "write_us_per_frame": write_us,
        "read_us_per_frame": min(rounds),
        "read_us_per_sample": min(rounds) * touched,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay_codecs", description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="what benchmarks.replay --recordings wrote")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args(argv)
    chunks = [
        recording.frames[start : start + _FRAMES_PER_CHUNK]
        for recording in load(options.recordings)
        for start in range(0, len(recording.actions), _FRAMES_PER_CHUNK)
    ]
    chosen = [chunks[i] for i in np.random.default_rng(1).permutation(len(chunks))[:_CHUNKS]]
    figures = {
        name: {block: measure(write, read, block, chosen) for block in _BLOCK_SIZES}
        for name, (write, read) in codecs().items()
    }
    print(json.dumps(figures, indent=2) if options.json else _table(figures))
    return 0


def _table(figures: dict[str, dict[int, dict[str, float]]]) -> str:
    lines = ["| codec | frames per block | bytes/frame | write, µs/frame | read, µs/frame | read, µs/sample |"]
    lines.append("|---|---|---|---|---|---|")
    for name, blocks in figures.items():
        for block, row in blocks.items():
            size, write, each, sample = row.values()
            lines.append(f"| {name} | {block} | {size:,.0f} | {write:.1f} | {each:.2f} | {sample:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
