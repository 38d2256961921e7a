"""Ctrl-C while a program starts."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def ending_at_ctrl_c(message: str) -> Iterator[None]:
    """Within it Ctrl-C ends the process at once, with status 130 and a line on stderr.

    For imports alone: KeyboardInterrupt amid them may come out as another error, or be lost.

    Args:
        message: the line, with its end.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), message.encode())
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # as the caller wants it: a shell lets jobs in the background ignore it
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
