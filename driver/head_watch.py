"""Notices that Ray's own server is gone: a program whose Ray has no server is ended by Ray a minute later, unheard."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

GONE_S: Final = 40.0
_INTERVAL_S: Final = 2.0


@contextlib.contextmanager
def head_watch(address: str, gone: Callable[[], None]) -> Iterator[None]:
    """Within it, a thread asks whether anybody listens at the address.

    Args:
        address: of Ray's server (GCS), HOST:PORT.
        gone: is called in that thread, once, when nobody has listened for `GONE_S` seconds.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, gone, ended), name="head-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(address: str, gone: Callable[[], None], ended: threading.Event) -> None:
    last = time.monotonic()
    while not ended.wait(_INTERVAL_S):
        if _listens(address):
            last = time.monotonic()
        elif time.monotonic() - last >= GONE_S:
            if not ended.is_set():
                gone()
            return


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_INTERVAL_S).close()
    except OSError:
        return False
    return True
