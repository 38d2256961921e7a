"""Ends what is left of a private Ray without its server, which `ray.shutdown` would wait for."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

_TRIES: Final = 20
_PAUSE_S: Final = 0.1


def end_abandoned(folder: str) -> None:
    """Kills this program's processes, those of Ray and of the roles, and removes Ray's folder."""
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for _ in range(_TRIES):  # a process that is about to end may still make a file
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
        time.sleep(_PAUSE_S)


def _descendants(pid: int) -> set[int]:
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {child for parent in frontier for child in children.get(parent, ())} - found
        found |= frontier
    return found
