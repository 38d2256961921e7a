"""Runs `launch.py` as a user does: as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

# Small enough to learn within seconds; limits are the tests' own.
SMALL = [
    "--actors.count",
    "2",
    "--actors.envs-per-actor",
    "2",
    "--actors.chunk-length",
    "16",
    "--actors.weights-poll-s",
    "0.1",
    "--replay.shards",
    "2",
    "--replay.capacity",
    "4000",
    "--replay.min-size",
    "100",
    "--replay.samples-per-insert",
    "2",
    "--learner.batch-size",
    "16",
    "--learner.broadcast-period",
    "5",
    "--eval.interval-s",
    "3",
    "--eval.episodes",
    "2",
    "--eval.max-steps",
    "20",
    "--ray.object-store-mb",
    "100",
    "--ray.address",
    "local",
]
GRID = ["--env.name", "gridworld", *SMALL]


class EndedRun(NamedTuple):
    """What a run left: its folder, and what it said."""

    folder: Path
    out: str


def start(run: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A running `launch.py --run-dir RUN …`."""
    return start_raw("--run-dir", str(run), *arguments)


def start_raw(*arguments: str) -> "subprocess.Popen[str]":
    """A running `launch.py …`."""
    return start_program(str(ROOT / "launch.py"), *arguments)


def start_program(*arguments: str) -> "subprocess.Popen[str]":
    """A running `python …`."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )


def finish(process: "subprocess.Popen[str]", timeout_s: float = 120) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; a run that hangs is ended."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


def progress(run: Path) -> list[dict[str, Any]]:
    """The lines of `progress.jsonl` so far."""
    path = run / "progress.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", timeout_s: float = 90) -> None:
    """Waits until `condition` holds while the process runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"did not come about; exit status {process.returncode}: {process.communicate()}")
        time.sleep(0.2)


def descendants(pid: int) -> dict[int, str]:
    """Process titles of all living descendants, by pid."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            titles[int(entry.name)] = title
    found: dict[int, str] = {}
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        found.update({child: titles[child] for child in frontier})
    return found


def processes_of(role: str, process: "subprocess.Popen[str]") -> list[int]:
    """The processes of a role of a running `launch.py`, such as "RemoteActor"."""
    return [pid for pid, title in descendants(process.pid).items() if title.startswith(f"ray::{role}")]


def process_of(role: str, process: "subprocess.Popen[str]") -> int:
    """The first of them."""
    return processes_of(role, process)[0]


def memory_parts_mib(pid: int) -> tuple[float, float]:
    """MiB that a process has to itself, and its part of shared memory, which is Ray's object store; none if it is gone.

    Proportional set sizes, without pages of files, which nobody has to himself.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss_")}
    return sizes["Pss_Anon:"], sizes["Pss_Shmem:"]


def all_gone(pids: list[int], timeout_s: float = 30) -> bool:
    """Whether all these processes end within the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.2)
    return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ProcessLookupError):
        return False
