"""Standard output and error that take whatever a program says, wherever it was started."""

import os
import sys
from io import TextIOWrapper


def prepare_streams() -> None:
    """To be called before a program's first word, so that no surroundings make one of its lines an error.

    A locale or PYTHONIOENCODING may have an encoding without "…" and other characters that we print, and a path may
    be no UTF-8: they come out as "?". Python has no stream at all where the caller closed it (`launch.py >&-`): what
    is said there is lost. The empty device then takes the lowest free descriptor, which is the closed one, so that no
    other file gets it and what a library prints.
    """
    if sys.stdout is None:
        sys.stdout = _nothing()
    elif isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stderr is None:  # otherwise it escapes such characters by itself
        sys.stderr = _nothing()


def say(text: str) -> None:
    """Prints a line. One that nobody takes any more, as after `| head`, is lost, and so is what follows it."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nothing() -> TextIOWrapper:
    # Without closing it at the end of its life, which is the program's: Python would warn.
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", errors="replace", closefd=False)
