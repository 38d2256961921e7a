"""A window that shows an episode while it is played."""

import os
import sys
import time

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

_SCALE = 3


class Window:
    """Shows frames at a steady rate, where there is a display."""

    def __init__(self, *, width: int, height: int, fps: float, caption: str) -> None:
        """
        Args:
            width: of a frame, pixels; the window shows it three times as large.
            height: of a frame, pixels.
            fps: frames per second that `show` holds to.
            caption: the window's title.

        Raises:
            UserError: there is no display.
        """
        advice = "write a video instead with --video FILE.mp4"
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise UserError(f"there is no display to watch on; {advice}")
        try:
            import pyglet  # opens the display, so not before it is wanted

            self._image = pyglet.image.ImageData
            self._window = pyglet.window.Window(width * _SCALE, height * _SCALE, caption, vsync=False)
        except Exception as error:  # by platform and driver, pyglet raises many kinds
            raise UserError(f"the display cannot be used ({error}); {advice}") from error
        self._period = 1 / fps
        self._due = time.monotonic()

    def show(self, frame: NDArray[np.uint8]) -> bool:
        """Shows one frame, RGB, uint8 [H, W, 3], when it is due; returns False once the user has closed the window."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic() - self._period) + self._period
        self._window.switch_to()
        self._window.dispatch_events()
        if self._window.has_exit:
            return False
        large = frame.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
        height, width = large.shape[:2]
        self._image(width, height, "RGB", large.tobytes(), pitch=-3 * width).blit(0, 0)
        self._window.flip()
        return True

    def close(self) -> None:
        """Closes the window."""
        self._window.close()
