"""The result of an evaluation, for people and for scripts."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.evaluation import summarise
from common.networks import QNetwork, flatten
from common.types import Episode
from driver.protocol import Protocol

_HEADINGS = ("stage", "episodes", "clears", "clear rate", "95 % interval", "return", "x", "steps")


def as_json(
    path: Path, network: QNetwork, protocol: Protocol, episodes: Mapping[str, Sequence[Episode]]
) -> dict[str, Any]:
    """The whole result. The same policy and protocol give the same result: there are no times in it.

    `weights_sha256` tells which policy was measured, whatever its file is called: of the parameters as they come,
    float32.
    """
    return {
        "checkpoint": path.as_posix(),
        "weights_sha256": weights_sha256(network),
        "protocol": protocol.as_json(),
        "stages": {
            stage: summarise(played) | {"per_episode": [_episode(episode) for episode in played]}
            for stage, played in episodes.items()
        },
    }


def weights_sha256(network: QNetwork) -> str:
    """Of a network's parameters one after the other, float32, in hexadecimal digits."""
    return hashlib.sha256(flatten(network).tobytes()).hexdigest()


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
