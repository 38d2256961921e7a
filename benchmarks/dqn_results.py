"""The results of a comparison on disk, and what they come to.

One run's results are three files: `NAME-curve.csv`, `NAME-episodes.csv` (the evaluation after training) and, written
last, `NAME.json`, with all that is needed to run it again.
"""

import csv
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

import numpy as np

from benchmarks.dqn_curves import Curve, common_grid, load_curve, rolling_mean, write_curve
from benchmarks.dqn_runs import METHODS, Method
from benchmarks.overestimation import MeasuredEpisode, estimate
from common.errors import UserError
from common.files import write_atomically
from common.statistics import wilson_interval

GRID_POINTS: Final = 201
WINDOW_FRACTION: Final = 0.1
"""Width of the rolling mean, of the shortest run's env steps."""
_RECORD_KEYS: Final = ("method", "seed", "command", "evaluation", "ended_by", "env_steps", "updates", "minutes")


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        record: at least `_RECORD_KEYS`; beside them commit, machine and settings.
        curve: over training.
        episodes: of the evaluation after training.
    """

    record: dict[str, Any]
    curve: Curve
    episodes: list[MeasuredEpisode]

    @property
    def method(self) -> Method:
        """What the target was."""
        method: Method = self.record["method"]
        return method

    @property
    def name(self) -> str:
        """As `RunPlan.name`."""
        return f"{self.method}-seed{self.record['seed']}"


class Figures(NamedTuple):
    """What one run comes to; rolling figures are those at the end of the shortest run."""

    env_steps: float
    updates: float
    minutes: float
    training_return: float  # rolling, the least exploring training episodes
    training_clear_rate: float  # the same
    evaluation_return: float
    evaluation_x: float
    evaluation_clear_rate: float
    predicted: float
    obtained: float
    overestimation: float


class Spread(NamedTuple):
    """Mean and range over runs."""

    mean: float
    low: float
    high: float


def save_result(folder: Path, result: RunResult) -> None:
    """Writes a run's three files, the record last: its presence means that the run is done."""
    folder.mkdir(parents=True, exist_ok=True)
    write_curve(folder / f"{result.name}-curve.csv", result.curve)
    _write_episodes(folder / f"{result.name}-episodes.csv", result.episodes)
    write_atomically(folder / f"{result.name}.json", (json.dumps(result.record, indent=2) + "\n").encode())


def load_record(folder: Path, name: str) -> dict[str, Any] | None:
    """A run's record; None where the run is not done.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or remove it to run it again") from error
    if not isinstance(record, dict) or not record.keys() >= set(_RECORD_KEYS):
        raise UserError(f"{path} is no record of a comparison's run: restore it, or remove it to run it again")
    return record


def load_results(folder: Path) -> list[RunResult]:
    """All runs that are done, by method and seed.

    Raises:
        UserError: a file is damaged, or a method has no run yet.
    """
    results = []
    for path in folder.glob("*-seed*.json"):
        record = load_record(folder, path.stem)
        assert record is not None
        curve = load_curve(folder / f"{path.stem}-curve.csv")
        results.append(RunResult(record, curve, _load_episodes(folder / f"{path.stem}-episodes.csv")))
    for method in METHODS:
        if not any(result.method == method for result in results):
            raise UserError(f"{folder} holds no finished run of {method}: run the comparison first")
    return sorted(results, key=lambda result: (list(METHODS).index(result.method), result.record["seed"]))


def window_width(results: Sequence[RunResult]) -> float:
    """Env steps of the rolling mean."""
    return float(common_grid([result.curve for result in results], GRID_POINTS)[-1] * WINDOW_FRACTION)


def figures(result: RunResult, grid_end: float, window: float) -> Figures:
    """What a run comes to.

    Args:
        result: the run.
        grid_end: env steps at which its training is read off.
        window: env steps of the rolling mean.
    """
    curve, episodes = result.curve, result.episodes
    end = np.array([grid_end])
    values = estimate(episodes)
    return Figures(
        env_steps=result.record["env_steps"],
        updates=result.record["updates"],
        minutes=result.record["minutes"],
        training_return=float(rolling_mean(curve.steps, curve.columns["episode_return"], end, window)[0]),
        training_clear_rate=float(rolling_mean(curve.steps, curve.columns["clear_rate"], end, window)[0]),
        evaluation_return=statistics.fmean(episode.episode_return for episode in episodes),
        evaluation_x=statistics.fmean(episode.x_pos for episode in episodes),
        evaluation_clear_rate=statistics.fmean(episode.clear for episode in episodes),
        predicted=values.predicted,
        obtained=values.obtained,
        overestimation=values.overestimation,
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and range; NaN where a run has no figure."""
    if any(math.isnan(value) for value in values):
        return Spread(math.nan, math.nan, math.nan)
    return Spread(statistics.fmean(values), min(values), max(values))


