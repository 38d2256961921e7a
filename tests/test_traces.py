"""What the chaos script takes for left behind: the run's own, and nobody else's."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.traces import Traces

MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 4096)
print("mapped", flush=True)
input()
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    path = Path("/dev/shm") / f"test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


def test_processes_and_shared_memory_of_the_run_are_found_and_no_others(shared: Path) -> None:
    traces, others = Traces(), Traces()
    process = subprocess.Popen(
        [sys.executable, "-c", MAPS, str(shared)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    traces.take([process.pid, 2**22 + 1])
    others.take([os.getpid()])
    assert traces.left(0.5) == [f"process {process.pid}", str(shared)]
    process.communicate("\n")
    assert traces.left(5) == [str(shared)]
    assert str(shared) not in others.left(0)
    shared.unlink()
    assert traces.left(0) == []
