"""Standard output and error that take whatever a program says, wherever it was started."""

import os
import sys
from io import TextIOWrapper

from common.errors import UserError


def prepare_streams() -> None:
    """To be called before a program's first word, so that no surroundings make one of its lines an error.

    A locale or PYTHONIOENCODING may have an encoding without "…" and other characters that we print, and a path may
    be no UTF-8: they come out as "?". Python has no stream at all where the caller closed it (`launch.py >&-`): what
    is said there is lost.
    """
    for descriptor in range(3):
        _fill(descriptor)
    if sys.stdout is None:
        sys.stdout = _text(1)
    elif isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stderr is None:  # otherwise it escapes such characters by itself
        sys.stderr = _text(2)


def say(text: str) -> None:
    """Prints a line. One that nobody takes any more, as after `| head`, is lost, and so is what follows it.

    Raises:
        UserError: it cannot be written for another reason, such as a full disk.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"standard output cannot be written: {error.strerror}") from None


def _fill(descriptor: int) -> None:
    """Has the empty device where the caller closed a stream: else another file gets its number, and what is printed."""
    try:
        os.fstat(descriptor)
    except OSError:
        device = os.open(os.devnull, os.O_RDWR)
        if device != descriptor:
            os.dup2(device, descriptor)
            os.close(device)


def _text(descriptor: int) -> TextIOWrapper:
    # Without closing it at the end of its life, which is the program's: Python would warn.
    return open(descriptor, "w", encoding="utf-8", errors="replace", closefd=False)
