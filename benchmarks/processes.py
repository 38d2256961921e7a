"""What a process takes of the machine, from Linux's /proc."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, bytes; the three together are what `ps` shows as RSS."""

    private: int  # heaps and stacks
    files: int  # programs and libraries, which other processes share
    shared: int  # shared memory, such as Ray's object store where the process touched it


def resident_memory(pid: int) -> Memory:
    """Of a running process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    private, files, shared = (int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem"))
    return Memory(private, files, shared)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process since it began, in user and kernel mode, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
