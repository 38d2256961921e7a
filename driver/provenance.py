"""What a run is made from: its command and the code's commit."""

import secrets
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_GIT_TIMEOUT_S = 10.0


def describe_origin(preset: str, arguments: Sequence[str]) -> dict[str, Any]:
    """For `run.json`; nothing of the user's environment is in it.

    Args:
        preset: the run's.
        arguments: `launch.py`'s.

    Returns:
        `id`, that no other run has, `preset`, `version`, `command` and what `describe_commit` says.
    """
    return {
        "id": secrets.token_hex(8),
        "preset": preset,
        "version": version("apex-mario"),
        "command": shlex.join(["python", "launch.py", *arguments]),
        **describe_commit(),
    }


def describe_commit() -> dict[str, Any]:
    """The commit, and whether files beside documentation and results differ from it; None where there is no git."""
    changes = _git("status", "--porcelain", "--", ".", ":(exclude)docs")
    return {"commit": _git("rev-parse", "HEAD"), "uncommitted_changes": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
