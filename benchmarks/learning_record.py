"""Keeps a training run as a record that `benchmarks.learning_results` makes tables and curves of.

    python -m benchmarks.learning_record RUN --group default --note "what was asked" --evaluation out.json
    python -m benchmarks.learning_record RUN --group exploration --name smaller-network

A record is one JSON file, `docs/results/learning/GROUP/NAME.json`: settings that differ from the preset, commit,
machine, counters, the evaluations beside training, and what `evaluate.py --json` wrote about the run's policy: the
figures, and `clears_in_order`, a 1 or 0 for each episode. Make it on the run's machine with the run's code: its
settings are compared with the preset as it is here, and the machine described is this one.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe_machine
from common.errors import UserError
from common.files import write_atomically
from common.presets import PRESETS
from driver.counters import Counters
from driver.limits import Limits
from driver.options import flatten, load_config
from driver.run_directory import RunDirectory

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "results" / "learning"
# Where a run lies and how it is watched says nothing about what it learned.
_WATCHING: Final = ("checkpoint.", "ray.", "eval.video", "print_episodes")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(description="Keeps a training run as a record under docs/results/learning.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--group", required=True, help="folder of the record, such as default or ablation")
    parser.add_argument("--name", help="of the record; default: the run folder's")
    parser.add_argument("--note", default="", help="one line: what was asked, or what came out")
    parser.add_argument("--evaluation", type=Path, nargs="*", default=[], help="files of evaluate.py --json")
    options = parser.parse_args(argv)
    try:
        record = make_record(options.run, options.note, options.evaluation)
        path = FOLDER / options.group / f"{options.name or options.run.resolve().name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    except UserError as error:
        print(f"learning_record: error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def make_record(run: Path, note: str, evaluations: Sequence[Path]) -> dict[str, Any]:
    """The record of a run's folder.

    Raises:
        UserError: the folder is no run, or a file cannot be read.
    """
    folder = RunDirectory(run)
    folder.check_resumable()
    metadata = _read(folder.metadata_path)
    if "command" not in metadata:
        raise UserError(f"{run} is of a version that did not keep a run's command")
    if metadata.get("preset") not in PRESETS:
        raise UserError(f"{run} is of the preset {metadata.get('preset')!r}, which this version does not have")
    base, own = flatten(PRESETS[metadata["preset"]]), flatten(load_config(folder.config_path))
    changes = {name: value for name, value in own.items() if value != base[name] and not name.startswith(_WATCHING)}
    progress = _lines(folder.progress_path)
    if not progress:
        raise UserError(f"{run} has no progress yet: record it when it has trained")
    last, beside = progress[-1], _lines(folder.evaluations_path)
    return {
        "note": note,
        "command": _command(metadata["command"]),
        **{name: metadata.get(name) for name in ("commit", "uncommitted_changes")},
        "seed": own["seed"],
        "stages": own["env.stages"],
        "settings": changes,
        "machine": describe_machine(),
        "minutes": round(max(line["time_s"] for line in (last, *beside)) / 60, 2),
        **{name: last[name] for name in ("env_steps", "episodes", "updates", "samples", "restarts")},
        "first_clear_s": next((e["time_s"] for e in beside if e["clears"]), None),
        "evaluations": beside,
        "measured": [_measured(path) for path in evaluations],
    }


def ended_by(folder: RunDirectory) -> str | None:
    """Which of its limits ended a run, in words; None if somebody stopped it, which it ends just as quietly after.

    Raises:
        UserError: the folder is no run with progress.
    """
    progress = _lines(folder.progress_path)
    if not progress:
        raise UserError(f"{folder.path} has no progress")
    last = {name: progress[-1][name] for name in ("time_s", "env_steps", "episodes", "updates")}
    return Limits.of(load_config(folder.config_path)).reached(Counters(**last))


def _measured(path: Path) -> dict[str, Any]:
    """`evaluate.py`'s result: its protocol and each stage's figures, of its episodes whether each was a clear."""
    result = _read(path)
    try:
        stages = {stage: _figures(figures) for stage, figures in result["stages"].items()}
        return {"protocol": result["protocol"], "stages": stages}
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} was not written by evaluate.py --json") from None


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    clears = "".join(str(int(episode["clear"])) for episode in figures["per_episode"])
    return {name: value for name, value in figures.items() if name != "per_episode"} | {"clears_in_order": clears}


def _command(command: str) -> str:
    """The run's own, without the folder that it was written to."""
    words = [word for word in shlex.split(command) if not word.startswith("--run-dir=")]
    if "--run-dir" in words:
        place = words.index("--run-dir")
        del words[place : place + 2]
    return shlex.join(words)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return value


if __name__ == "__main__":
    sys.exit(main())