def summarise(results: Sequence[RunResult]) -> dict[str, Any]:
    """Everything about the comparison, as JSON: each run's record and figures, each method's mean and range."""
    grid_end = float(common_grid([result.curve for result in results], GRID_POINTS)[-1])
    window = window_width(results)
    by_name = {result.name: figures(result, grid_end, window) for result in results}
    methods: dict[str, Any] = {}
    for method in METHODS:
        own = [by_name[result.name] for result in results if result.method == method]
        clears, played = clears_of([result for result in results if result.method == method])
        methods[method] = {
            **{name: _json(spread([getattr(each, name) for each in own])._asdict()) for name in Figures._fields},
            "evaluation_clears": clears,
            "evaluation_episodes": played,
            "evaluation_clear_rate_ci95": list(wilson_interval(clears, played)),
        }
    return {
        "compared_at_env_steps": round(grid_end),
        "rolling_window_env_steps": round(window),
        "methods": methods,
        "runs": {
            result.name: {key: value for key, value in result.record.items() if key != "settings"}
            | {"figures": _json(by_name[result.name]._asdict())}
            for result in results
        },
    }


def clears_of(results: Sequence[RunResult]) -> tuple[int, int]:
    """Cleared and played evaluation episodes of several runs."""
    episodes = [episode for result in results for episode in result.episodes]
    return sum(episode.clear for episode in episodes), len(episodes)


def markdown_table(results: Sequence[RunResult]) -> str:
    """One row per run, and one of mean and range per method."""
    grid_end = float(common_grid([result.curve for result in results], GRID_POINTS)[-1])
    window = window_width(results)
    lines = [
        "| run | env steps | updates | minutes | training return | training clears | evaluation return | "
        "evaluation x | evaluation clears | predicted Q | obtained | overestimation |",
        "|---|" + "--:|" * 11,
    ]
    for method in METHODS:
        own = [result for result in results if result.method == method]
        rows = [figures(result, grid_end, window) for result in own]
        lines += [_row(result.name, row, [result]) for result, row in zip(own, rows, strict=True)]
        lines.append(_mean_row(f"**{method}**, mean (range)", rows, own))
    return "\n".join(lines)


def _row(label: str, row: Figures, results: Sequence[RunResult]) -> str:
    clears, played = clears_of(results)
    cells = [label, *(_cell(name, value) for name, value in row._asdict().items())]
    cells[8] = f"{clears}/{played}"
    return _join(cells)


def _mean_row(label: str, rows: Sequence[Figures], results: Sequence[RunResult]) -> str:
    clears, played = clears_of(results)
    low, high = wilson_interval(clears, played)
    cells = [label]
    for name in Figures._fields:
        mean, lowest, highest = spread([getattr(row, name) for row in rows])
        cells.append(f"{_cell(name, mean)} ({_cell(name, lowest)} … {_cell(name, highest)})")
    cells[8] = f"{clears}/{played} (95 % CI {100 * low:.0f} to {100 * high:.0f} %)"
    return _join(cells)


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    if name.endswith("clear_rate"):
        return f"{100 * value:.0f} %"
    if name in ("predicted", "obtained", "overestimation"):
        return f"{value:.2f}"
    return f"{value:.1f}" if name == "minutes" else f"{value:,.0f}"


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _json(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _write_episodes(path: Path, episodes: Sequence[MeasuredEpisode]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(MeasuredEpisode)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _field(value) for name, value in asdict(episode).items()} for episode in episodes)


def _field(value: float | bool) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "" if math.isnan(value) else f"{value:.7g}"


def _load_episodes(path: Path) -> list[MeasuredEpisode]:
    types = get_type_hints(MeasuredEpisode)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        episodes = [MeasuredEpisode(**{name: _parse(row[name], kind) for name, kind in types.items()}) for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no list of a comparison's episodes ({error}): restore it") from error
    if not episodes:
        raise UserError(f"{path} holds no episode: restore it")
    return episodes


def _parse(field: str, kind: type) -> Any:
    return bool(int(field)) if kind is bool else kind(field or "nan")
