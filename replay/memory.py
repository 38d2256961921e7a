"""Whether a replay of a given size fits the machine, decided before anything is started."""

import math
import os
from pathlib import Path

from common.errors import UserError
from common.types import EnvironmentSpec

BYTES_PER_TRANSITION_ESTIMATE = 1_250
"""Bytes that one stored Mario transition takes at most, all-in: about 1,050 for its compressed frame on the busiest of
the stages that were measured, a tenth of that for the frames at both ends of a chunk, and the rest for its numbers, the
sum tree and Python's overhead."""

_USUAL_FRAMES_PER_TRANSITION = 1.1
_MARIO_FRAME_BYTES = 84 * 84
_VECTOR_OVERHEAD_BYTES = 200  # per-transition arrays, tree, and a share of the objects of short episodes' chunks
_GIB = 1 << 30


def bytes_per_transition(spec: EnvironmentSpec, frames_per_transition: float = _USUAL_FRAMES_PER_TRANSITION) -> int:
    """Estimated bytes of one stored transition, all-in.

    Args:
        spec: the environment's.
        frames_per_transition: frames in a full chunk over its transitions; what chunks overlap is stored twice.

    Images are taken to compress like Mario's; vectors not at all, so that lz4's worst case counts for them.
    """
    frame_bytes = math.prod(spec.frame_shape)
    if len(spec.frame_shape) > 1:
        overlap = max(1.0, frames_per_transition / _USUAL_FRAMES_PER_TRANSITION)
        return math.ceil(BYTES_PER_TRANSITION_ESTIMATE * overlap * frame_bytes / _MARIO_FRAME_BYTES)
    lz4_worst_case = frame_bytes + frame_bytes // 255 + 16
    return math.ceil(frames_per_transition * lz4_worst_case) + _VECTOR_OVERHEAD_BYTES


def check_memory(capacity: int, each: int, available_bytes: int) -> None:
    """Refuses a replay that does not fit into memory.

    Args:
        capacity: transitions over all shards on this machine.
        each: bytes of one transition (`bytes_per_transition`).
        available_bytes: what the replay may fill, for instance `available_memory()` less what other roles need.

    Raises:
        UserError: with the arithmetic.
    """
    if capacity * each <= available_bytes:
        return
    raise UserError(
        f"a replay of {capacity:,} transitions does not fit into memory: {capacity:,} x {each:,} bytes = "
        f"{capacity * each / _GIB:.2f} GiB, but {max(0, available_bytes) / _GIB:.2f} GiB are available; "
        f"give --replay.capacity {max(0, available_bytes // each)} or less"
    )


def available_memory() -> int:
    """Bytes that new processes can take: what the system has left, or the control group (v2) where that is less."""
    return min([_system_available(), *_cgroup_headrooms()])


def _system_available() -> int:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cgroup_headrooms(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What is left in this process's control group and in each one above it that has a limit, bytes."""
    if not membership.exists():
        return []
    own = next((line[3:] for line in membership.read_text().splitlines() if line.startswith("0::")), None)
    if own is None:
        return []
    group = root / own.strip("/")
    groups = [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return [headroom for path in groups if (headroom := _headroom(path)) is not None]


def _headroom(group: Path) -> int | None:
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    page_cache = int(stat.get("inactive_file", 0))  # given back before anything is killed
    return max(0, int(limit) - used + page_cache)
