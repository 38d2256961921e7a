"""Notices that a part of Ray itself is gone, without which a program is ended by Ray, unheard, or waits for ever."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

LONGEST_INTERVAL_S: Final = 2.0
_CONNECT_S: Final = 2.0


class Part(NamedTuple):
    """A part of Ray that listens somewhere.

    Attributes:
        name: in words.
        address: HOST:PORT.
        gone_s: seconds without anybody there, after which it is gone.
    """

    name: str
    address: str
    gone_s: float


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
    interval_s = min(LONGEST_INTERVAL_S, part.gone_s / 2)
    last = time.monotonic()
    while not ended.wait(interval_s):
        if _listens(part.address):
            last = time.monotonic()
        elif time.monotonic() - last >= part.gone_s:
            if not ended.is_set():
                ended.set()
                gone(part.name)
            return


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True
