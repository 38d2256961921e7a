"""The learner of a run, between real shards, beside a bare loop of the same update.

    python -m benchmarks.running_learner                # the default preset's batch of 64, and 32 and 512
    python -m benchmarks.running_learner --quick --out running_learner.json

Shards and learner are the run's own processes, made as `launch.py` makes them. The shards hold transitions that an
actor played in the emulator before; nobody plays while the learner trains, and the limiter is open. What remains is the
learner's own: waiting for samples, decompressing them, sending priorities back, publishing weights.

*Bare* is the update alone in this process, of batches of the same shards that lie in memory; *inputs stacked* leaves
the stacking of their frames out as well. The loops train in turns, never at once.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray gives its processes a low priority, which the bare loop beside them does not have.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
import torch

from actors.factory import build_actor
from benchmarks.learner_parts import (
    bare_loop,
    graph_loop,
    prepared_loop,
    print_row,
    rates_in_turns,
    rounded,
    speed_rows,
)
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.config import Config
from common.errors import UserError
from common.files import write_atomically
from common.process import tune_process
from common.types import Batch, Chunk
from driver.plan import Plan, machine_cores, make_plan
from driver.provenance import describe_commit
from driver.ray_session import ray_session
from driver.roles import Roles
from learner.factory import build_learner
from learner.learner import Learner
from replay.remote_reader import RemoteReplayReader

_BATCH_SIZES = [32, 64, 512]
_QUICK_BATCH_SIZES = [64]
_PLAYED = 2_000
_BATCHES_IN_MEMORY = 4
_ANSWER_S = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake of the user's."""
    options = _parser().parse_args(argv)
    sizes = options.batch_sizes or (_QUICK_BATCH_SIZES if options.quick else _BATCH_SIZES)
    config = Config()
    cores = machine_cores()
    plan = make_plan(config, cpus=cores, gpus=torch.cuda.device_count(), private=True)
    torch.set_num_threads(plan.learner_threads)
    tune_process()
    try:
        chunks = _play(config, _PLAYED)
        with ray_session(None, private_cpus=max(cores, plan.cpus), object_store_mb=config.ray.object_store_mb):
            measured = [_measure(config, plan, chunks, size, options) for size in sizes]
    except UserError as error:
        print(f"running_learner: error: {error}", file=sys.stderr)
        return 2
    if options.out is not None:
        settings = {"threads": plan.learner_threads, "turns": options.turns, "seconds_per_turn": options.seconds}
        rows = [row for rows, _ in measured for row in rows]
        record = {
            "rows": rows,
            "waits": [wait for _, wait in measured],
            **settings,
            **describe_commit(),
            "machine": describe_machine(),
        }
        write_atomically(options.out, (json.dumps(record, indent=2) + "\n").encode())
    return 0


class _Chunks:
    """Takes what an actor pushes, and never has new weights for it."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def push(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def newer_than(self, version: int) -> None:
        return None


def _play(config: Config, transitions: int) -> list[Chunk]:
    """What an untrained, exploring actor plays."""
    played = _Chunks()
    print(f"playing {transitions} steps ...", flush=True)
    actor = build_actor(
        env=config.env,
        agent=config.agent,
        actors=config.actors,
        index=0,
        count=1,
        seed=config.seed,
        incarnation=0,
        writer=played,
        weights=played,
    )
    while sum(map(len, played.chunks)) < transitions:
        actor.step()
    actor.close()
    return played.chunks


def _measure(
    config: Config, plan: Plan, chunks: list[Chunk], batch_size: int, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows, and the parts of the learner's time in which it had no batch."""
    config = replace(
        config,
        replay=replace(config.replay, min_size=1, samples_per_insert=1e9),
        learner=replace(config.learner, batch_size=batch_size),
    )
    roles = Roles(config, plan)
    shards = [roles.shard(index, 0) for index in range(config.replay.shards)]
    ray.get([shards[i % len(shards)].insert.remote(chunk) for i, chunk in enumerate(chunks)], timeout=_ANSWER_S)
    bare = build_learner(
        spec=roles.spec, agent=config.agent, learner=config.learner, seed=config.seed, device=plan.learner_device
    )
    batches = _draw(config, shards, bare)
    running = roles.learner(shards, None, version=0, run_fraction=0.0)
    waits: list[float] = []
    measures = {
        "bare": bare_loop(bare, batches),
        "prepared": prepared_loop(bare, batches),
        "running": _run(running, waits),
    }
    if plan.learner_device == "cuda":
        measures["graph"] = graph_loop(bare, batches)
    rates = rates_in_turns(measures, rounds=options.turns, seconds=options.seconds)
    for process in (running, *shards):
        ray.kill(process)
    rows = speed_rows("running learner", bare, batch_size, rates, "running")
    for row in rows:
        print_row(row)
    wait_fractions = [round(wait, 4) for wait in waits]
    return rows, {"name": rows[0]["name"], "wait_fractions": wait_fractions, "updates_per_s": rounded(rates)}


def _draw(config: Config, shards: Sequence[Any], bare: Learner) -> list[Batch]:
    """Batches in memory, where a learner's reader puts them."""
    learner = config.learner
    reader = RemoteReplayReader(shards, learner.batch_size, config.replay.importance_exponent, learner.prefetch)
    reader.set_memory(bare.empty_frames)
    batches = [reader.next_batch(_ANSWER_S) for _ in range(_BATCHES_IN_MEMORY)]
    found = [batch for batch in batches if batch is not None]
    if len(found) < len(batches):
        raise UserError(f"the shards gave no batch in {_ANSWER_S} seconds")
    return found


def _run(learner: Any, waits: list[float]) -> Callable[[float], float]:
    """`seconds -> updates per second` of the learner's process; appends the part of the time that it waited."""

    def measure(seconds: float) -> float:
        report: Any = ray.get(learner.run.remote(seconds), timeout=_ANSWER_S + seconds)
        waits.append(report.waited_s / report.seconds)
        return float(report.updates / report.seconds)

    return measure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.running_learner", description="Measures the learner between real shards."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="batches of 64 alone")
    add(
        "--batch-sizes",
        type=at_least(1, int),
        nargs="+",
        metavar="N",
        help="transitions per update; default: 32 64 512",
    )
    add("--turns", type=at_least(1, int), default=5, metavar="N", help="turns of each loop; default: 5")
    add("--seconds", type=at_least(0.1, float), default=2.0, metavar="S", help="length of a turn; default: 2")
    add("--out", type=result_file, metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
