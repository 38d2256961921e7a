"""A run's checkpoints at a URI, each of them a whole run directory.

    URI/owner.json                       the run, and the session of it that writes here
    URI/step-000000012000-20261124T145020Z-3f9a/
        config.yaml, run.json, best.pt, mario.csv, …, checkpoints/step-000000012000/…
        manifest.json                    size and SHA-256 of every other file, written last

A copy counts once its manifest is there. No two copies have the same name, and no file of one is written twice:
whatever is cut short, or written by two sessions at once, damages no copy that was complete before.
"""

import hashlib
import io
import json
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from common.errors import UserError
from driver.store import MissingError, Store, StoreError, Written
from learner.manifest import MANIFEST

_OWNER: Final = "owner.json"
_NAME: Final = re.compile(r"step-(\d{12,})-\d{8}T\d{6}Z-[0-9a-f]{4}")
_ASIDE: Final = "aside-manifest.json"


class DamagedCopyError(Exception):
    """A copy that is not as its manifest says; the message is what is wrong with it."""


class LostOwnershipError(StoreError):
    """Another session of the run writes to the URI now."""


@dataclass(frozen=True)
class Copy:
    """A folder of a checkpoint's copy.

    Attributes:
        name: of the folder.
        complete: whether its manifest is there.
        files: paths below the URI.
    """

    name: str
    complete: bool
    files: tuple[str, ...]

    @property
    def step(self) -> int:
        """The learner's updates."""
        return step_of(self.name)


