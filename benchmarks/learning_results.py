"""`docs/results.md` and its figures, from the records under `docs/results/learning`.

    python -m benchmarks.learning_results

Groups of records (see `benchmarks.learning_record`): `default` holds one record per seed of the default preset,
`ablation-*` one per seed of a variant (`h200-ablation-*` on another machine, with another budget), `stages` single
stages and several at once, `exploration` the log of what was tried.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks.learning_record import FOLDER
from benchmarks.machine import ROOT
from common.files import write_atomically
from common.validation import STAGES

Record = dict[str, Any]

_PAGE: Final = ROOT / "docs" / "results.md"
_CURVES: Final = FOLDER / "curves.png"
_INTRODUCTION: Final = FOLDER / "introduction.txt"
_ABLATIONS: Final = {
    "ablation-": "What each option buys",
    "h200-ablation-": "The same with 220,000 env steps, on an H200",
}
"""Headings by the prefix of the groups' names, which their variants follow."""
_BUDGET: Final = ("seed", "max_minutes")
_NONE: Final = "\N{EN DASH}"
_DPI: Final = 110


def main() -> int:
    """Writes the page and the figure; returns 0."""
    groups = {folder.name: _load(folder) for folder in sorted(FOLDER.iterdir()) if folder.is_dir()}
    parts = [_INTRODUCTION.read_text(encoding="utf-8").rstrip()]
    if groups.get("default"):
        parts += ["## The default preset, from scratch", _default_table(groups["default"])]
    ablations = {prefix: variants(groups, prefix) for prefix in _ABLATIONS}
    curves = {"default": groups.get("default", []), **ablations["ablation-"]}
    if any(curves.values()):
        _draw(curves)
        parts.append(f"![Clear rate and x over wall time]({_CURVES.relative_to(_PAGE.parent)})")
    for prefix, found in ablations.items():
        if found:
            parts += [f"## {_ABLATIONS[prefix]}", ablation_table(found)]
    rows = (record for name, records in groups.items() if "ablation-" not in name for record in records)
    parts += ["## Stages", _stage_table(rows)]
    if groups.get("exploration"):
        parts += ["## What was tried", _exploration_table(groups["exploration"])]
    write_atomically(_PAGE, ("\n\n".join(parts) + "\n").encode())
    print(_PAGE)
    return 0


def variants(groups: dict[str, list[Record]], prefix: str) -> dict[str, list[Record]]:
    """Those groups whose names begin with `prefix`, by what follows it."""
    return {
        name.removeprefix(prefix): records for name, records in groups.items() if name.startswith(prefix) and records
    }


def _load(folder: Path) -> list[Record]:
    return [{"name": path.stem, **json.loads(path.read_text())} for path in sorted(folder.glob("*.json"))]


def _default_table(records: Sequence[Record]) -> str:
    head = ("seed", "minutes", "env steps", "updates", "first evaluation clear", "measured clear rate", "sticky 0.25")
    rows = [
        (
            str(record["seed"]),
            f"{record['minutes']:.1f}",
            f"{record['env_steps']:,}",
            f"{record['updates']:,}",
            _clock(record["first_clear_s"]),
            _measured(record, sticky=0.0),
            _measured(record, sticky=0.25),
        )
        for record in records
    ]
    return _table(head, rows) + f"\n\nCommand: `{records[0]['command']}`, commit {records[0]['commit']}."


def _measured(record: Record, sticky: float) -> str:
    found = [
        _rate(figures)
        for measured in record["measured"]
        if measured["protocol"]["sticky_actions"] == sticky
        for figures in measured["stages"].values()
    ]
    return "; ".join(found) or _NONE


def _rate(figures: dict[str, Any]) -> str:
    low, high = figures["clear_rate_ci95"]
    return f"{figures['clear_rate']:.1%} of {figures['episodes']} ({low:.1%} to {high:.1%})"


