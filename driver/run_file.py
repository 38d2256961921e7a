"""A file that a run appends to for as long as it goes on, whatever becomes of the disk."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.files import append_whole, cut_half_line

_REPEAT_S: Final = 300.0


class RunFile:
    """Appends to a file; one that is there is continued.

    A file that cannot be written, such as on a full disk, is no reason to stop training: the user is told at once and
    every five minutes while that lasts, and what was to be written meanwhile is missing. Each piece is there wholly or
    not at all.

    Args:
        path: the file; the half line that a power cut left at its end is removed.
        warn: takes a line for the user.
        header: what a file begins with.
        clock: seconds.
    """

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        *,
        header: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._warn = warn
        self._header = header
        self._clock = clock
        self._next_warning: float | None = None  # while the file cannot be written
        self._is_whole = False  # whether it is known to end with a whole line
        self.append(b"")

    def append(self, data: bytes) -> None:
        """Writes the data, beneath the header where the file is new."""
        try:
            exists = self._path.exists()
            if exists and not self._is_whole:
                cut_half_line(self._path)
            is_new = not exists or self._path.stat().st_size == 0
            append_whole(self._path, self._header + data if is_new else data)
        except OSError as error:
            self._complain(error)
            return
        self._is_whole = True
        if self._next_warning is not None and data:
            self._next_warning = None
            self._warn(f"{self._path} can be written again")

    def _complain(self, error: OSError) -> None:
        now = self._clock()
        if self._next_warning is None or now >= self._next_warning:
            self._next_warning = now + _REPEAT_S
            self._warn(
                f"warning: {self._path} cannot be written ({error.strerror}): "
                "training goes on, and what happens until it can be is missing there"
            )
