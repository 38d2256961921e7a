"""Trains the default preset from scratch and says whether the published clear rate held.

    python -m benchmarks.reproduce                  # one seed: 30 minutes of training, then 100 episodes
    python -m benchmarks.reproduce --seeds 1 2 3

Published are the records under `docs/results/learning/default`. The result held unless the measured clear rate's 95 %
interval lies wholly below the published one, all seeds together. Wall time is the budget, so that a slower machine
trains less in it: the agent steps made are printed beside the published runs'.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.learning_record import FOLDER
from benchmarks.machine import ROOT
from common.errors import UserError
from common.statistics import wilson_interval
from driver.limits import DEFAULT_MINUTES

_EPISODES = 100


class Outcome(NamedTuple):
    """What a trained policy was measured to do."""

    clears: int
    episodes: int
    env_steps: int

    @property
    def rate(self) -> float:
        """The share of episodes that were clears."""
        return self.clears / self.episodes


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 if the result held, 1 if not, 2 after a mistake or where a run failed."""
    parser = argparse.ArgumentParser(description="Trains the default preset and compares with the published results.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="of each training; default: 30")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs; default: runs")
    options = parser.parse_args(argv)
    try:
        runs = {seed: _new_run(options.runs / f"reproduce-{seed}") for seed in options.seeds}
        expected = published(FOLDER / "default")
        outcomes = [_train_and_measure(run, seed, options.minutes) for seed, run in runs.items()]
    except UserError as error:
        print(f"reproduce: error: {error}", file=sys.stderr)
        return 2
    print(describe(outcomes, expected))
    return 0 if held(outcomes, expected) else 1


def published(folder: Path) -> list[Outcome]:
    """The published seeds' outcomes, without sticky actions.

    Raises:
        UserError: there are none.
    """
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    outcomes = [
        Outcome(figures["clears"], figures["episodes"], record["env_steps"])
        for record in records
        for measured in record["measured"]
        if measured["protocol"]["sticky_actions"] == 0
        for figures in measured["stages"].values()
    ]
    if not outcomes:
        raise UserError(f"no result is published under {folder}")
    return outcomes


def held(outcomes: Sequence[Outcome], expected: Sequence[Outcome]) -> bool:
    """Whether the upper end of the measured rate's interval reaches the published rate."""
    measured, reference = _together(outcomes), _together(expected)
    return wilson_interval(measured.clears, measured.episodes)[1] >= reference.rate


def describe(outcomes: Sequence[Outcome], expected: Sequence[Outcome]) -> str:
    """The verdict, with the figures that it comes from."""
    measured, reference = _together(outcomes), _together(expected)
    low, high = wilson_interval(measured.clears, measured.episodes)
    steps = [each.env_steps for each in expected]
    return (
        f"{'held' if held(outcomes, expected) else 'NOT held'}: {measured.rate:.1%} of {measured.episodes} episodes "
        f"clear ({low:.1%} to {high:.1%}), published {reference.rate:.1%} of {reference.episodes}; "
        f"env steps {', '.join(f'{each.env_steps:,}' for each in outcomes)}, "
        f"published {min(steps):,} to {max(steps):,}"
    )


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*(sum(values) for values in zip(*outcomes, strict=True)))


def _new_run(path: Path) -> Path:
    if path.exists():
        raise UserError(f"{path} is there already: move it away, or name another folder with --runs")
    return path


def _train_and_measure(run: Path, seed: int, minutes: float) -> Outcome:
    _run("launch.py", "--seed", str(seed), "--max-minutes", f"{minutes:g}", "--run-dir", str(run))
    result = run / "reproduce.json"
    _run("evaluate.py", str(run), "--episodes", str(_EPISODES), "--json", str(result))
    figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["stages"]["1-1"]
    last = json.loads((run / "progress.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return Outcome(figures["clears"], figures["episodes"], last["env_steps"])


def _run(script: str, *arguments: str) -> None:
    status = subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=ROOT, check=False).returncode
    if status:
        raise UserError(f"{script} ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
