"""What each role of a running system costs: processor time and memory of its processes, from Linux's /proc."""

import os
from collections import Counter
from pathlib import Path
from typing import Final

ROLES: Final = ("driver", "actors", "shards", "learner", "evaluator", "gcs", "raylet", "other")

_TITLES: Final = {
    "ray::RemoteActor": "actors",
    "ray::RemoteReplayShard": "shards",
    "ray::RemoteLearner": "learner",
    "ray::RemoteEvaluator": "evaluator",
}
_PROGRAMS: Final = {"gcs_server": "gcs", "raylet": "raylet"}
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def processes_by_role(driver: int) -> dict[int, str]:
    """The role of a driver's process and of all that descend from it, by pid.

    Processes that Ray holds ready without work, its logging and its agents are "other".
    """
    parents = _parents()
    roles = {driver: "driver"}
    frontier = {driver}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        roles.update((child, _role(child)) for child in frontier)
    return roles


def cpu_seconds(roles: dict[int, str]) -> Counter[str]:
    """Processor seconds so far, user and system, by role; a process that ended counts nothing."""
    total: Counter[str] = Counter()
    for pid, role in roles.items():
        fields = _stat(pid)
        if fields is not None:
            total[role] += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # type: ignore[assignment]
    return total


def memory_bytes(roles: dict[int, str]) -> Counter[str]:
    """Proportional set size by role: what processes share counts for each in part."""
    total: Counter[str] = Counter()
    for pid, role in roles.items():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended
            continue
        total[role] += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _parents() -> dict[int, int]:
    """Every process's parent."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: int(fields[1]) for pid in pids if (fields := _stat(pid)) is not None}


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _role(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "other"
    title = command.partition(" ")[0]
    return _TITLES.get(title.partition(".")[0], _PROGRAMS.get(Path(title).name, "other"))
