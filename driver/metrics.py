"""TensorBoard and `progress.jsonl`: the same figures for eyes and for scripts."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary as summaries

from actors.evaluation import summarise
from actors.remote import EvaluationReport
from common.types import Episode
from driver.counters import Counters, ShardTotals
from driver.event_file import EventFile
from driver.run_directory import RunDirectory
from driver.run_file import RunFile
from driver.window import Window

# Epsilon below the first bound, below the second, and the rest.
_BANDS = ((0.01, "eps_below_0.01"), (0.1, "eps_0.01_to_0.1"), (math.inf, "eps_above_0.1"))


class Metrics:
    """Writes a run's figures; the horizontal axis is env steps over the run's whole life.

    Args:
        run: its folder.
        warn: takes a line for the user when a file cannot be written; see `RunFile`.
    """

    def __init__(self, run: RunDirectory, warn: Callable[[str], None]) -> None:
        self._events = EventFile(run.path, warn)
        self._progress = RunFile(run.progress_path, warn)
        self._evaluations = RunFile(run.evaluations_path, warn)

    def text(self, tag: str, text: str, step: int) -> None:
        """A text, such as the settings."""
        self._events.add(summaries.text(tag, text), step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Named figures; NaN means that there is nothing to show."""
        shown = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if not math.isnan(value)]
        self._events.add(Summary(value=shown), step)

    def animation(self, tag: str, gif: bytes, shape: tuple[int, int], step: int) -> None:
        """An animated GIF, which TensorBoard plays among its images."""
        height, width = shape
        image = Summary.Image(encoded_image_string=gif, height=height, width=width, colorspace=3)
        self._events.add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def progress(self, line: Mapping[str, Any]) -> None:
        """One line of `progress.jsonl`."""
        self._progress.append(_json_lines([line]))

    def evaluations(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Lines of `evaluations.jsonl`."""
        self._evaluations.append(_json_lines(lines))


def window_scalars(window: Window, counters: Counters, totals: ShardTotals) -> dict[str, float]:
    """The design's metrics of one window; those of each stage where there are several."""
    return {
        "actor/env_steps_per_s": window.per_second(window.env_steps),
        "actor/wait_fraction": window.actor_wait_fraction,
        **_episode_scalars(window.episodes),
        **_saved_start_scalars(window.saved_starts),
        **_stage_scalars(window),
        "replay/size": totals.size,
        "replay/bytes": totals.bytes,
        "replay/samples_per_insert": counters.samples_per_insert(),
        "replay/stale_priority_updates": totals.stale_priority_updates,
        "replay/lost_priority_updates": window.lost_priority_updates,
        "replay/damaged_chunks": totals.damaged_chunks,
        "learner/updates_per_s": window.per_second(window.updates),
        "learner/samples_per_s": window.per_second(window.samples),
        "learner/wait_fraction": window.wait_fraction,
        **{f"learner/{name}": window.learner_mean(name) for name in ("loss", "td_error", "q_mean", "grad_norm")},
        "learner/policy_lag": window.learner_mean("policy_lag"),
        "learner/learning_rate": window.learning_rate,
        **{f"system/restarts/{role}": count for role, count in counters.restarts.items()},
    }


def progress_line(window: Window, counters: Counters, totals: ShardTotals, actors_alive: int) -> dict[str, Any]:
    """What scripts read; see docs/metrics.md."""
    return {
        "time_s": round(counters.time_s, 3),
        "env_steps": counters.env_steps,
        "episodes": counters.episodes,
        "updates": counters.updates,
        "samples": counters.samples,
        "replay_size": totals.size,
        "replay_bytes": totals.bytes,
        "actors_alive": actors_alive,
        "samples_per_insert": round(counters.samples_per_insert(), 4),
        "env_steps_per_s": round(window.per_second(window.env_steps), 2),
        "updates_per_s": round(window.per_second(window.updates), 3),
        "samples_per_s": round(window.per_second(window.samples), 2),
        "wait_fraction": round(window.wait_fraction, 4),
        "actor_wait_fraction": round(window.actor_wait_fraction, 4),
        "policy_lag": _rounded(window.learner_mean("policy_lag")),
        "loss": _rounded(window.learner_mean("loss")),
        "restarts": counters.restarts_total(),
    }


def evaluation_lines(report: EvaluationReport, counters: Counters, time_s: float, best: bool) -> list[dict[str, Any]]:
    """What scripts read of an evaluation that ended at `time_s`, a line per stage; see docs/metrics.md."""
    return [
        {
            "time_s": round(time_s, 3),
            "env_steps": counters.env_steps,
            "updates": report.updates,
            "stage": stage,
            **summarise(episodes),
            "seconds": round(report.seconds, 3),
            "best": best,
        }
        for stage, episodes in report.episodes.items()
    ]


def evaluation_scalars(by_stage: Mapping[str, Iterable[Episode]]) -> dict[str, float]:
    """`eval/...` per stage."""
    values: dict[str, float] = {}
    for stage, episodes in by_stage.items():
        listed = list(episodes)
        values[f"eval/clear_rate/{stage}"] = statistics.fmean(e.clear for e in listed)
        values[f"eval/return/{stage}"] = statistics.fmean(e.episode_return for e in listed)
        values[f"eval/x_pos/{stage}"] = statistics.fmean(e.x_pos for e in listed)
        values[f"eval/length/{stage}"] = statistics.fmean(e.length for e in listed)
    return values


def _episode_scalars(episodes: list[Episode]) -> dict[str, float]:
    values = _episode_means(episodes, "")
    low = -math.inf
    for high, name in _BANDS:
        values.update(_episode_means([e for e in episodes if low <= e.epsilon < high], f"/{name}"))
        low = high
    return values


def _episode_means(episodes: list[Episode], suffix: str) -> dict[str, float]:
    if not episodes:
        return {}
    return {
        f"actor/episode_return{suffix}": statistics.fmean(e.episode_return for e in episodes),
        f"actor/episode_length{suffix}": statistics.fmean(e.length for e in episodes),
        f"actor/x_pos{suffix}": statistics.fmean(e.x_pos for e in episodes),
        f"actor/clear_rate{suffix}": statistics.fmean(e.clear for e in episodes),
    }


def _stage_scalars(window: Window) -> dict[str, float]:
    shares = window.stage_shares
    if len(shares) < 2:
        return {}
    scalars = {f"actor/stage_share/{stage}": share for stage, share in shares.items()}
    for stage in shares:
        if clears := [e.clear for e in window.episodes if e.stage == stage]:
            scalars[f"actor/clear_rate/{stage}"] = statistics.fmean(clears)
    return scalars


def _saved_start_scalars(episodes: list[Episode]) -> dict[str, float]:
    if not episodes:
        return {}
    return {
        "actor/saved_start/episode_length": statistics.fmean(e.length for e in episodes),
        "actor/saved_start/clear_rate": statistics.fmean(e.clear for e in episodes),
    }


def _json_lines(values: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
