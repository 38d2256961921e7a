"""The tables of `docs/results.md`, in Markdown."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.learning_records import TEST_SEED, Record, budget, changes, figures_of, machines, published_of
from common.errors import UserError
from common.statistics import wilson_interval
from common.validation import STAGES
from driver import display

GOAL_RATE: Final = 0.95
AIM_RATE: Final = 0.98  # with it the goal's test is safe to pass
GOAL_EPISODES: Final = 100
GOAL_FIRST_CLEAR_S: Final = 8 * 60.0
_NONE: Final = "\N{EN DASH}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def clock(seconds: float | None) -> str:
    """As `launch.py` shows times; a dash where there is none."""
    return _NONE if seconds is None else display.clock(seconds)


def default_table(records: Sequence[Record]) -> str:
    """A row for each seed of the default preset."""
    head = (
        *("seed", "wall minutes", "env steps", "updates", "first evaluation clear"),
        *("measured clear rate", "sticky actions 0.25", "share of the time spent in evaluations", "commit"),
    )
    rows = [
        (
            str(record["seed"]),
            f"{record['minutes']:.1f}",
            f"{record['env_steps']:,}",
            f"{record['updates']:,}",
            clock(record["first_clear_s"]),
            _rate(published_of(record)),
            _rate(published_of(record, sticky=0.25)),
            f"{sum(each['seconds'] for each in record['evaluations']) / 60 / record['minutes']:.0%}",
            (record["commit"] or _NONE)[:7],
        )
        for record in records
    ]
    commands = ", ".join(f"`{record['command']}`" for record in records)
    return f"{table(head, rows)}\n\nCommands: {commands}. Machine: {machines(records)}."


def verdict(records: Sequence[Record]) -> str:
    """Whether the goal was reached, in words: 95 % in each of the seeds, the first clear within eight minutes."""
    measured = [figures for record in records if (figures := published_of(record)) is not None]
    if not measured:
        return "No seed has been measured yet."
    first = [of_the_first(figures) for figures in measured]
    passed = sum(clears >= GOAL_RATE * GOAL_EPISODES for clears in first)
    good, safe = (sum(figures["clear_rate"] >= rate for figures in measured) for rate in (GOAL_RATE, AIM_RATE))
    early = sum(
        record["first_clear_s"] is not None and record["first_clear_s"] <= GOAL_FIRST_CLEAR_S for record in records
    )
    clears, episodes = (sum(figures[key] for figures in measured) for key in ("clears", "episodes"))
    low, high = wilson_interval(clears, episodes)
    return (
        f"**Goal**: a clear rate of at least {GOAL_RATE:.0%} over {GOAL_EPISODES} episodes in each of three seeds, the "
        f"first evaluation clear within {clock(GOAL_FIRST_CLEAR_S)}. The first {GOAL_EPISODES} episodes pass in "
        f"**{passed} of {len(measured)} seeds** ({', '.join(map(str, first))} clears); all that were measured have "
        f"{GOAL_RATE:.0%} in **{good} of {len(measured)}**, and {AIM_RATE:.0%}, which would make that test safe to "
        f"pass, in **{safe}**. The first clear was in time in {early} of {len(records)}. "
        f"All together {clears} of {episodes} episodes clear, {clears / episodes:.1%} ({low:.1%} to {high:.1%})."
    )


def of_the_first(figures: dict[str, Any]) -> int:
    """The clears among the first episodes measured, as many as the goal asks for.

    Raises:
        UserError: there are fewer, or their order was not kept.
    """
    clears: str = figures.get("clears_in_order", "")
    if len(clears) < GOAL_EPISODES:
        raise UserError(
            f"a record of the default preset lacks the order of {GOAL_EPISODES} episodes: measure as many at least, "
            "and make it anew"
        )
    return clears[:GOAL_EPISODES].count("1")


def ablation_table(found: dict[str, list[Record]]) -> str:
    """A line per variant, that of the default preset at the same budget first.

    Args:
        found: records by variant, one per seed, at least one each.
    """
    head = (
        *("variant", "seeds", "measured clear rate", "default's, same seeds", "of each seed", "x at the end"),
        *("budget", "wall minutes", "env steps", "changed", "commit"),
    )
    usual = found.get("default", [])
    order = sorted(found, key=lambda name: (name != "default", name))
    rows = [_ablation_row(name, found[name], usual) for name in order]
    every = [record for records in found.values() for record in records]
    commands = ", ".join(f"`{record['command']}`" for record in found.get("default", every[:1]))
    return f"{table(head, rows)}\n\nMachine: {machines(every)}. Commands: {commands} and what was changed."


def stage_table(records: Sequence[Record], needed: dict[str, Any], known: Mapping[str, str]) -> str:
    """A row for each of the 32 stages, or several where several policies were measured.

    Those that trained on the stage come first, of them those that trained on the fewest.

    Args:
        records: of the runs whose measurements are published.
        needed: by stage, what `benchmarks.routes` found: `actions` is the smallest action set that clears it.
        known: by stage, the action set that it needs by the game's map, shown with a mark where no way was found.
    """
    measured: dict[str, list[tuple[str, ...]]] = {stage: [] for stage in STAGES}
    for stage, found in measured.items():
        for record in sorted(records, key=lambda record: (stage not in record["stages"], len(record["stages"]))):
            figures = figures_of(record, stage, seed=TEST_SEED)
            if figures is not None:
                found.append(_stage_row(record, stage, figures))
    head = (
        *("stage", "smallest action set with a way", "clear rate (95 % interval)", "policy", "wall minutes"),
        *("env steps", "commit", "command"),
    )
    empty = ("",) * (len(head) - 2)
    rows = [
        (stage, _action_set(needed.get(stage), known.get(stage)), *row)
        for stage, found in measured.items()
        for row in found or [empty]
    ]
    return f"{table(head, rows)}\n\nMachine: {machines(records)}."


def exploration_table(records: Sequence[Record]) -> str:
    """The log: a row for each run."""
    head = (
        *("run", "minutes", "env steps", "best evaluation", "first clear"),
        *("changed against the preset of its day", "commit", "note", "command", "cores of"),
    )
    rows = [
        (
            record["name"],
            f"{record['minutes']:.1f}",
            f"{record['env_steps']:,}",
            _best(record["evaluations"]),
            clock(record["first_clear_s"]),
            _listed(changes(record)),
            f"{(record['commit'] or _NONE)[:7]}{' and changes' if record['uncommitted_changes'] else ''}",
            record["note"],
            f"`{record['command']}`",
            record["machine"]["cpu"],
        )
        for record in records
    ]
    return table(head, rows)


def _ablation_row(name: str, records: Sequence[Record], usual: Sequence[Record]) -> tuple[str, ...]:
    rates = _measured_rates(records)
    sisters = {record["seed"]: record for record in usual}
    beside = _measured_rates([sisters[record["seed"]] for record in records if record["seed"] in sisters])
    return (
        name,
        ", ".join(str(record["seed"]) for record in records),
        f"{statistics.fmean(rates):.0%}" if rates else _NONE,
        f"{statistics.fmean(beside):.0%}" if len(beside) == len(rates) > 0 else _NONE,
        ", ".join(f"{rate:.0%}" for rate in rates) or _NONE,
        _range([record["evaluations"][-1]["mean_x"] for record in records if record["evaluations"]], "{:,.0f}"),
        "; ".join(dict.fromkeys(map(budget, records))),
        _range([record["minutes"] for record in records], "{:.1f}"),
        _range([record["env_steps"] for record in records], "{:,.0f}"),
        _changed(records, usual),
        ", ".join(dict.fromkeys((record["commit"] or _NONE)[:7] for record in records)),
    )


def _changed(records: Sequence[Record], usual: Sequence[Record]) -> str:
    """What all seeds set otherwise than the default preset's runs, then what only some did, by seed."""
    sisters = {record["seed"]: record for record in usual}
    each: dict[int, dict[str, Any]] = {}
    for record in records:
        sister = sisters.get(record["seed"], next(iter(usual), None))
        each[record["seed"]] = changes(record, sister["settings"] if sister else None)
    first, *others = each.values()
    common = {name: value for name, value in first.items() if all((name, value) in it.items() for it in others)}
    parts = [_listed(common)]
    for seed, settings in each.items():
        if own := {name: value for name, value in settings.items() if name not in common}:
            parts.append(f"seed {seed} also {_listed(own)}")
    return "; ".join(parts)


