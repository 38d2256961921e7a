"""Ctrl-C and SIGTERM end a run cleanly; a second one ends it at once."""

import signal
from types import FrameType


class StopSignals:
    """Remembers that the user wants the run to end.

    Install it after `ray.init`, which replaces SIGTERM's handler.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.exit_status: int | None = None  # after the second signal

    def install(self) -> None:
        """Takes over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The first time it is remembered; the second time the program is left, with only what must be tidied up.

        Raises:
            SystemExit: the second time. A third signal kills.
        """
        if self.received is None:
            self.received = signal.Signals(number).name
            return
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self.exit_status = 128 + number
        # Ray may turn this into an exit of its own, with another status.
        raise SystemExit(self.exit_status)
