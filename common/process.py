"""Settings of a process that computes all the time, which Python and the C library choose otherwise."""

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # of malloc.h
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 2**30
_DOCUMENTED_MOST: Final = 2**25  # mallopt(3), on 64-bit systems
_SWITCH_INTERVAL_S: Final = 5e-5


def tune_process() -> None:
    """Makes this process fit for training or playing; to be called before its tensors are made.

    Freed memory, up to a gigabyte, is kept for the next tensors: by default glibc gives large blocks back to the
    system, and each update or step then pays for thousands of page faults. (Skipped where the C library has no
    `mallopt`.)

    Threads hand the interpreter over after 50 µs instead of 5 ms: a training thread needs it for a moment between
    any two operations, and would wait that long for a feeder that is not at a convenient place to stop.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # The threshold for large blocks first: setting either one switches off glibc's own adaptation of both.
    if mallopt and (mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_M_MMAP_THRESHOLD, _DOCUMENTED_MOST)):
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_memory() -> None:
    """Gives freed memory back to the system, which a tuned process would keep: to be called after what is large and
    rare, such as a copy of all weights. (Skipped where the C library has no `malloc_trim`.)
    """
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