def step_of(name: str) -> int:
    """The learner's updates, by a copy's name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else -1


def find_copies(store: Store) -> list[Copy]:
    """All copies at a URI, complete or not, newest first; without those that were set aside.

    Raises:
        StoreError: they cannot be listed.
    """
    folders: dict[str, list[str]] = {}
    for path in store.sizes():
        name, slash, _ = path.partition("/")
        if slash and _NAME.fullmatch(name):
            folders.setdefault(name, []).append(path)
    return [
        Copy(name, f"{name}/{MANIFEST}" in folders[name], tuple(folders[name]))
        for name in sorted(folders, reverse=True)
        if f"{name}/{_ASIDE}" not in folders[name]
    ]


def new_name(step: int) -> str:
    """The name of a copy that is made now; no other gets it."""
    return f"step-{step:012d}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def publish(store: Store, name: str, files: Mapping[str, BinaryIO], check: Callable[[], None] = lambda: None) -> int:
    """Makes a copy.

    Args:
        store: where.
        name: its folder, as `new_name` gives it.
        files: by path in the run's directory, each at its beginning.
        check: is called before the copy counts, which an upload of minutes has come before.

    Returns:
        Its size, bytes.

    Raises:
        StoreError: it could not be written, or `check` raised that; it does not count then.
    """
    written = {path: store.upload(f"{name}/{path}", file) for path, file in files.items()}
    manifest = {
        "step": step_of(name),
        "files": {path: {"bytes": each.size, "sha256": each.sha256} for path, each in written.items()},
    }
    check()
    store.upload(f"{name}/{MANIFEST}", io.BytesIO(json.dumps(manifest, indent=2).encode()))
    return sum(each.size for each in written.values())


def read_manifest(store: Store, name: str) -> dict[str, Written]:
    """The files of a copy by their paths in a run's directory.

    Raises:
        DamagedCopyError: the manifest is missing or no manifest.
        StoreError: it cannot be read.
    """
    try:
        files = json.loads(store.read(f"{name}/{MANIFEST}"))["files"]
        listed = {str(path): Written(int(entry["bytes"]), str(entry["sha256"])) for path, entry in files.items()}
    except MissingError:
        raise DamagedCopyError("it has no manifest") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedCopyError("its manifest is none") from None
    if not all(_is_inside(path) for path in listed):
        raise DamagedCopyError("its manifest names files outside of the run")
    return listed


def fetch(store: Store, name: str, folder: Path) -> None:
    """Makes a copy's files in an empty folder, and checks each against the manifest.

    Raises:
        DamagedCopyError: a file is missing, cut or changed.
        StoreError: the URI cannot be read.
        OSError: the folder cannot be written.
    """
    for path, expected in read_manifest(store, name).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as file:
                found = store.download(f"{name}/{path}", file)
        except MissingError:
            raise DamagedCopyError(f"{path} is missing") from None
        if found.size != expected.size:
            raise DamagedCopyError(f"{path} has {found.size} bytes instead of {expected.size}")
        if found.sha256 != expected.sha256:
            raise DamagedCopyError(f"{path} has a wrong checksum")


def prune(store: Store, keep: int) -> None:
    """Removes all copies but the newest `keep` complete ones; also what was left incomplete.

    Raises:
        StoreError: something cannot be removed.
    """
    copies = find_copies(store)
    kept = [copy.name for copy in copies if copy.complete][:keep]
    for copy in copies:
        if copy.name not in kept:
            remove(store, copy)


def remove(store: Store, copy: Copy) -> None:
    """Removes a copy, the manifest first, so that an interruption leaves none that looks complete."""
    if copy.complete:
        store.remove(f"{copy.name}/{MANIFEST}")
    with suppress(MissingError):  # where the manifest was all, or another session was faster
        store.remove_folder(copy.name)


def identity(metadata: Path) -> str:
    """What tells a run from every other, from its `run.json`."""
    return hashlib.sha256(metadata.read_bytes()).hexdigest()


class Ownership:
    """One session's right to write to a URI; the newest session's, so that a run which goes on elsewhere is alone.

    Args:
        store: the URI.
        run: `identity` of the run.
    """

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._session = secrets.token_hex(8)

    def take(self) -> None:
        """Takes it from whom had it.

        Raises:
            StoreError: the URI cannot be written.
        """
        data = {"run": self._run, "session": self._session}
        self._store.write(_OWNER, json.dumps(data).encode())

    def check(self) -> None:
        """Raises LostOwnershipError where another session took it since, StoreError where that cannot be read."""
        if read_owner(self._store).get("session") != self._session:
            raise LostOwnershipError("this run goes on from there elsewhere, or another one writes there now")


def read_owner(store: Store) -> dict[str, Any]:
    """What `Ownership.take` wrote last; empty where that is nothing.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        owner = json.loads(store.read(_OWNER))
    except (MissingError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def check_writable(store: Store) -> None:
    """Writes and removes a file; nothing is left.

    Raises:
        StoreError: one of both cannot be done.
    """
    store.check_parent()
    probe = f".probe-{secrets.token_hex(8)}"
    with store.leaving_no_folder():
        store.write(probe, b"x")
        store.remove(probe)


def refuse_others(store: Store, option: str, run: str | None, step: int, *, take_back: bool) -> None:
    """Whether a run may write its checkpoints to a URI.

    Args:
        store: the URI.
        option: that named it, for messages.
        run: `identity` of a run that is resumed, None for a new one.
        step: that the run starts from.
        take_back: whether what is newer there is to be given up for it.

    Raises:
        UserError: there is another run's, or more of this one than it starts from.
        StoreError: the URI cannot be read.
    """
    copies = find_copies(store)
    if copies and (run is None or read_owner(store).get("run", run) != run):
        raise UserError(
            f"{option} {store.uri} holds another run's checkpoints: name another place, or go on with that run by "
            f"--resume {store.uri}"
        )
    newer = [copy for copy in copies if copy.complete and copy.step > step]
    if newer and not take_back:
        raise UserError(
            f"{option} {store.uri} holds a newer checkpoint of this run, {newer[0].name}: go on from it by "
            f"--resume {store.uri}, or name an earlier one by --resume-from"
        )


def set_aside_newer(store: Store, step: int) -> list[str]:
    """Gives the manifests of copies that are newer than a step another name, so that they are no longer found; which.

    Object storage cannot rename a folder.

    Raises:
        StoreError: one cannot be renamed.
    """
    aside = []
    for copy in find_copies(store):
        if copy.complete and copy.step > step:
            store.write(f"{copy.name}/{_ASIDE}", store.read(f"{copy.name}/{MANIFEST}"))
            store.remove(f"{copy.name}/{MANIFEST}")
            aside.append(copy.name)
    return aside


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not path.startswith("/") and "\\" not in path and "\0" not in path
