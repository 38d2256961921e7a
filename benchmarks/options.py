"""Types of the benchmarks' options, for argparse: a mistake is told before anything is measured."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

_MOST: Final = 10**6
_Number = TypeVar("_Number", int, float)


def at_least(low: float, kind: Callable[[str], _Number], most: int = _MOST) -> Callable[[str], _Number]:
    """A number from `low` to `most`, a million unless it is given."""

    def number(text: str) -> _Number:
        value = kind(text)
        if not low <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {most:g}")
        return value

    return number


def result_file(text: str) -> Path:
    """A file to write figures to; its folder is made."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {'a folder' if path.is_dir() else 'not allowed'}")
    return path
