"""Ends processes at once."""

import contextlib
import os
import signal
from collections.abc import Iterable


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL for each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
