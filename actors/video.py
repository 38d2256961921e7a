"""Episodes as video files."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError

SUFFIXES: Final = (".mp4", ".gif")
FPS: Final = Fraction(15)
"""Agent steps per second of real time at the usual frame skip of 4."""
_GIF_MS: Final = 100  # per frame; many viewers play anything shorter at a speed of their own
_SCALE: Final = 3


def check_video_path(path: Path) -> None:
    """Refuses a file that `save_video` could not write, before any episode is played for it.

    Raises:
        UserError: another suffix than .mp4 or .gif, or a folder that is missing or cannot be written to.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"the video {path} ends in neither .mp4 nor .gif; give it one of these suffixes")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuses a file that could not be written.

    Raises:
        UserError: its folder is missing or cannot be written to, or it is a folder itself.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} of {path.name} does not exist; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written; give a place where you may write")


def save_video(frames: Iterable[NDArray[np.uint8]], path: Path, *, fps: Fraction = FPS) -> None:
    """Writes frames as H.264 in .mp4, three times as large, or as .gif, 100 ms each.

    Args:
        frames: RGB, uint8 [H, W, 3] each, at least one, H and W even; taken one at a time, never held all at once.
        path: the file, by whose suffix the format goes.
        fps: frames per second of the .mp4.

    Raises:
        UserError: see `check_video_path`.
    """
    check_video_path(path)
    if path.suffix.lower() == ".gif":
        with path.open("wb") as file:
            _write_gif(frames, file)
    else:
        _write_mp4(frames, path, fps)


def encode_gif(frames: Iterable[NDArray[np.uint8]]) -> bytes:
    """Frames, RGB, uint8 [H, W, 3] each, as an animated GIF of 100 ms each, as TensorBoard shows it."""
    file = BytesIO()
    _write_gif(frames, file)
    return file.getvalue()


def _write_gif(frames: Iterable[NDArray[np.uint8]], file: IO[bytes]) -> None:
    images = _palette_images(frames)
    next(images).save(file, format="GIF", save_all=True, append_images=images, duration=_GIF_MS, loop=0)


def _palette_images(frames: Iterable[NDArray[np.uint8]]) -> Iterator[Image.Image]:
    """Images of at most 256 colours; the console has 64."""
    for frame in frames:
        yield Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _write_mp4(frames: Iterable[NDArray[np.uint8]], path: Path, fps: Fraction) -> None:
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            large = frame.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
            if not stream.codec_context.is_open:
                stream.height, stream.width = large.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
