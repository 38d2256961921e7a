"""Scripts that end as `launch.py` does when they are interrupted: with status 0."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

_SCRIPT = """
import pathlib, signal, sys, time
interrupts = int({interrupts})
def interrupted(*_):
    global interrupts
    interrupts -= 1
    if not interrupts:
        (place / "ended").touch()
        sys.exit(0)
signal.signal(signal.SIGINT, interrupted)
place = pathlib.Path({place})
(place / "began").touch()
for _ in range(600):
    time.sleep(0.1)
sys.exit(1)
"""


def write_script(path: Path, *, place: str = "sys.argv[1]", interrupts: int = 1) -> str:
    """A script that leaves `began` and, after so many interrupts, `ended` in a folder; its path.

    Args:
        path: of the script.
        place: the folder, as an expression.
        interrupts: before it ends.
    """
    path.write_text(_SCRIPT.format(place=place, interrupts=interrupts))
    return str(path)


def wait_for_file(path: Path) -> None:
    """Waits until it is there; an error after half a minute."""
    deadline = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"no {path}")
        time.sleep(0.02)


@contextmanager
def terminated_when_there(path: Path) -> Iterator[None]:
    """This process gets a SIGTERM once the file is there."""

    def terminate() -> None:
        wait_for_file(path)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = Thread(target=terminate)
    thread.start()
    try:
        yield
    finally:
        thread.join()
