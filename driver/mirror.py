"""Copies the run's checkpoints to a URI while it goes on (`--checkpoint.uri`)."""

import contextlib
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from common.errors import UserError, first_line
from driver.copies import Ownership, new_name, prune, publish
from driver.run_directory import RunDirectory
from driver.store import Store, StoreError
from learner.manifest import read_step

_BEST: Final = ("best.pt", "best.json")
_POLL_S: Final = 0.2

_log = logging.getLogger("apex-mario")


class _Job(NamedTuple):
    checkpoint: Path
    best: dict[str, bytes]  # the best policy's files as they were then: two that belong together


class Mirror:
    """One checkpoint at a time, in a thread of its own. Meanwhile the newest one waits, and others are left out.

    Nothing that fails here ends the run: the user is told, each time, and the next checkpoint is tried again.

    Args:
        store: where to.
        run: whose checkpoints.
        ownership: this session's, taken.
        keep: the newest copies that are kept.
    """

    def __init__(self, store: Store, run: RunDirectory, ownership: Ownership, keep: int) -> None:
        self._store = store
        self._run = run
        self._ownership = ownership
        self._keep = keep
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._at_work: Path | None = None
        self._lines: deque[str] = deque()
        self._mirrored = 0
        # A daemon, so that a file system that hangs does not keep the program from ending.
        threading.Thread(target=self._work, name="mirror", daemon=True).start()

    @property
    def uri(self) -> str:
        """Where to."""
        return self._store.uri

    @property
    def mirrored(self) -> int:
        """Copies that this session has completed."""
        return self._mirrored

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being copied, or waits."""
        return self._waiting is not None or self._at_work is not None

    def start(self, checkpoint: Path) -> None:
        """Copies a checkpoint and the run's other files as soon as the one before is done."""
        best = {}
        for name in _BEST:
            with contextlib.suppress(OSError):  # there is none yet
                best[name] = (self._run.path / name).read_bytes()
        with self._changed:
            if self._waiting is not None:
                self._lines.append(
                    f"warning: {self._waiting.checkpoint.name} is not mirrored: {self.uri} is still busy with "
                    f"{self._at_work.name if self._at_work else 'the one before'}"
                )
            self._waiting = _Job(checkpoint, best)
            self._changed.notify()

    def take_lines(self) -> list[str]:
        """What the user has to know since the last call."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines

    def wait(self, timeout_s: float, interrupted: Callable[[], bool]) -> bool:
        """Waits for what is to be copied, not longer than that; tells whether all of it was tried."""
        deadline = time.monotonic() + timeout_s
        while self.busy and time.monotonic() < deadline and not interrupted():
            time.sleep(_POLL_S)
        return not self.busy

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    self._changed.wait()
                job, self._waiting = self._waiting, None
                self._at_work = job.checkpoint
            try:
                self._copy(job)
            finally:
                self._at_work = None

    def _copy(self, job: _Job) -> None:
        started = time.monotonic()
        name = job.checkpoint.name
        try:
            self._ownership.check()
            step = read_step(job.checkpoint)
            with open_files(self._run, job.checkpoint, job.best) as files:
                size = publish(self._store, new_name(step), files, self._ownership.check)
            self._mirrored += 1
            _log.info("%s mirrored: %.1f MB in %.1f s", name, size / 1e6, time.monotonic() - started)
        except Exception as error:  # whatever it is: the next checkpoint is tried again
            self._lines.append(
                f"warning: {name} could not be mirrored to {self.uri}: {_reason(error)}; it is whole on this machine, "
                "training goes on"
            )
            return
        try:
            prune(self._store, self._keep)
        except Exception as error:
            self._lines.append(f"warning: an old copy at {self.uri} could not be removed: {_reason(error)}")


@contextlib.contextmanager
def open_files(run: RunDirectory, checkpoint: Path, best: dict[str, bytes]) -> Iterator[dict[str, BinaryIO]]:
    """The files of a run directory with one checkpoint, by their paths in it; all open, so that none can vanish.

    Args:
        run: whose.
        checkpoint: the one. Its folder has its step's name in the copy, also where a user chose one that was set aside
            or replaced, which would not be found there.
        best: the best policy's files; those on the disk may be of two policies in the moment one takes the other's
            place.

    Raises:
        UserError: the checkpoint has no manifest.
        OSError: a file cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {name: io.BytesIO(data) for name, data in best.items()}
        paths = {path.name: path for path in run.path.iterdir() if path.is_file() and path.name[0] != "."}
        folder = f"{run.checkpoints.name}/step-{read_step(checkpoint):012d}"
        paths |= {f"{folder}/{path.name}": path for path in checkpoint.iterdir()}
        for name in sorted(paths):
            files.setdefault(name, stack.enter_context(paths[name].open("rb")))
        yield files


def _reason(error: Exception) -> str:
    expected = isinstance(error, StoreError | OSError | UserError)
    return first_line(error) if expected else f"{type(error).__name__}: {first_line(error)}"
