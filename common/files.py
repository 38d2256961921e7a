"""Files that are either wholly there or not at all, also after a crash or a power cut."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

_TAIL_BYTES: Final = 1 << 16  # many times a line
_DEVICES: Final = ("dev", "proc")


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
    write_all_atomically({path: data})


def write_all_atomically(files: Mapping[Path, bytes]) -> None:
    """As `write_atomically`, for several files: the first one is not replaced before all are on the disk.

    They are replaced in their order, which only a crash can interrupt.
    """
    temporaries = {path.with_name(f".{path.name}.{os.getpid()}.tmp"): path for path in files}
    try:
        for temporary, path in temporaries.items():
            write_synced(temporary, partial(_write, files[path]))
        for temporary, path in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in files}:
        sync_directory(folder)


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a file that the block writes: under the name that it gets, which has the same suffix.

    What has no bytes to keep or is somebody's open file, such as /dev/stdout, and a file in a folder that takes no
    other one get their own name.

    Raises:
        OSError: the file cannot be written; what was there before is untouched.
    """
    target = path.resolve()  # a link stays one
    is_device = path.absolute().parts[1] in _DEVICES
    if is_device or (path.exists() and not (target.is_file() and os.access(target.parent, os.W_OK | os.X_OK))):
        yield path
        return
    temporary = target.with_name(f".{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def append_whole(path: Path, data: bytes) -> None:
    """Appends all of the bytes or, where there is no room for them, none.

    Raises:
        OSError: the file cannot be written; what was there before is untouched.
    """
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # devices have no end to go back to
                file.truncate(end)
            raise


def cut_half_line(path: Path) -> None:
    """Ends the file after its last whole line: what follows was being written when the power or the disk failed.

    Raises:
        OSError: it cannot be read or written.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - _TAIL_BYTES))
        whole = file.read(_TAIL_BYTES).rfind(b"\n") + 1
        if start + whole < end:
            file.truncate(start + whole)


def sync_directory(path: Path) -> None:
    """Makes renames within the directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
