"""`launch.py` and `evaluate.py` as processes of a longer program, ended in order where that is interrupted."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from threading import Lock
from types import FrameType, TracebackType
from typing import Final

from benchmarks.machine import ROOT

_STOP_TIMEOUTS_S: Final = (120.0, 30.0)


class Scripts:
    """Runs this project's scripts, in several threads too; for use in a `with` of the main thread.

    SIGTERM and a closed terminal interrupt the program as Ctrl-C does, but for a terminal that `nohup` has it outlive.
    What still runs at the end of the `with` is stopped.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __enter__(self) -> "Scripts":
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if before[signal.SIGHUP] == signal.SIG_IGN:
            del before[signal.SIGHUP]
        self._before = before
        for number in before:
            # SIGINT too: a shell's background jobs ignore it, and what they start would, however it is asked to end.
            signal.signal(number, _interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, script: str, arguments: Sequence[str], *, quiet: bool = False) -> int:
        """The exit status of a script at the top level of the project.

        Raises:
            KeyboardInterrupt: everything was stopped, this script included or before it was started.
        """
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            process = subprocess.Popen(
                [sys.executable, str(ROOT / script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                # Ctrl-C on the terminal would otherwise reach it twice, and the second one ends it at once.
                start_new_session=True,
            )
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
            if self._stopped:  # an interrupted training ends with status 0, and is none of the length asked for
                raise KeyboardInterrupt
        return status

    def stop(self) -> None:
        """Asks what runs for an orderly end, then (on our user's second interrupt too) for one at once, then kills."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for timeout_s in _STOP_TIMEOUTS_S:
            for process in running:
                process.send_signal(signal.SIGINT)
            try:
                for process in running:
                    process.wait(timeout_s)
                return
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                continue
        for process in running:
            process.kill()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
