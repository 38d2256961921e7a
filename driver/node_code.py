"""What code a node runs; the functions here are sent to nodes as they are, because those may have other ones."""

import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PACKAGES: Final = ("actors", "common", "driver", "learner", "replay")
LIBRARIES: Final = (
    *("gym-super-mario-bros", "lz4", "nes-py", "numpy", "opencv-python-headless", "ray", "stable-retro", "torch"),
)


def describe_code() -> dict[str, str]:
    """SHA-256 of every source file of this project that a process here imports, and the versions of what it needs.

    Torch without its build: a CPU's and a GPU's may be mixed.
    """
    found = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in Path(folder).rglob("*.py"):
                name = f"{package}/{path.relative_to(folder).as_posix()}"
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """What is otherwise there, in words; None if nothing is."""
    names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    files = [name for name in names if "/" in name]
    versions = [name for name in names if "/" not in name]
    parts = [f"{name} {theirs.get(name, 'none')} instead of {ours.get(name, 'none')}" for name in versions]
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        parts.insert(0, f"{files[0]}{more} {'is' if len(files) == 1 else 'are'} not the same")
    return ", ".join(parts) or None
