"""Actor processes that do everything, beside their emulator core alone, and 1 … all cores of them at once.

    python -m benchmarks.actor --out docs/results/performance/actor.json
    python -m benchmarks.actor --quick

An actor here is the one of a run (`RemoteActor` with the default settings): emulation, rules, preprocessing, batched
inference, n-step returns, priorities, compression, and pushing to a shard in a process of its own whose limiter is
open. It asks a process that stands for the learner for weights, and gets new ones as often as in a run.

Its ceiling is a process that runs the same number of frames of the same core and does nothing else. Both take turns:
one of each alone, then as many at once as the machine has cores.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Final

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
import ray
import torch

from actors.cores import CoreName
from actors.environment import environment_spec
from benchmarks.emulator import FRAMES_PER_STEP, installed_cores, rate, raw_loop
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.config import Config
from common.errors import UserError
from common.files import write_atomically
from driver.plan import machine_cores, make_plan
from driver.provenance import describe_commit
from driver.ray_session import ray_session
from driver.roles import Roles
from learner.factory import build_learner

_GOALS: Final[dict[CoreName, float]] = {"nes-py": 0.90, "fceumm": 0.65}
_SCALING_GOAL: Final = 0.9
_UPDATES_PER_S: Final = 20  # of a learner on this kind of machine
_WARM_UP_S: Final = 3.0
_ANSWER_S: Final = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0, or 2 after a mistake of the user's."""
    options = _parser().parse_args(argv)
    turns, seconds = (2, 3.0) if options.quick else (options.turns, options.seconds)
    cores = machine_cores()
    try:
        with ray_session(None, private_cpus=2 * cores + 1, object_store_mb=256):
            measured = {core: _measure(core, cores, turns, seconds) for core in options.cores or installed_cores()}
    except UserError as error:
        print(f"actor: error: {error}", file=sys.stderr)
        return 2
    rows = [row for core, rates in measured.items() for row in _rows(core, cores, rates)]
    for row in rows:
        print(f"{row['name']:44} {row['figure']:8.1f} {row['unit']:8} ratio {row['ratio']:.3f}  goal {row['goal']}")
    if options.out is not None:
        record = {
            "rows": rows,
            "rates": measured,
            "envs_per_actor": Config().actors.envs_per_actor,
            "turns": turns,
            "seconds_per_turn": seconds,
            **describe_commit(),
            "machine": describe_machine(),
        }
        write_atomically(options.out, (json.dumps(record, indent=2) + "\n").encode())
    return 0


class Frames:
    """A process that runs an emulator core and nothing else."""

    def __init__(self, core: CoreName) -> None:
        self._run = raw_loop(core)

    def run(self, seconds: float) -> float:
        """Frames per second."""
        return rate(self._run, seconds)


class WeightHolder:
    """Stands for the learner: answers an actor's question for weights as `RemoteLearner` does, from one network."""

    def __init__(self, config: Config) -> None:
        spec = environment_spec()
        learner = build_learner(spec=spec, agent=config.agent, learner=config.learner, seed=0, device="cpu")
        self._reference = [ray.put(learner.weights())]
        self._period_s = config.learner.broadcast_period / _UPDATES_PER_S

    def weights(self, version: int) -> tuple[int, int, list[Any]] | None:
        """(version, updates, [reference]): the same network under a new version after each period."""
        newest = 1 + int(np.datetime64("now", "ms").astype(np.int64) % 10**9 / 1000 / self._period_s)
        return (newest, newest, self._reference) if newest > version else None


def _measure(core: CoreName, cores: int, turns: int, seconds: float) -> dict[str, list[float]]:
    """Rates per process-turn: frames and agent steps per second, of one process and of all at once."""
    config = Config()
    config = replace(
        config,
        env=replace(config.env, core=core),
        # Below its smallest size a shard takes everything.
        replay=replace(config.replay, shards=1, min_size=config.replay.capacity // 2),
    )
    roles = Roles(config, make_plan(config, cpus=cores, gpus=torch.cuda.device_count(), private=True))
    shard = roles.shard(0, 0)
    holder: Any = ray.remote(num_cpus=0)(WeightHolder).remote(config)
    actors = [roles.actor(index, cores, 0, [shard], holder, None) for index in range(cores)]
    frames: list[Any] = [ray.remote(num_cpus=0)(Frames).remote(core) for _ in range(cores)]
    _agent_steps(actors, _WARM_UP_S)
    rates: dict[str, list[float]] = {"frames 1": [], "steps 1": [], "frames all": [], "steps all": []}
    for _ in range(turns):
        rates["frames 1"].append(_sum(frames[:1], seconds))
        rates["steps 1"].append(_agent_steps(actors[:1], seconds))
        rates["frames all"].append(_sum(frames, seconds))
        rates["steps all"].append(_agent_steps(actors, seconds))
    for process in (*actors, *frames, holder, shard):
        ray.kill(process)
    return rates


def _agent_steps(actors: Sequence[Any], seconds: float) -> float:
    """Agent steps per second of all actors together."""
    reports = ray.get([actor.run.remote(seconds) for actor in actors], timeout=_ANSWER_S + seconds)
    return float(sum(report.env_steps / report.seconds for report in reports))


def _sum(processes: Sequence[Any], seconds: float) -> float:
    rates = ray.get([process.run.remote(seconds) for process in processes], timeout=_ANSWER_S + seconds)
    return float(sum(rates))


def _rows(core: CoreName, cores: int, rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    figure = {name: median(values) for name, values in rates.items()}
    ceilings = {count: figure[f"frames {count}"] / FRAMES_PER_STEP for count in ("1", "all")}
    return [
        _row(f"an actor, {core}", figure["steps 1"], f"{core} frames / 4", ceilings["1"], _GOALS[core]),
        _row(f"{cores} actors, {core}", figure["steps all"], "their frames / 4", ceilings["all"], _GOALS[core]),
        _row(
            f"{cores} actors over one, {core}",
            figure["steps all"],
            f"{cores} times one actor",
            cores * figure["steps 1"],
            _SCALING_GOAL,
        ),
        _row(
            f"{cores} emulators over one, {core}",
            figure["frames all"] / FRAMES_PER_STEP,
            f"{cores} times one emulator",
            cores * ceilings["1"],
            None,
        ),
    ]


def _row(name: str, figure: float, ceiling: str, number: float, goal: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "figure": round(figure, 1),
        "unit": "steps/s",
        "ceiling": ceiling,
        "ceiling_figure": round(number, 1),
        "ratio": round(figure / number, 3),
        "goal": goal,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.actor", description="Measures actor processes.")
    add = parser.add_argument
    add("--quick", action="store_true", help="two short turns of each")
    add("--cores", nargs="+", choices=["nes-py", "fceumm"], help="emulator cores; default: those installed")
    add("--turns", type=at_least(1, int), default=3, metavar="N", help="turns of each measurement; default: 3")
    add("--seconds", type=at_least(0.1, float), default=6.0, metavar="S", help="length of a turn; default: 6")
    add("--out", type=result_file, metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
