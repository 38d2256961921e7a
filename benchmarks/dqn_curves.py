"""Learning curves of several runs: read from TensorBoard's files, thinned for a CSV, smoothed, and aggregated."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import UserError

COLUMNS: Final[dict[str, str]] = {
    "episode_return": "actor/episode_return",
    "clear_rate": "actor/clear_rate",
    "q_mean": "learner/q_mean",
}
"""A curve's column and the metric that it comes from. Of the training episodes only those count that explored the
least: with a probability below 0.01 on the ladder of the default preset."""

_BANDS: Final = ("/eps_below_0.01", "/eps_0.01_to_0.1", "/eps_above_0.1", "")

_STEPS = "env_steps"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Figures of one run over its env steps.

    Attributes:
        steps: float64 [N], ascending.
        columns: float64 [N] by the names of `COLUMNS`; NaN where there is no figure.
    """

    steps: Array
    columns: dict[str, Array]


class Band(NamedTuple):
    """Mean and range over runs, float64 [G] each; NaN where a run has no figure."""

    mean: Array
    low: Array
    high: Array


def read_curve(run: Path) -> Curve:
    """The curve of a run directory; each point is the mean over the few seconds since the one before."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    known = events.Tags()["scalars"]
    points = {}
    for name, metric in COLUMNS.items():
        tag = next((metric + band for band in _BANDS if metric + band in known), None)
        points[name] = {} if tag is None else {event.step: event.value for event in events.Scalars(tag)}
    return curve_of(points)


def curve_of(points: Mapping[str, Mapping[int, float]]) -> Curve:
    """One table of several series of (env steps: value)."""
    steps = sorted({step for series in points.values() for step in series})
    columns = {name: np.array([series.get(step, np.nan) for step in steps]) for name, series in points.items()}
    return Curve(np.array(steps, np.float64), columns)


def thin(curve: Curve, rows: int) -> Curve:
    """At most `rows` points: means of neighbours, as many in each block as can be, NaN left out.

    Raises:
        ValueError: `rows` is less than 1.
    """
    if rows < 1:
        raise ValueError(f"a curve cannot be thinned to {rows} rows")
    if len(curve.steps) <= rows:
        return curve
    return Curve(
        _block_means(curve.steps, rows), {name: _block_means(column, rows) for name, column in curve.columns.items()}
    )


def rolling_mean(steps: Array, values: Array, grid: Array, window: float) -> Array:
    """Mean of the values at steps within (g - window, g] for each g of the grid; NaN where there is none.

    Args:
        steps: float64 [N].
        values: float64 [N]; NaN is left out.
        grid: float64 [G].
        window: width, env steps.
    """
    within = (steps > grid[:, None] - window) & (steps <= grid[:, None]) & ~np.isnan(values)  # [G, N]
    counts = within.sum(axis=1)
    sums = np.where(within, values, 0.0).sum(axis=1)
    means: Array = np.divide(sums, counts, out=np.full(len(grid), np.nan), where=counts > 0)
    return means


def common_grid(curves: Sequence[Curve], points: int) -> Array:
    """Env steps from 0 to the end of the shortest run, float64 [points]: no curve is compared beyond another."""
    return np.linspace(0, min(curve.steps[-1] if len(curve.steps) else 0.0 for curve in curves), points)


def band(rows: Sequence[Array]) -> Band:
    """Mean and range of several runs' smoothed curves, [G] each."""
    table = np.stack(rows)
    return Band(table.mean(axis=0), table.min(axis=0), table.max(axis=0))


def write_curve(path: Path, curve: Curve) -> None:
    """A CSV with a column for the env steps and one for each figure; an empty field where there is none."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_STEPS, *curve.columns])
        for step, *values in zip(curve.steps, *curve.columns.values(), strict=True):
            writer.writerow([f"{step:.0f}", *("" if np.isnan(value) else f"{value:.6g}" for value in values)])


def load_curve(path: Path) -> Curve:
    """What `write_curve` wrote; UserError where it is not that."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        table = np.array([[float(field or "nan") for field in row] for row in rows]).reshape(len(rows), len(header))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no curve of a comparison ({error}): restore it") from error
    if header != [_STEPS, *COLUMNS]:
        raise UserError(f"{path} has other columns than {', '.join([_STEPS, *COLUMNS])}: restore it")
    return Curve(table[:, 0], {name: table[:, index] for index, name in enumerate(COLUMNS, start=1)})


def _block_means(values: Array, blocks: int) -> Array:
    return np.array([_mean(block) for block in np.array_split(values, blocks)])


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
