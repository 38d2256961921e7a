"""What the learner's benchmarks share. Needs torch and numpy alone."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from common.config import Config
from common.precision import Precision
from common.types import Batch, EnvironmentSpec
from learner.factory import build_learner
from learner.learner import Learner

SPEC = EnvironmentSpec((84, 84), 4, ("noop", "right", "right+A", "right+B", "right+A+B"))

_GOAL = 0.95
_READ_EVERY = 16


def make_learner(device: str, precision: Precision) -> Learner:
    """The default preset's learner for World 1-1's frames."""
    settings = replace(Config().learner, precision=precision)
    return build_learner(spec=SPEC, agent=Config().agent, learner=settings, seed=0, device=device)


def random_batch(size: int, seed: int) -> Batch:
    """A batch of random frames; no two states share one, as with few samples from a large replay."""
    rng = np.random.default_rng(seed)
    stack = SPEC.frame_stack
    frames = rng.integers(0, 256, (1 + 2 * size * stack, *SPEC.frame_shape), np.uint8)
    frames[0] = 0
    rows = np.arange(1, len(frames), dtype=np.int32).reshape(2, size, stack)
    return Batch(
        frames=frames,
        s_tm1=rows[0],
        a_tm1=rng.integers(0, SPEC.num_actions, size),
        r_t=rng.normal(size=size).astype(np.float32),
        discount_t=rng.choice([0.0, 0.86], size).astype(np.float32),
        s_t=rows[1],
        weight=rng.uniform(0.1, 1.0, size).astype(np.float32),
        ids=np.arange(size),
        shard=np.zeros(size, np.int32),
        weight_version=np.zeros(size, np.int32),
    )


def in_memory_of(learner: Learner, batch: Batch) -> Batch:
    """The batch with its frames where a learner's reader puts them: for a GPU in pinned memory."""
    frames = learner.empty_frames(batch.frames.shape)
    np.copyto(frames, batch.frames)
    return batch._replace(frames=frames)


def bare_loop(learner: Learner, batches: list[Batch]) -> Callable[[float], float]:
    """The update of batches of frames that lie in memory, one after the other: `seconds -> updates per second`."""

    def measure(seconds: float) -> float:
        updates, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            learner.update(batches[updates % len(batches)])
            updates += 1
        return updates / (time.perf_counter() - start)

    return measure


def prepared_loop(learner: Learner, batches: list[Batch]) -> Callable[[float], float]:
    """The update of inputs that are stacked and on the device already: `seconds -> updates per second`."""
    prepared = [learner.prepare(batch, with_target=False) for batch in batches]

    def measure(seconds: float) -> float:
        updates, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            last = learner.start(prepared[updates % len(prepared)])
            updates += 1
            if updates % _READ_EVERY == 0:
                last.read()  # a queue without end would outrun the clock
        learner.finish(last)
        return updates / (time.perf_counter() - start)

    return measure


def graph_loop(learner: Learner, batches: list[Batch]) -> Callable[[float], float]:
    """The captured graph of a GPU's update, launched again and again: `seconds -> updates per second`.

    Raises:
        ValueError: there is no graph on this device.
    """
    for batch in [*batches, *batches]:  # a few updates come before it is captured
        learner.update(batch)

    def measure(seconds: float) -> float:
        updates, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            learner.repeat_graph()
            updates += 1
            if updates % _READ_EVERY == 0:
                torch.cuda.synchronize(learner.device)
        torch.cuda.synchronize(learner.device)
        return updates / (time.perf_counter() - start)

    return measure


def rates_in_turns(
    measures: Mapping[str, Callable[[float], float]], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Rates of several loops, measured in turns so that what else the machine does falls on all of them alike.

    Args:
        measures: by name: `seconds -> rate`.
        rounds: turns of each.
        seconds: length of one turn; a turn before the first is not counted.
    """
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():
        measure(seconds / 4)
    for _ in range(rounds):
        for name, measure in measures.items():
            rates[name].append(measure(seconds))
    return rates


def speed_rows(
    name: str, learner: Learner, batch_size: int, rates: Mapping[str, list[float]], measured: str
) -> list[dict[str, Any]]:
    """Rows of a benchmark's result: one loop's samples per second over those of "bare", "prepared" and "graph".

    The goal is held against the first on a CPU, and on a GPU, where that loop waits for every result, against the last.

    Args:
        rates: updates per second by loop, as of `rates_in_turns`.
        measured: the loop to hold against them.
    """
    ceilings = {"bare": "bare loop", "prepared": "bare loop, inputs stacked", "graph": "bare captured graph"}
    goal = "graph" if "graph" in rates else "bare"
    return [
        {
            "name": f"{name}, batch {batch_size}, {'bfloat16' if learner.bfloat16 else 'float32'}",
            "figure": round(statistics.median(rates[measured]) * batch_size),
            "unit": "samples/s",
            "ceiling": ceiling,
            "ceiling_figure": round(statistics.median(rates[loop]) * batch_size),
            "ratio": round(_median_ratio(rates[measured], rates[loop]), 3),
            **({"goal": _GOAL} if loop == goal else {}),
        }
        for loop, ceiling in ceilings.items()
        if loop in rates
    ]


def rounded(rates: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The rates of every turn, as results keep them."""
    return {name: [round(rate, 2) for rate in turns] for name, turns in rates.items()}


def print_row(row: Mapping[str, Any]) -> None:
    """One line of a table."""
    goal = f" (goal {row['goal']})" if "goal" in row else ""
    print(
        f"{row['name']:<40} {row['figure']:>9,} {row['unit']}   {row['ceiling']:<25} {row['ceiling_figure']:>9,}   "
        f"ratio {row['ratio']:.3f}{goal}",
        flush=True,
    )


def _median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median of the turns' own ratios: two neighbours in time saw the same machine."""
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))
