"""Files that are either wholly there or not at all, also after a crash or a power cut."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill the file and returns when its bytes are on the disk.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces the file in one step: a reader sees the old bytes or the new ones, never a part.

    Raises:
        OSError: the file cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, lambda file: file.write(data))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames within the directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
