"""The result of an evaluation, for people and for scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.evaluation import summarise
from common.types import Episode
from driver.protocol import Protocol

_HEADINGS = ("stage", "episodes", "clears", "clear rate", "95 % interval", "return", "x", "steps")


def as_json(path: Path, protocol: Protocol, episodes: Mapping[str, Sequence[Episode]]) -> dict[str, Any]:
    """The whole result. The same policy and protocol give the same result: there are no times in it."""
    return {
        "checkpoint": path.as_posix(),
        "protocol": protocol.as_json(),
        "stages": {
            stage: summarise(played) | {"per_episode": [_episode(episode) for episode in played]}
            for stage, played in episodes.items()
        },
    }


def table(episodes: Mapping[str, Sequence[Episode]]) -> str:
    """One line per stage; the interval is Wilson's, the other figures are means."""
    rows = [_HEADINGS, *(_row(stage, summarise(played)) for stage, played in episodes.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(stage: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = figures["clear_rate_ci95"]
    return (
        stage,
        str(figures["episodes"]),
        str(figures["clears"]),
        f"{figures['clear_rate']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{figures['mean_return']:.1f}",
        f"{figures['mean_x']:.1f}",
        f"{figures['mean_length']:.1f}",
    )


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "return": episode.episode_return,
        "x": episode.x_pos,
        "length": episode.length,
        "time_left": episode.time_left,
        "clear": episode.clear,
        "stages_cleared": episode.stages_cleared,
        "truncated": episode.truncated,
    }