def ablation_table(found: dict[str, list[Record]]) -> str:
    """Markdown, a line per variant, that of the default preset at the same budget first.

    Args:
        found: records by variant, one per seed, at least one each.
    """
    head = ("variant", "seeds", "measured clear rate", "of each seed", "x at the end", "env steps", "changed")
    usual = found["default"][0]["settings"] if "default" in found else {}
    order = sorted(found, key=lambda name: (name != "default", name))
    return _table(head, [_ablation_row(name, found[name], usual) for name in order])


def _ablation_row(name: str, records: Sequence[Record], usual: dict[str, Any]) -> tuple[str, ...]:
    rates = [_clear_rate(record) for record in records]
    return (
        name,
        ", ".join(str(record["seed"]) for record in records),
        f"{statistics.fmean(rates):.0%}",
        ", ".join(f"{rate:.0%}" for rate in rates),
        _range([record["evaluations"][-1]["mean_x"] for record in records], "{:,.0f}"),
        _range([record["env_steps"] for record in records], "{:,.0f}"),
        f"`{_changes(records[0], usual)}`",
    )


def _clear_rate(record: Record) -> float:
    """Of the one stage that an ablation's run was trained and measured on."""
    (result,) = record["measured"]
    (figures,) = result["stages"].values()
    return float(figures["clear_rate"])


def _range(values: Sequence[float], form: str) -> str:
    mean, low, high = (form.format(value) for value in (statistics.fmean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})" if len(values) > 1 else mean


def _changes(record: Record, usual: dict[str, Any] | None = None) -> str:
    """What a run set otherwise than the preset, and than `usual`, which its budget and machine asked of all."""
    own = {
        name: value
        for name, value in record["settings"].items()
        if name not in _BUDGET and (name, value) not in (usual or {}).items()
    }
    return ", ".join(f"{name}={value}" for name, value in own.items()) or _NONE


def _stage_table(records: Iterable[Record]) -> str:
    measured: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for record in records:
        for result in record["measured"]:
            for stage, figures in result["stages"].items():
                if stage in measured and result["protocol"]["sticky_actions"] == 0:
                    trained = f"trained on {' '.join(record['stages'])}"
                    row = (_rate(figures), trained, f"{record['minutes']:.0f} min", f"{record['env_steps']:,}")
                    measured[stage].append(
                        " | ".join((*row, (record["commit"] or _NONE)[:7], f"`{record['command']}`"))
                    )
    rows = [f"| {stage} | {row} |" for stage, found in measured.items() for row in found or [" | | | | |"]]
    head = ("stage", "clear rate (95 % interval)", "policy", "wall time", "env steps", "commit", "command")
    return "\n".join([_table(head, []), *rows])


def _exploration_table(records: Sequence[Record]) -> str:
    head = (
        "run",
        "minutes",
        "env steps",
        "best evaluation",
        "first clear",
        "changed against the preset of its day",
        "note",
    )
    rows = [
        (
            record["name"],
            f"{record['minutes']:.1f}",
            f"{record['env_steps']:,}",
            _best(record["evaluations"]),
            _clock(record["first_clear_s"]),
            f"`{_changes(record)}`",
            record["note"],
        )
        for record in records
    ]
    return _table(head, rows)


def _best(evaluations: Sequence[dict[str, Any]]) -> str:
    if not evaluations:
        return _NONE
    best = max(evaluations, key=lambda each: (each["clear_rate_ci95"][0], each["mean_x"]))
    return f"{best['clears']}/{best['episodes']}, x {best['mean_x']:,.0f}"


def _clock(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _draw(groups: dict[str, list[Record]]) -> None:
    """Each run's evaluations over wall time: a line per run, a colour per group."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("clear_rate", "mean_x"), ("clear rate", "largest x reached, mean"), strict=True
    ):
        for index, (name, records) in enumerate(groups.items()):
            for number, record in enumerate(records):
                points = record["evaluations"]
                axes.plot(
                    [point["time_s"] / 60 for point in points],
                    [point[key] for point in points],
                    color=f"C{index}",
                    label=name if number == 0 else None,
                )
        axes.set_title(f"evaluations beside training: {title}", fontsize=10)
        axes.set_xlabel("minutes")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(_CURVES, dpi=_DPI)


if __name__ == "__main__":
    sys.exit(main())
