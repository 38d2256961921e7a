"""Raw frames to the 84x84 grey ones that the network sees, with the tutorials' exact arithmetic.

The arithmetic is that of the Super Mario notebooks that this project started from, and of Lapan's `wrappers.py` before
them: float32 grey, `INTER_AREA` to 84 x 110, rows 18 to 101, truncation to bytes.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

FRAME_SHAPE: Final = (84, 84)
_RESIZED: Final = (84, 110)  # width, height
_CROP: Final = slice(18, 102)  # of the resized rows
# The resized rows 18 … 101 cover the rows 39.3 … 222.5 of the screen: no other needs to be made grey.
_SOURCE: Final = slice(39, 223)
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)


def pool(previous: NDArray[np.uint8], newest: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The maximum, per colour channel, of two raw frames: sprites that flicker are in one of the two.

    Args:
        previous: RGB, uint8 [240, 256, 3].
        newest: the same.

    Returns:
        uint8 [240, 256, 3].
    """
    return np.maximum(previous, newest)


def preprocess(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A raw frame as the network sees it.

    Args:
        screen: RGB, uint8 [240, 256, 3].

    Returns:
        Grey, uint8 [84, 84], a new array.
    """
    red, green, blue = (channel.astype(np.float32) for channel in cv2.split(screen[_SOURCE]))
    red *= _RED
    green *= _GREEN
    blue *= _BLUE
    # Sums in the tutorials' order: float32 addition is not associative, and the last bit decides a truncation.
    grey = np.zeros(screen.shape[:2], np.float32)
    np.add(red, green, out=grey[_SOURCE])
    grey[_SOURCE] += blue
    resized = cv2.resize(grey, _RESIZED, interpolation=cv2.INTER_AREA)
    return np.asarray(resized[_CROP].astype(np.uint8))
