"""The learner without Ray: samples per second beside a bare loop of the same update, and the update beside float64.

    python -m benchmarks.learner                        # batches of 32, 128, 512 and 2048
    python -m benchmarks.learner --quick                # half a minute
    python -m benchmarks.learner --device cuda --out learner.json

Needs torch and numpy alone, so it runs where neither Ray nor an emulator is installed.

*Bare* is the update of batches of frames that lie in memory, in a loop that does nothing else; *inputs stacked* leaves
the stacking of frames out as well, and the *captured graph* of a GPU all that is not in it. *Learner without Ray* is
what the learner's process does: a thread takes batches from memory, brings them to the device and stacks them there,
and each update's TD errors are read back and handed over as priorities.

The update's error is that of its Q-values and of its gradient beside the same update by plain layers in float64, as a
root mean square relative to that of the float64 values; the error of plain layers in the same precision is its measure.
"""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.learner_error import measure_error
from benchmarks.learner_parts import (
    bare_loop,
    graph_loop,
    in_memory_of,
    make_learner,
    prepared_loop,
    print_row,
    random_batch,
    rates_in_turns,
    rounded,
    speed_rows,
)
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.errors import UserError
from common.files import write_atomically
from common.process import tune_process
from common.types import Batch
from driver.provenance import describe_commit
from learner.device import resolve_device
from learner.feeder import MOST_READY_BATCHES, BatchFeeder
from learner.learner import Learner, StartedUpdate

_BATCH_SIZES = [32, 128, 512, 2048]
_QUICK_BATCH_SIZES = [32, 128]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if the update is further from float64 than it may be, 2 after a user's mistake."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    tune_process()
    try:
        errors = [measure_error(resolve_device(options.device), dtype) for dtype in (torch.float32, torch.bfloat16)]
        for error in errors:
            _print_error(error)
        speeds = {size: _measure_speed(size, options) for size in _batch_sizes(options)}
        if options.out is not None:
            _write(options, errors, speeds)
    except UserError as error:
        print(f"learner: error: {error}", file=sys.stderr)
        return 2
    return 0 if all(error["within_bound"] for error in errors) else 1


def _measure_speed(batch_size: int, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """The rows, and the updates per second of every turn."""
    learner = make_learner(options.device, options.precision)
    batches = [in_memory_of(learner, random_batch(batch_size, seed)) for seed in range(2 if batch_size > 512 else 4)]
    feeder = BatchFeeder(_Memory(batches), learner.prepare, MOST_READY_BATCHES)
    measures = {
        "bare": bare_loop(learner, batches),
        "prepared": prepared_loop(learner, batches),
        "fed": _fed_loop(learner, feeder),
    }
    if learner.device.type == "cuda":
        measures["graph"] = graph_loop(learner, batches)
    rates = rates_in_turns(measures, rounds=options.turns, seconds=options.seconds)
    feeder.close()
    rows = speed_rows("learner without Ray", learner, batch_size, rates, "fed")
    for row in rows:
        print_row(row)
    return rows, rounded(rates)


class _Memory:
    """A reader over batches in memory."""

    lost_priority_updates = 0

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = cycle(batches)

    def next_batch(self, timeout_s: float) -> Batch:
        return next(self._batches)

    def update_priorities(self, batch: Batch, priorities: NDArray[np.float32]) -> None:
        """Nothing stores them."""

    def set_shards(self, shards: Sequence[Any]) -> None:
        """There are none."""

    def set_memory(self, memory: Any) -> None:
        """The batches are made already."""


def _fed_loop(learner: Learner, feeder: BatchFeeder) -> Callable[[float], float]:
    """`seconds -> updates per second` from batches of frames in memory to priorities."""

    def finish(started: deque[tuple[StartedUpdate, Batch]]) -> None:
        update, batch = started.popleft()
        feeder.update_priorities(batch, np.abs(learner.finish(update).td_error))

    def measure(seconds: float) -> float:
        started: deque[tuple[StartedUpdate, Batch]] = deque()
        updates, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            fed = feeder.next_batch(60)
            if fed is None:
                raise RuntimeError("no batch from memory within a minute")
            started.append((learner.start(fed.prepared), fed.batch))
            updates += 1
            if len(started) > learner.updates_in_flight:
                finish(started)
        while started:
            finish(started)
        return updates / (time.perf_counter() - start)

    return measure


def _print_error(error: Mapping[str, Any]) -> None:
    values = [f"{name} {error[name]:.1e} (plain {error[f'plain_{name}']:.1e})" for name in ("q_values", "gradient")]
    if "graph" in error:
        values.append(f"graph {error['graph']:.1e}")
    verdict = "" if error["within_bound"] else ": MORE THAN TWICE THE PLAIN LAYERS' ERROR"
    print(f"error beside float64, {error['precision']:<8}: {', '.join(values)}{verdict}", flush=True)


def _write(options: argparse.Namespace, errors: list[dict[str, Any]], speeds: Mapping[int, Any]) -> None:
    settings = {"threads": options.threads, "turns": options.turns, "seconds_per_turn": options.seconds}
    rows = [row for rows, _ in speeds.values() for row in rows]
    rates = {size: updates_per_s for size, (_, updates_per_s) in speeds.items()}
    record = {
        "rows": rows,
        "updates_per_s": rates,
        "errors": errors,
        **settings,
        **describe_commit(),
        "machine": describe_machine(),
    }
    write_atomically(options.out, (json.dumps(record, indent=2) + "\n").encode())


def _batch_sizes(options: argparse.Namespace) -> list[int]:
    sizes: list[int] = options.batch_sizes or (_QUICK_BATCH_SIZES if options.quick else _BATCH_SIZES)
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learner", description="Measures the learner without Ray; needs torch and numpy."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="batches of 32 and 128 alone")
    text = "transitions per update; default: 32 128 512 2048"
    add("--batch-sizes", type=at_least(1, int), nargs="+", metavar="N", help=text)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:0; default: auto")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the speeds; default: auto")
    add("--threads", type=at_least(1, int), default=1, metavar="N", help="CPU threads of the update; default: 1")
    add("--turns", type=at_least(1, int), default=5, metavar="N", help="turns of each loop; default: 5")
    add("--seconds", type=at_least(0.05, float), default=1.0, metavar="S", help="length of a turn; default: 1")
    add("--out", type=result_file, metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
