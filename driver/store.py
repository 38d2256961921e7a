"""Files at a URI: a shared folder or object storage, whatever fsspec knows; S3 and Google's storage by pyarrow.

fsspec's own library for S3 pins versions that others of our dependencies exclude, while pyarrow needs no other package.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import fsspec

from common.errors import UserError, first_line
from driver.credentials import refuse_credentials

_PIECE_BYTES: Final = 4 * 2**20
_WITHOUT_FOLDERS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
_BY_PYARROW: Final = ("s3", "gs")

_Result = TypeVar("_Result")


class StoreError(Exception):
    """Something at the URI could not be read or written; the message is one line."""


class MissingError(StoreError):
    """A file that is not there."""


class Written(NamedTuple):
    """A file as it was sent or fetched."""

    size: int  # bytes
    sha256: str


class Store:
    """Files under one URI, by their paths below it, with slashes.

    Whatever goes wrong in a file system, which each have errors of their own, is a `StoreError`.
    """

    def __init__(self, uri: str, file_system: Any, root: str) -> None:
        """For `open_store`."""
        self.uri = uri.rstrip("/")
        self._files = file_system
        self._root = root.rstrip("/")
        names = file_system.protocol
        self._has_folders = not _WITHOUT_FOLDERS & set([names] if isinstance(names, str) else names)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file there is, by path; none where the URI names nothing yet."""
        return self._guarded(self._sizes)

    def check_parent(self) -> None:
        """Raises StoreError where the folder that the URI's own lies in is missing: a disk that is not mounted."""
        parent = self._root.rpartition("/")[0] or "/"
        if self._has_folders and not self._guarded(lambda: self._files.exists(parent)):
            raise StoreError(f"there is no folder {parent}; mount it or make it")

    @contextlib.contextmanager
    def leaving_no_folder(self) -> Iterator[None]:
        """Removes the URI's own folder at the end, where the block has made it and nothing is in it."""
        is_new = self._has_folders and not self._guarded(lambda: self._files.exists(self._root))
        try:
            yield
        finally:
            if is_new:
                with contextlib.suppress(StoreError):  # there is none, or another session has begun to use it
                    self._guarded(self._remove_if_empty)

    def read(self, path: str) -> bytes:
        """The bytes of a small file."""
        return self._guarded(lambda: bytes(self._files.cat_file(self._at(path))))

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces a small file."""
        self._guarded(lambda: self._put(path, lambda target: target.write(data)))

    def upload(self, path: str, source: BinaryIO) -> Written:
        """Makes or replaces a file from what is left to read of `source`."""
        return self._guarded(lambda: self._put(path, lambda target: _copy(source, target)))

    def download(self, path: str, target: BinaryIO) -> Written:
        """Copies a file into `target`.

        Raises:
            OSError: `target` cannot be written.
        """
        with self._guarded(lambda: self._files.open(self._at(path), "rb")) as source:
            digest, size = hashlib.sha256(), 0
            while piece := self._guarded(lambda: source.read(_PIECE_BYTES)):
                digest.update(piece)
                size += target.write(piece)
        return Written(size, digest.hexdigest())

    def remove(self, path: str) -> None:
        """Removes a file."""
        self._guarded(lambda: self._files.rm_file(self._at(path)))

    def remove_folder(self, path: str) -> None:
        """Removes all files below a path."""
        self._guarded(lambda: self._files.rm(self._at(path), recursive=True))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _sizes(self) -> dict[str, int]:
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(self._root) + 1 :]: int(entry["size"]) for name, entry in found.items()}

    def _remove_if_empty(self) -> None:
        if not self._sizes():  # asked, because some file systems would remove what is in it too
            self._files.rmdir(self._root)

    def _put(self, path: str, fill: Callable[[Any], _Result]) -> _Result:
        name = self._at(path)
        if self._has_folders:
            self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
        with self._files.open(name, "wb") as target:
            return fill(target)

    @staticmethod
    def _guarded(action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except FileNotFoundError as error:
            raise MissingError(_reason(error)) from error
        except Exception as error:
            raise StoreError(_reason(error)) from error


def is_uri(text: str) -> bool:
    """Whether a user's text is a URI and no path."""
    return "://" in text


def open_store(option: str, uri: str) -> Store:
    """The files at a URI; nothing is read or written yet.

    Args:
        option: what the user gave it to, for messages.
        uri: such as file:///mnt/shared/mario or s3://bucket/mario.

    Raises:
        UserError: it is no URI, of a scheme that is unknown or whose library is missing, or holds credentials.
    """
    refuse_credentials(option, uri)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(f"{option} {uri}: {error}") from None
    if not is_uri(uri):
        raise UserError(f"{option} {uri}: no URI; write file:///PATH for a folder, or such as s3://BUCKET/PATH")
    if parts.scheme in ("file", "local") and (parts.netloc or parts.path in ("", "/")):
        raise UserError(f"{option} {uri}: write file:///PATH, with three slashes and a folder's whole path")
    try:
        file_system, root = _by_pyarrow(uri) if parts.scheme in _BY_PYARROW else fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise UserError(f"{option} {uri}: a library is missing: {first_line(error)}") from None
    except Exception as error:
        raise UserError(f"{option} {uri}: {first_line(error)}") from None
    if not root.strip("/"):
        raise UserError(f"{option} {uri}: name a folder in it")
    return Store(uri, file_system, root)


def _by_pyarrow(uri: str) -> tuple[Any, str]:
    """fsspec's view of a pyarrow file system, and the path in it."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem
    except ImportError:
        raise ImportError("pip install -c constraints.txt pyarrow") from None
    file_system, root = FileSystem.from_uri(uri)
    return ArrowFSWrapper(file_system), root


def _copy(source: BinaryIO, target: Any) -> Written:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE_BYTES):
        digest.update(piece)
        target.write(piece)
        size += len(piece)
    return Written(size, digest.hexdigest())


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror) if isinstance(error, OSError) and strerror else first_line(error)
