"""Batches of random transitions for the learner's tests."""

import numpy as np

from common.types import Batch, EnvironmentSpec

VECTOR_SPEC = EnvironmentSpec(frame_shape=(6,), frame_stack=2, action_names=("a", "b", "c"))
MARIO_SPEC = EnvironmentSpec(frame_shape=(84, 84), frame_stack=4, action_names=tuple("abcdefg"))


def random_batch(spec: EnvironmentSpec, seed: int, size: int = 16) -> Batch:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (1 + 2 * size * spec.frame_stack, *spec.frame_shape), np.uint8)
    frames[0] = 0
    return Batch(
        frames=frames,
        s_tm1=rng.integers(0, len(frames), (size, spec.frame_stack), np.int32),
        a_tm1=rng.integers(0, spec.num_actions, size),
        r_t=rng.normal(size=size).astype(np.float32),
        discount_t=rng.choice([0.0, 0.9, 0.81], size).astype(np.float32),
        s_t=rng.integers(0, len(frames), (size, spec.frame_stack), np.int32),
        weight=rng.uniform(0.1, 1.0, size).astype(np.float32),
        ids=np.arange(size),
        shard=np.zeros(size, np.int32),
        weight_version=np.zeros(size, np.int32),
    )
