"""Notices that a part of Ray itself is gone, without which a program is ended by Ray, unheard, or waits for ever."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from driver.clock import RunningClock

SILENT_S: Final = 40.0
"""Seconds without an answer of any kind after which a part is gone; Ray itself waits for a minute."""

LONGEST_INTERVAL_S: Final = 2.0
_CONNECT_S: Final = 2.0


class Part(NamedTuple):
    """A part of Ray that listens somewhere.

    Attributes:
        name: in words.
        address: HOST:PORT.
        refused_s: seconds of refused connections, which tell that nobody is there, after which it is gone.
    """

    name: str
    address: str
    refused_s: float


@contextlib.contextmanager
def head_watch(parts: Sequence[Part], gone: Callable[[str], None]) -> Iterator[None]:
    """Within it, a thread for each part asks whether anybody listens there.

    Args:
        parts: what to watch.
        gone: is called with a part's name, in its thread and for one part only, when that is gone.
    """
    ended = threading.Event()
    for part in parts:
        threading.Thread(target=_watch, args=(part, gone, ended), name=f"watch: {part.name}", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(part: Part, gone: Callable[[str], None], ended: threading.Event) -> None:
    interval_s = min(LONGEST_INTERVAL_S, part.refused_s / 2)
    clock = RunningClock()
    heard = clock()
    refused: float | None = None  # since when
    while not ended.wait(interval_s):
        before = clock()
        listens = _listens(part.address)
        now = clock()
        if listens:
            heard, refused = now, None
        elif listens is None:  # the machine is short of something, or its network is away: that may pass
            refused = None
        elif refused is None:
            refused = before
        if now - heard >= SILENT_S or (refused is not None and now - refused >= part.refused_s):
            if not ended.is_set():
                ended.set()
                gone(part.name)
            return


def _listens(address: str) -> bool | None:
    """Whether anybody does; None where that cannot be told."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True
