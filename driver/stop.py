"""Ctrl-C and SIGTERM end a run cleanly; a second one ends it at once."""

import os
import signal
from types import FrameType


class StopSignals:
    """Remembers that the user wants the run to end.

    Install it after `ray.init`, which replaces SIGTERM's handler.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    def install(self) -> None:
        """Takes over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # Ray's own processes notice that their driver is gone.
            os._exit(128 + number)
        self.received = signal.Signals(number).name
