"""The figures of `docs/results.md`: evaluations beside training, over wall time and env steps."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.dqn_curves import band
from benchmarks.learning_records import Record

_DPI: Final = 110
_GRID_POINTS: Final = 101
_COLOUR, _USUAL_COLOUR = "#0072b2", "#7f7f7f"
_FIGURES: Final = {"clear_rate": "clear rate", "mean_x": "largest x reached, mean"}
_PANELS_PER_ROW: Final = 4


def draw_seeds(records: Sequence[Record], path: Path) -> None:
    """Clear rate and x of one setting's seeds: their mean as a line, their range as a band, each as a thin line."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(len(_FIGURES), 2, sharey="row", squeeze=False)
    for row, (figure_name, title) in zip(panels, _FIGURES.items(), strict=True):
        for axes, over in zip(row, ("minutes", "env steps"), strict=True):
            _draw(axes, records, figure_name, over, _COLOUR)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(over)
    figure.savefig(path, dpi=_DPI)


def draw_ablation(found: dict[str, list[Record]], path: Path) -> None:
    """The clear rate over env steps, a panel for each variant, with the default preset's in grey behind it."""
    rows = math.ceil(len(found) / _PANELS_PER_ROW)
    figure = Figure(figsize=(11, 2.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, _PANELS_PER_ROW, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (name, records) in zip(panels, found.items(), strict=False):
        if "default" in found and name != "default":
            _draw(axes, found["default"], "clear_rate", "env steps", _USUAL_COLOUR)
        _draw(axes, records, "clear_rate", "env steps", _COLOUR)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    figure.supxlabel("env steps; blue: the variant, grey: the default preset", fontsize=9)
    figure.savefig(path, dpi=_DPI)


def _draw(axes: Axes, records: Sequence[Record], name: str, over: str, colour: str) -> None:
    curves = [_curve(record, name, over) for record in records if record["evaluations"]]
    for x, y in curves:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.5)
    if len(curves) > 1:
        grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), _GRID_POINTS)
        mean, low, high = band([np.interp(grid, x, y) for x, y in curves])
        axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(grid, mean, color=colour, linewidth=2)
    if name == "clear_rate":
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter("{x:.0%}")
    if over == "env steps":
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    axes.grid(alpha=0.3)


def _curve(record: Record, name: str, over: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = record["evaluations"]
    x = [point["time_s"] / 60 if over == "minutes" else point["env_steps"] for point in points]
    return np.asarray(x, float), np.asarray([point[name] for point in points], float)
