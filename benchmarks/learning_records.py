"""Records of trainings, as `benchmarks.learning_record` keeps them, read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from common.errors import UserError

Record = dict[str, Any]

_KEYS: Final = (
    *("note", "command", "commit", "uncommitted_changes", "seed", "stages", "settings", "machine", "minutes"),
    *("env_steps", "updates", "first_clear_s", "evaluations", "measured"),
)

MINUTES: Final = "max_minutes"
ENV_STEPS: Final = "total_env_steps"
BUDGETS: Final = MappingProxyType({MINUTES: "{:g} minutes", ENV_STEPS: "{:,.0f} env steps"})
"""The settings that end a recorded training, each with the words for its amount."""

TEST_SEED: Final = 7
"""`evaluate.py --seed` of the published figures. Its default, 0, was looked at while the default preset was made."""


def load_groups(folder: Path) -> dict[str, list[Record]]:
    """The records by group, in the order of their names.

    Raises:
        UserError: a file is no record.
    """
    return {path.name: _load(path) for path in sorted(folder.iterdir()) if path.is_dir()}


def figures_of(record: Record, stage: str, *, seed: int, sticky: float = 0.0) -> dict[str, Any] | None:
    """What a run's policy did in a stage, measured by one protocol; None if it was not."""
    for measured in record["measured"]:
        protocol = measured["protocol"]
        if (protocol["seed"], protocol["sticky_actions"]) == (seed, sticky) and stage in measured["stages"]:
            figures: dict[str, Any] = measured["stages"][stage]
            return figures
    return None


def published_of(record: Record, sticky: float = 0.0) -> dict[str, Any] | None:
    """The published figures in the first stage that a run trained on; None if there are none yet."""
    return figures_of(record, record["stages"][0], seed=TEST_SEED, sticky=sticky)


def variants(groups: dict[str, list[Record]], prefix: str) -> dict[str, list[Record]]:
    """Those groups that are called PREFIX-VARIANT, by variant."""
    start = f"{prefix}-"
    return {name.removeprefix(start): records for name, records in groups.items() if name.startswith(start) and records}


def changes(record: Record, usual: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a run set otherwise than the preset, and than `usual`, which its budget and machine asked of all."""
    common = (usual or {}).items()
    return {
        name: value
        for name, value in record["settings"].items()
        if name not in ("seed", *BUDGETS) and (name, value) not in common
    }


def budget(record: Record) -> str:
    """What ended a run that nobody stopped, in words."""
    settings = record["settings"]
    return ", ".join(words.format(settings[name]) for name, words in BUDGETS.items() if name in settings)


def machines(records: Sequence[Record]) -> str:
    """The processors, and GPUs, that the runs were made with."""
    return "; ".join(dict.fromkeys(_machine(record["machine"]) for record in records))


def _machine(machine: dict[str, Any]) -> str:
    arithmetic = {True: " (bf16)", False: " (without bf16)", None: ""}[machine.get("cpu_bfloat16")]
    gpu = "" if machine["gpu"] is None else f", {machine['gpu']}"
    versions = f"Python {machine['python']}, PyTorch {machine['torch']}"
    return f"{machine['cores']} cores of {machine['cpu']}{arithmetic}{gpu}, {versions}"


def _load(folder: Path) -> list[Record]:
    return [{"name": path.stem, **record} for path, record in _read_all(folder)]


def _read_all(folder: Path) -> Iterator[tuple[Path, Record]]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            missing = set(_KEYS) - set(record)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        if missing:
            raise UserError(f"{path} is no record of a training: it lacks {', '.join(sorted(missing))}")
        yield path, record
