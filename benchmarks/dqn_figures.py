"""The comparison's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.dqn_curves import COLUMNS, band, common_grid, rolling_mean
from benchmarks.dqn_results import GRID_POINTS, RunResult, window_width
from benchmarks.dqn_runs import METHODS, Method
from benchmarks.overestimation import Estimate, estimate

LEARNING: Final = "learning.png"
OVERESTIMATION: Final = "overestimation.png"

_LABELS: Final[dict[Method, str]] = {"double-dqn": "double DQN", "dqn": "DQN"}
_COLOURS: Final[dict[Method, str]] = {"double-dqn": "#0072b2", "dqn": "#d55e00"}  # told apart by the colour-blind too
_TITLES: Final = {
    "episode_return": "return of the least exploring training episodes",
    "clear_rate": "share of them that cleared the stage",
    "q_mean": "mean Q-value of the trained batches",
}
_DPI: Final = 110


def draw(results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Writes the figures into a folder; returns their paths."""
    figures = {LEARNING: learning_figure(results), OVERESTIMATION: overestimation_figure(results)}
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=_DPI)
    return [folder / name for name in figures]


def learning_figure(results: Sequence[RunResult]) -> Figure:
    """Rolling figures over env steps: mean over seeds as a line, their range as a band, each seed as a thin line."""
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    grid = common_grid([result.curve for result in results], GRID_POINTS)
    window = window_width(results)
    for axes, column in zip(figure.subplots(1, len(COLUMNS)), COLUMNS, strict=True):
        for method in METHODS:
            _draw_band(axes, [result for result in results if result.method == method], column, grid, window)
        axes.set_title(_TITLES[column], fontsize=10)
        axes.set_xlabel("env steps")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(0, max(1.0, grid[-1]))
        axes.grid(alpha=0.3)
        if column == "clear_rate":
            axes.set_ylim(bottom=0, top=max(0.05, axes.get_ylim()[1]))
            axes.yaxis.set_major_formatter("{x:.0%}")
        if column == "episode_return":
            axes.legend(loc="upper left", frameon=False)
    seeds = len({result.record["seed"] for result in results})
    note = f"rolling mean over {window:,.0f} env steps; line and band: mean and range of {seeds} seeds"
    figure.supxlabel(note, fontsize=9)
    return figure


def overestimation_figure(results: Sequence[RunResult]) -> Figure:
    """What each policy expects of the states that it visits, against what it obtains; and the difference."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    values, difference = figure.subplots(1, 2)
    for place, method in enumerate(METHODS):
        own = [estimate(result.episodes) for result in results if result.method == method]
        _draw_pairs(values, place, own, _COLOURS[method])
        _draw_differences(difference, place, own, _COLOURS[method])
    values.set_title("predicted (filled) and obtained (hollow), per seed", fontsize=10)
    values.set_ylabel("discounted return, scaled rewards")
    difference.set_title("overestimation per seed; bar: their mean", fontsize=10)
    difference.axhline(0, color="black", linewidth=0.8)
    for axes in (values, difference):
        axes.set_xticks(range(len(METHODS)), [_LABELS[method] for method in METHODS])
        axes.set_xlim(-0.6, len(METHODS) - 0.4)
        axes.grid(axis="y", alpha=0.3)
    return figure


def _draw_band(axes: Axes, results: Sequence[RunResult], column: str, grid: NDArray[np.float64], window: float) -> None:
    method = results[0].method
    colour = _COLOURS[method]
    rows = [rolling_mean(result.curve.steps, result.curve.columns[column], grid, window) for result in results]
    mean, low, high = band(rows)
    axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    for row in rows:
        axes.plot(grid, row, color=colour, linewidth=0.7, alpha=0.45)
    axes.plot(grid, mean, color=colour, linewidth=2, label=_LABELS[method])


def _draw_pairs(axes: Axes, place: int, estimates: Sequence[Estimate], colour: str) -> None:
    for x, (predicted, obtained) in zip(_spread_out(place, len(estimates)), estimates, strict=True):
        axes.plot([x, x], [predicted, obtained], color=colour, linewidth=1)
        axes.plot(x, predicted, "o", color=colour)
        axes.plot(x, obtained, "o", color=colour, markerfacecolor="white")


def _draw_differences(axes: Axes, place: int, estimates: Sequence[Estimate], colour: str) -> None:
    differences = [each.overestimation for each in estimates]
    axes.bar(place, float(np.mean(differences)), width=0.6, color=colour, alpha=0.3)
    axes.plot(_spread_out(place, len(estimates)), differences, "o", color=colour)


def _spread_out(place: int, count: int) -> list[float]:
    """Places of several points beside each other."""
    return [place + 0.12 * (index - (count - 1) / 2) for index in range(count)]