def _measured_rates(records: Sequence[Record]) -> list[float]:
    """Clear rates in the first stage of training, of those that were measured."""
    found = [figures_of(record, record["stages"][0], seed=0) for record in records]
    return [figures["clear_rate"] for figures in found if figures is not None]


def _stage_row(record: Record, stage: str, figures: dict[str, Any]) -> tuple[str, ...]:
    shot = "" if stage in record["stages"] else "zero-shot, "
    return (
        _rate(figures),
        f"{shot}trained on {' '.join(record['stages'])}",
        f"{record['minutes']:.1f}",
        f"{record['env_steps']:,}",
        (record["commit"] or _NONE)[:7],
        f"`{record['command']}`",
    )


def _action_set(result: dict[str, Any] | None, known: str | None) -> str:
    if result is not None and result["actions"]:
        return f"`{result['actions']}`"
    return f"`{known}` (by the map)" if known else "" if result is None else "none found"


def _rate(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return _NONE
    low, high = figures["clear_rate_ci95"]
    return f"{figures['clear_rate']:.1%} of {figures['episodes']} ({low:.1%} to {high:.1%})"


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return _NONE
    mean, low, high = (form.format(value) for value in (statistics.fmean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})" if len(values) > 1 else mean


def _listed(settings: dict[str, Any]) -> str:
    return f"`{', '.join(f'{name}={value}' for name, value in settings.items())}`" if settings else _NONE


def _best(evaluations: Sequence[dict[str, Any]]) -> str:
    if not evaluations:
        return _NONE
    best = max(evaluations, key=lambda each: (each["clear_rate_ci95"][0], each["mean_x"]))
    return f"{best['clears']}/{best['episodes']}, x {best['mean_x']:,.0f}"
