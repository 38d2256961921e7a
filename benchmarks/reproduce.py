"""Trains the default preset from scratch and says whether the published clear rate held.

    python -m benchmarks.reproduce                  # one seed: 30 minutes of training, then 100 episodes
    python -m benchmarks.reproduce --seeds 1 2 3

Published are the records under `docs/results/learning/default`. The result held unless the measured clear rate's 95 %
interval lies wholly below the published rate, all seeds together; whether each seed also reached the goal (95 %, the
first evaluation clear within eight minutes) is said beside it. Wall time is the budget, so that a slower machine
trains less in it: the agent steps made are printed beside the published runs'.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.learning_record import FOLDER, ended_by
from benchmarks.learning_records import TEST_SEED, Record, load_groups, published_of
from benchmarks.learning_tables import GOAL_EPISODES, GOAL_FIRST_CLEAR_S, GOAL_RATE, clock
from benchmarks.machine import ROOT
from benchmarks.options import at_least
from benchmarks.scripts import Scripts
from common.errors import UserError
from common.statistics import wilson_interval
from driver.limits import DEFAULT_MINUTES
from driver.run_directory import RunDirectory


class Outcome(NamedTuple):
    """What a trained policy was measured to do."""

    clears: int
    episodes: int
    env_steps: int
    first_clear_s: float | None = None

    @property
    def rate(self) -> float:
        """The share of episodes that were clears."""
        return self.clears / self.episodes

    @property
    def reaches_goal(self) -> bool:
        """Whether it clears often enough, and soon enough for the first time."""
        early = self.first_clear_s is not None and self.first_clear_s <= GOAL_FIRST_CLEAR_S
        return early and self.rate >= GOAL_RATE


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 if the result held, 1 if not, 2 after a mistake or a failed run, 130 interrupted."""
    parser = argparse.ArgumentParser(description="Trains the default preset and compares with the published results.")
    parser.add_argument("--seeds", type=at_least(0, int), nargs="+", default=[1], metavar="N", help="default: 1")
    text = "of each training; default: 30"
    parser.add_argument("--minutes", type=at_least(0.1, float), default=DEFAULT_MINUTES, metavar="M", help=text)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs; default: runs")
    options = parser.parse_args(argv)
    try:
        if len(set(options.seeds)) != len(options.seeds):
            raise UserError("--seeds: a seed is named twice")
        runs = {seed: _new_run(options.runs / f"reproduce-{seed}") for seed in options.seeds}
        expected = published(load_groups(FOLDER).get("default", []))
        with Scripts() as scripts:
            outcomes = [_train_and_measure(scripts, run, seed, options.minutes) for seed, run in runs.items()]
    except UserError as error:
        print(f"reproduce: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: interrupted; what was trained lies in its run directory", file=sys.stderr)
        return 130
    print(describe(outcomes, expected))
    return 0 if held(outcomes, expected) else 1


def published(records: Sequence[Record]) -> list[Outcome]:
    """The published seeds' outcomes, without sticky actions.

    Raises:
        UserError: there are none.
    """
    outcomes = [
        Outcome(figures["clears"], figures["episodes"], record["env_steps"], record["first_clear_s"])
        for record in records
        if (figures := published_of(record)) is not None
    ]
    if not outcomes:
        raise UserError("no result of the default preset is published")
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
    lines = [
        f"{'goal reached' if each.reaches_goal else 'goal missed'}: {each.rate:.1%} of {each.episodes} episodes clear, "
        f"the first evaluation clear after {clock(each.first_clear_s)}"
        for each in outcomes
    ]
    lines.append(
        f"{'held' if held(outcomes, expected) else 'NOT held'}: {measured.rate:.1%} of {measured.episodes} episodes "
        f"clear ({low:.1%} to {high:.1%}), published {reference.rate:.1%} of {reference.episodes}; "
        f"env steps {', '.join(f'{each.env_steps:,}' for each in outcomes)}, "
        f"published {min(steps):,} to {max(steps):,}"
    )
    return "\n".join(lines)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(
        sum(each.clears for each in outcomes),
        sum(each.episodes for each in outcomes),
        sum(each.env_steps for each in outcomes),
    )


def _new_run(path: Path) -> Path:
    if path.exists():
        raise UserError(f"{path} is there already: move it away, or name another folder with --runs")
    return path


def _train_and_measure(scripts: Scripts, run: Path, seed: int, minutes: float) -> Outcome:
    _run(scripts, "launch.py", "--seed", str(seed), "--max-minutes", f"{minutes:g}", "--run-dir", str(run))
    result = run / "reproduce.json"
    if ended_by(RunDirectory(run)) is None:
        raise UserError(f"{run} was stopped before {minutes:g} minutes: move it away, and start again")
    measuring = ("--episodes", str(GOAL_EPISODES), "--seed", str(TEST_SEED), "--json", str(result))
    _run(scripts, "evaluate.py", str(run), *measuring)
    figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["stages"]["1-1"]
    last = _lines(run / "progress.jsonl")[-1]
    first_clear = next((line["time_s"] for line in _lines(run / "evaluations.jsonl") if line["clears"]), None)
    return Outcome(figures["clears"], figures["episodes"], last["env_steps"], first_clear)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _run(scripts: Scripts, script: str, *arguments: str) -> None:
    status = scripts.run(script, arguments)
    if status:
        raise UserError(f"{script} ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
