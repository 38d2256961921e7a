"""Chunks for the replay's tests, cut from frames in the plainest way."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.compression import compress_frames, decompress_block
from common.types import Chunk, EnvironmentSpec
from replay.rate_limiter import RateLimiter

GAMMA = 0.9


def random_frames(spec: EnvironmentSpec, count: int, seed: int) -> NDArray[np.uint8]:
    """Incompressible frames without zeros, uint8 [count, *F]."""
    return np.random.default_rng(seed).integers(1, 256, (count, *spec.frame_shape), np.uint8)


def reference_state(spec: EnvironmentSpec, frames: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The state at a step of an episode whose frames these are, uint8 [S, *F]."""
    padding = np.zeros((spec.frame_stack - 1, *spec.frame_shape), np.uint8)
    return np.concatenate([padding, frames])[step : step + spec.frame_stack]


def episode_chunks(
    spec: EnvironmentSpec,
    frames: NDArray[np.uint8],
    chunk_length: int,
    n_step: int,
    *,
    priority: float = 1.0,
    first_action: int = 0,
) -> Iterator[Chunk]:
    """A whole episode that terminates at its last frame. Transition t has the reward t and the weight version t."""
    length = len(frames) - 1
    for start in range(0, length, chunk_length):
        steps_of_chunk = np.arange(start, min(start + chunk_length, length))
        first_frame = max(0, start - (spec.frame_stack - 1))
        last_frame = min(int(steps_of_chunk[-1]) + n_step, length)
        data, ends = compress_frames(list(frames[first_frame : last_frame + 1]))
        windows = np.minimum(n_step, length - steps_of_chunk)
        t = len(steps_of_chunk)
        unsealed = Chunk(
            frames=data,
            block_ends=ends,
            first_state=start - first_frame,
            a_tm1=((first_action + steps_of_chunk) % spec.num_actions).astype(np.int32),
            r_t=steps_of_chunk.astype(np.float32),
            discount_t=np.where(steps_of_chunk + n_step >= length, 0, GAMMA**windows).astype(np.float32),
            steps=windows.astype(np.uint8),
            priority=np.full(t, priority, np.float32),
            weight_version=steps_of_chunk.astype(np.int32),
            actor=0,
        )
        yield unsealed.sealed()


def chunk_frames(chunk: Chunk, frame_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """All frames of a chunk, uint8 [M, *F]."""
    starts = [0, *chunk.block_ends[:-1].tolist()]
    blocks = [
        decompress_block(chunk.frames[start:end], math.prod(frame_shape))
        for start, end in zip(starts, chunk.block_ends.tolist(), strict=True)
    ]
    return np.concatenate(blocks).reshape(-1, *frame_shape)


def plain_chunk(spec: EnvironmentSpec, length: int, *, priority: float = 1.0, seed: int = 0) -> Chunk:
    """One chunk that is a whole episode of that length, with one-step windows."""
    frames = random_frames(spec, length + 1, seed)
    (chunk,) = episode_chunks(spec, frames, length, 1, priority=priority)
    return chunk


def open_limiter(max_insert: int = 100, max_sample: int = 4096, min_size: int = 1) -> RateLimiter:
    """A limiter that refuses nothing once `min_size` is reached."""
    return RateLimiter(1.0, min_size, 1e12, max_insert, max_sample)
