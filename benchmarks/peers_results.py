"""What the measured speeds come to: medians, ratios to the best peer, and the table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from benchmarks.peers_meter import Speed
from benchmarks.peers_systems import CORE, Settings, System

Figure = Literal["transitions", "samples"]
_FIGURES: Final[tuple[Figure, ...]] = ("transitions", "samples")
_RATIO_TOLERANCE: Final = 0.1  # of samples per transition, within which two systems do the same work


@dataclass
class Measured:
    """One system's figures.

    Attributes:
        system: what was measured.
        settings: the variant that was measured.
        trials: the short trials' speeds, by variant.
        runs: the speeds of all rounds.
    """

    system: System
    settings: Settings
    trials: list[tuple[Settings, Speed]] = field(default_factory=list)
    runs: list[Speed] = field(default_factory=list)

    def rates(self, figure: Figure) -> list[float]:
        """Per second, of each round."""
        return [getattr(speed, f"{figure}_per_s") for speed in self.runs]

    def rate(self, figure: Figure) -> float:
        """Per second: the rounds' median."""
        return statistics.median(self.rates(figure))

    @property
    def samples_per_transition(self) -> float:
        """Over all rounds."""
        return sum(speed.samples for speed in self.runs) / sum(speed.transitions for speed in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Everything, for the record."""
        return {
            "title": self.system.title,
            "core": self.system.core,
            "settings": dict(self.settings),
            **{f"{figure}_per_s": round(self.rate(figure), 2) for figure in _FIGURES},
            "samples_per_transition": round(self.samples_per_transition, 3),
            "runs": [_speed_json(speed) for speed in self.runs],
            "trials": [{"settings": dict(settings), **_speed_json(speed)} for settings, speed in self.trials],
        }


def rows(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Each of our figures over the best peer's.

    The goals are over the best peer on nes-py, sought for each figure by itself. Where that is one with another number
    of samples per transition, a second row has the best of those with about ours; and for another core, a row without a
    goal has the best peer on that core.
    """
    peers = [entry for entry in measured.values() if entry.system.goal is None]
    found: list[dict[str, Any]] = []
    for ours in (entry for entry in measured.values() if entry.system.goal is not None):
        goal, core = ours.system.goal, ours.system.core
        for figure in _FIGURES:
            found += [_row(ours, peer, figure, goal) for peer in _best_of_each_kind(ours, _on(CORE, peers), figure)]
            if core != CORE:
                found += [_row(ours, peer, figure, None) for peer in _best(_on(core, peers), figure)]
    return found


def markdown_table(measured: Sequence[Measured]) -> str:
    """All systems: medians, and the rounds' lowest and highest."""
    lines = [
        "| system | core | transitions/s | samples/s | samples per transition | settings |",
        "|---|---|---|---|---|---|",
    ]
    for entry in measured:
        rates = " | ".join(_spread(entry.rates(figure)) for figure in _FIGURES)
        ratio = f"{entry.samples_per_transition:.1f}"
        lines.append(f"| {entry.system.title} | {entry.system.core} | {rates} | {ratio} | {describe(entry.settings)} |")
    return "\n".join(lines)


def describe(settings: Settings) -> str:
    """Settings in one line."""
    texts = [f"{key} {' '.join(value) if isinstance(value, list) else value}" for key, value in settings.items()]
    return ", ".join("threads PyTorch's" if text == "threads None" else text for text in texts).strip()


def _row(ours: Measured, peer: Measured, figure: Figure, goal: float | None) -> dict[str, Any]:
    """In the form of all benchmarks' rows (`benchmarks.performance_tables`)."""
    return {
        "name": f"{ours.system.title}, {ours.system.core}",
        "figure": round(ours.rate(figure), 1),
        "unit": f"{figure}/s",
        "peer": f"{peer.system.title}, {peer.system.core}",
        "peer_figure": round(peer.rate(figure), 1),
        "ratio": round(ours.rate(figure) / peer.rate(figure), 2),
        **({} if goal is None else {"goal": goal}),
    }


def _best_of_each_kind(ours: Measured, peers: Sequence[Measured], figure: Figure) -> list[Measured]:
    """The best peer and, where that is another one, the best of those that do the same work."""
    best = _best(peers, figure)
    alike = _best([peer for peer in peers if _same_work(ours, peer)], figure)
    return best + [peer for peer in alike if peer not in best]


def _best(peers: Sequence[Measured], figure: Figure) -> list[Measured]:
    """The best peer, if there is any."""
    return [max(peers, key=lambda peer: peer.rate(figure))] if peers else []


def _on(core: str, peers: Sequence[Measured]) -> list[Measured]:
    return [peer for peer in peers if peer.system.core == core]


def _same_work(ours: Measured, peer: Measured) -> bool:
    return abs(peer.samples_per_transition / ours.samples_per_transition - 1) <= _RATIO_TOLERANCE


def _spread(rates: Sequence[float]) -> str:
    median = f"{statistics.median(rates):,.1f}"
    return median if len(rates) == 1 else f"{median} ({min(rates):,.1f} to {max(rates):,.1f})"


def _speed_json(speed: Speed) -> dict[str, Any]:
    return {
        "transitions_per_s": round(speed.transitions_per_s, 2),
        "samples_per_s": round(speed.samples_per_s, 2),
        "seconds": round(speed.seconds, 2),
    }
