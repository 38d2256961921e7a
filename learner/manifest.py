"""The manifest of a checkpoint folder: size and SHA-256 of every other file in it."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import sync_directory, write_synced

MANIFEST = "manifest.json"
_STEP = re.compile(r"(?:\.aside-)?step-(\d+).*")
OWN_FILES = ("policy.pt", "policy.json", "target.pt", "optimizer.pt", "state.json")
"""What every checkpoint holds beside its manifest."""
OPTIONAL_FILES = ("online.pt",)
"""What it holds as well where weights are averaged."""


def write_manifest(folder: Path, step: int) -> None:
    """Lists what is in the folder now, and flushes the folder to the disk.

    Raises:
        OSError: the manifest cannot be written.
    """
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    data = json.dumps({"step": step, "files": files}, indent=2).encode()
    write_synced(folder / MANIFEST, lambda file: file.write(data))
    sync_directory(folder)


def verify(path: Path, *, extra: bool = True) -> tuple[list[str], int]:
    """The names of the checkpoint's files, and its step.

    Args:
        path: its folder.
        extra: whether the contents of the caller's further files are checked, and not only their sizes.

    Raises:
        UserError: the folder is no checkpoint, has another one's name, or a file in it is missing, cut or changed.
    """
    if not path.is_dir():
        raise UserError(f"there is no checkpoint {path}: give a folder such as checkpoints/step-000000012000")
    files, step = _read_manifest(path)
    if (named := _STEP.fullmatch(path.name)) and int(named[1]) != step:
        raise UserError(f"checkpoint {path} is damaged: its {MANIFEST} is that of step {step}; take another one")
    for name, expected in files.items():
        own = name in (*OWN_FILES, *OPTIONAL_FILES)
        reason = _damage(path / name, expected, contents=own or extra)
        if reason is not None:
            raise UserError(f"checkpoint {path} is damaged: {name} {reason}; take an earlier one")
    return list(files), step


def has_all_sizes(path: Path) -> bool:
    """Whether the checkpoint looks whole; a cheaper question than `verify`'s."""
    try:
        files, _ = _read_manifest(path)
        return all((path / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (UserError, OSError, ValueError):
        return False


def read_step(path: Path) -> int:
    """The step of a checkpoint's folder, whatever that is called.

    Raises:
        UserError: its manifest is missing or damaged.
    """
    _, step = _read_manifest(path)
    return step


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in one file of a checkpoint.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path.parent} is damaged: {path.name} is missing; take an earlier one") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"checkpoint {path.parent} is damaged: {path.name} is no JSON; take an earlier one") from error
    if not isinstance(value, dict):
        raise UserError(f"checkpoint {path.parent} is damaged: {path.name} is no object; take an earlier one")
    return value


def _read_manifest(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    manifest = read_json(path / MANIFEST)
    try:
        files, step = manifest["files"], manifest["step"]
        well_formed = (
            type(step) is int
            and step >= 0
            and all(Path(name).name == name and {"bytes", "sha256"} <= entry.keys() for name, entry in files.items())
        )
    except (KeyError, TypeError, AttributeError):
        well_formed = False
    if not well_formed or not files.keys() >= set(OWN_FILES):
        raise UserError(f"checkpoint {path} is damaged: {MANIFEST} is not a checkpoint's; take an earlier one")
    return files, step


def _damage(file: Path, expected: Mapping[str, Any], *, contents: bool) -> str | None:
    """What is wrong with a file, or None."""
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            return f"has {size} bytes instead of {expected['bytes']}"
        return None if not contents or _sha256(file) == expected["sha256"] else "has a wrong checksum"
    except (FileNotFoundError, ValueError):  # no file can have such a name
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
