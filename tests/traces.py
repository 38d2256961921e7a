"""What processes leave on a machine that others use as well."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_SHARED_MEMORY: Final = re.compile(r"(/dev/shm/\S+)")
_ENDING_S: Final = 30.0


class Traces:
    """Remembers processes, and their files in shared memory, and tells later which of them are still there."""

    def __init__(self) -> None:
        self._started: dict[int, str] = {}  # clock ticks of the machine, by process
        self._shared: set[Path] = set()

    def take(self, pids: Iterable[int]) -> None:
        """Takes note of processes; to be called often, as they come and go."""
        for pid in pids:
            try:
                maps = Path(f"/proc/{pid}/maps").read_text()
                self._started.setdefault(pid, _start_of(pid))
            except OSError:
                continue
            self._shared.update(Path(name) for name in _SHARED_MEMORY.findall(maps))

    def left(self, timeout_s: float = _ENDING_S) -> list[str]:
        """What is still there after so long, in words."""
        deadline = time.monotonic() + timeout_s
        while (running := self._running()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [*running, *(str(path) for path in sorted(self._shared) if path.exists())]

    def _running(self) -> list[str]:
        return [f"process {pid}" for pid, started in self._started.items() if _is_running(pid, started)]


def _is_running(pid: int, started: str) -> bool:
    try:
        return _start_of(pid) == started and _state_of(pid) != "Z"
    except OSError:
        return False


def _state_of(pid: int) -> str:
    return _stat(pid)[0]


def _start_of(pid: int) -> str:
    return _stat(pid)[19]


def _stat(pid: int) -> list[str]:
    """The fields after the name, see proc(5); the state is the first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
