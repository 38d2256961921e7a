"""Pixels: the tutorials' arithmetic, and golden frames that pin them."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from actors.environment import make_environment
from actors.preprocessing import pool, preprocess
from tests.cores import needs_fceumm

GOLDEN = Path(__file__).parent / "data" / "frames-1-1.npz"
GOLDEN_SHA256 = "53463423d96ced1f054e3b64050d4e629c2629fbb89779a840a3db2adbba15ee"


def plainly(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The arithmetic in its plainest form, on the whole screen."""
    colours = screen.astype(np.float32)
    grey = sum(colours[..., i] * weight for i, weight in enumerate((0.299, 0.587, 0.114)))
    assert isinstance(grey, np.ndarray)
    assert grey.dtype == np.float32
    return cv2.resize(grey, (84, 110), interpolation=cv2.INTER_AREA)[18:102].astype(np.uint8)


def golden_frames(core: str) -> NDArray[np.uint8]:
    """Frames of World 1-1: the first and five later ones, uint8 [6, 84, 84]."""
    env = make_environment(core=core, noop_max=0)
    state, _ = env.reset()
    frames = [state[-1]]
    rng = np.random.default_rng(0)
    for step in range(1, 51):
        state, *_ = env.step(int(rng.integers(5)))
        if step % 10 == 0:
            frames.append(state[-1])
    return np.stack(frames)


@pytest.mark.parametrize("seed", range(20))
def test_every_bit_is_that_of_the_plain_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    screen = rng.integers(0, 256, (240, 256, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(screen), plainly(screen))
    blocks = rng.integers(0, 256, (15, 16, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(preprocess(blocks), plainly(blocks))


def test_white_is_truncated_not_rounded() -> None:
    assert set(np.unique(preprocess(np.full((240, 256, 3), 255, np.uint8)))) <= {254, 255}
    grey = preprocess(np.full((240, 256, 3), (1, 1, 0), np.uint8))  # 0.886
    assert (grey == 0).all()


def test_pooling_is_per_colour_channel_and_before_grey() -> None:
    red, blue = (np.full((240, 256, 3), colour, np.uint8) for colour in ((200, 0, 10), (0, 0, 250)))
    pooled = pool(red, blue)
    assert (pooled == (200, 0, 250)).all()
    assert preprocess(pooled)[0, 0] > max(preprocess(red)[0, 0], preprocess(blue)[0, 0])


@pytest.mark.parametrize("core", ["nes-py", pytest.param("fceumm", marks=needs_fceumm)])
def test_frames_of_world_1_1_are_the_golden_ones(core: str) -> None:
    frames = golden_frames(core)
    with np.load(GOLDEN) as golden:
        np.testing.assert_array_equal(frames, golden["frames"])
    assert hashlib.sha256(frames.tobytes()).hexdigest() == GOLDEN_SHA256
