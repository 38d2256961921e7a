"""What `common.process` sets, in processes of their own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import resource, sys
import torch
from common.process import tune_process
if sys.argv[1] == "tuned":
    tune_process()
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(name: str) -> int:
    root = Path(__file__).parent.parent
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM, name], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    return int(finished.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide otherwise")
def test_freed_tensors_leave_their_memory_to_the_next_ones() -> None:
    assert page_faults("tuned") < 0.1 * page_faults("as it is")


_COPY = """
import resource
from pathlib import Path
import torch
from common.process import give_back_memory, tune_process

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

tune_process()
copies = [torch.ones(2**20) for _ in range(16)]  # 64 MiB
with_copies = resident()
del copies
give_back_memory()
print(with_copies - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide otherwise")
def test_what_is_large_and_rare_can_be_given_back() -> None:
    root = Path(__file__).parent.parent
    finished = subprocess.run(
        [sys.executable, "-c", _COPY], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    assert int(finished.stdout) > 0.9 * 2**26
