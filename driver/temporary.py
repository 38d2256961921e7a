"""The run's folder for Ray's files: removed at the end, and by a later run where this one has no end."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from common.errors import UserError
from driver.run_directory import RunDirectory

_PREFIX: Final = "apex-mario-"
_LOCK: Final = ".ray-session.lock"  # of another name than a run directory's, which may lie here as well


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder of its own, so that nothing stays behind in /tmp/ray and two runs never meet.

    A driver that is killed cannot remove its folder. Each holds a lock in it for as long as it lives: folders whose
    lock nobody holds are removed here, but for a folder that holds a run, whatever else lies in it.

    Raises:
        UserError: none can be made.
    """
    _remove_leftovers()
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)
    except OSError as error:
        raise UserError(f"no folder for temporary files can be made: {error}; name another place in TMPDIR") from None
    try:
        with lock:
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> IO[str]:
    """A new folder's lock, held. Under its name it is held from the beginning."""
    made = folder / f"{_LOCK}-made"
    lock = made.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.rename(folder / _LOCK)
    return lock


def _remove_leftovers() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as file:  # another user's, or removed meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not RunDirectory(lock.parent).holds_any_of_a_run:
                shutil.rmtree(lock.parent, ignore_errors=True)
