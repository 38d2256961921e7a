"""Raw frames to the 84x84 grey ones that the network sees, with the tutorials' exact arithmetic.

The arithmetic is that of the Super Mario notebooks that this project started from, and of Lapan's `wrappers.py` before
them: float32 grey, `INTER_AREA` to 84 x 110, rows 18 to 101, truncation to bytes.
"""

import functools
from typing import Final

import cv2
import numpy as np
from nes_py.wrappers import JoypadSpace
from numpy.typing import NDArray

from common.types import BUTTON_PIXELS

FRAME_SHAPE: Final = (84, 84)
SCREEN_ROWS: Final = slice(39, 223)
"""The rows of the screen, of 240, that reach the network: the resized rows 18 … 101 cover 39.3 … 222.5."""

_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)

_SHOWN_BUTTONS: Final = ("A", "B", "up", "down", "left", "right")

# 240 x 256 pixels become 110 x 84, 24 rows 11: the first 24 rows do not matter to the rows kept, and can be left out
# without moving any other.
_LEFT_OUT, _SMALL_LEFT_OUT = 24, 11
_SMALL: Final = (84, 110 - _SMALL_LEFT_OUT)  # width, height
_CROP: Final = slice(18 - _SMALL_LEFT_OUT, 102 - _SMALL_LEFT_OUT)


class Canvas:
    """Room for one grey screen; arrays of this size are slow to allocate.

    Attributes:
        rows: float32 [184, 256], the grey screen's `SCREEN_ROWS`, to be written before `shrink`.
    """

    def __init__(self) -> None:
        self._grey = np.zeros((240 - _LEFT_OUT, 256), np.float32)
        self.rows = self._grey[SCREEN_ROWS.start - _LEFT_OUT : SCREEN_ROWS.stop - _LEFT_OUT]

    def shrink(self) -> NDArray[np.uint8]:
        """The grey screen as the network sees it: uint8 [84, 84], a new array."""
        small = cv2.resize(self._grey, _SMALL, interpolation=cv2.INTER_AREA)
        return np.asarray(small[_CROP].astype(np.uint8))


def weigh_colours(colours: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Grey of RGB colours, uint8 [H, W, 3], into float32 [H, W]."""
    red, green, blue = cv2.split(colours)
    np.multiply(red, _RED, out=out, dtype=np.float32)
    # In the tutorials' order: float32 addition is not associative, and the last bit decides a truncation.
    for plane, weight in ((green, _GREEN), (blue, _BLUE)):
        out += plane * weight


def pool(previous: NDArray[np.uint8], newest: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The maximum, per colour channel, of two raw frames: sprites that flicker are in one of the two.

    Args:
        previous: RGB, uint8 [240, 256, 3].
        newest: the same.

    Returns:
        uint8 [240, 256, 3].
    """
    return np.maximum(previous, newest)


def preprocess(screen: NDArray[np.uint8], canvas: Canvas | None = None) -> NDArray[np.uint8]:
    """A raw frame as the network sees it.

    Args:
        screen: RGB, uint8 [240, 256, 3].
        canvas: overwritten; a new one if not given.

    Returns:
        Grey, uint8 [84, 84], a new array.
    """
    canvas = canvas or Canvas()
    weigh_colours(screen[SCREEN_ROWS], canvas.rows)
    return canvas.shrink()


def show_buttons(frame: NDArray[np.uint8], held: int) -> None:
    """Draws the buttons that are held into a frame: squares in its upper left corner, white if pressed, else black.

    From left to right A, B, up, down, left, right. Mario jumps again only once A was let go, which no picture of him
    shows: without this an agent may stand before a step for ever, holding A.

    Args:
        frame: grey, uint8 [84, 84]; changed in place.
        held: the controller's byte.
    """
    squares = _squares(held)
    frame[:BUTTON_PIXELS, : len(squares)] = squares


@functools.cache
def _squares(held: int) -> NDArray[np.uint8]:
    """One row of pixels."""
    bits = [JoypadSpace._button_map[button] for button in _SHOWN_BUTTONS]
    return np.array([255 if held & bit else 0 for bit in bits], np.uint8).repeat(BUTTON_PIXELS)
