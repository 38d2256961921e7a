"""Under which names a run's checkpoints lie: those that are found again, and those that were set aside."""

import itertools
import re
from pathlib import Path
from typing import Final

from common.errors import UserError

REPLACED_SUFFIX: Final = ".replaced"
_STEP_PATTERN: Final = re.compile(r"step-(\d{12,})(\.replaced)?")
_ASIDE_PREFIX: Final = ".aside-"
_ASIDE_PATTERN: Final = re.compile(r"\.aside-(step-\d{12,})(\.replaced)?(\.\d+)?")


def checkpoint_folders(root: Path) -> list[Path]:
    """The folders of all checkpoints, newest first; one that is being replaced comes after its successor."""
    found = []
    for path in root.glob("step-*"):
        match = _STEP_PATTERN.fullmatch(path.name)
        if match and path.is_dir():
            found.append((int(match[1]), match[2] is None, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def has_checkpoint_name(path: Path) -> bool:
    """Whether a folder is called as checkpoints are, or as those that were set aside."""
    return any(pattern.fullmatch(path.name) for pattern in (_STEP_PATTERN, _ASIDE_PATTERN))


def return_to(root: Path, chosen: Path) -> tuple[Path, dict[str, Path]]:
    """Makes a checkpoint the newest one that is found: newer ones are set aside, and one that was has its name back.

    Args:
        root: the folder of all checkpoints of a run.
        chosen: one of them, or a link to one.

    Returns:
        Where it is now; and where the newer ones are, by the names that they had.

    Raises:
        UserError: it is none of them; nothing is renamed.
        OSError: one cannot be renamed.
    """
    path, aside = chosen.resolve(), dict[str, Path]()
    hidden = _ASIDE_PATTERN.fullmatch(path.name)
    if hidden and path.is_dir() and path.parent == root.resolve():
        name = root / hidden[1]
        if name.exists():  # the run came to that step once more
            aside[name.name] = _set_aside(name)
        path = path.rename(name).resolve()
    folders = checkpoint_folders(root)
    place = next((number for number, folder in enumerate(folders) if folder.resolve() == path), None)
    if place is None:
        raise UserError(f"{chosen} is no checkpoint in {root}; name a folder such as {root}/step-…")
    aside |= {folder.name: _set_aside(folder) for folder in folders[:place]}
    return folders[place], aside


def _set_aside(path: Path) -> Path:
    """Takes its name away; where it is now."""
    names = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
    free = (aside for end in names if not (aside := path.with_name(f"{_ASIDE_PREFIX}{path.name}{end}")).exists())
    return path.rename(next(free))
