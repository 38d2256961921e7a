"""How the system's costs grow with its actors and shards: `python -m benchmarks.scaling --help`.

Runs the real system on the synthetic environment, whose steps sleep, at several sizes one after the other, and prints
what each one did and cost. `docs/scaling.md` explains the figures and what follows from them.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from benchmarks.scaling_run import SAMPLES_PER_INSERT, Measured, ScalingRunError, Setup, measure
from common.errors import UserError
from common.files import write_atomically
from driver.provenance import describe_commit
from replay.memory import available_memory

_MB: Final = 1e6
_FIRST_ACTOR_BYTES: Final = 250e6  # assumed of an actor until one was measured
_OTHERS_BYTES: Final = 1.5e9  # Ray, learner, shards and driver
_GROWTH_FROM: Final = 4  # actors; below, what every run costs once is most of the cost

_TABLE_HEADER: Final = (
    "| actors | shards | env steps/s | of the ceiling | samples/insert | policy lag | CPU: driver | GCS + raylet |"
    " learner | per shard | per actor | memory per actor | all |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    try:
        return _run(_parser().parse_args(argv))
    except UserError as error:
        print(f"scaling: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    results = _read(options.out, options.step_ms)
    status = 0
    for shards, actors in itertools.product(options.shards, options.actors):
        setup = Setup(actors, shards, options.step_ms, options.seconds, options.warm_up)
        short = _memory_shortage(setup, results)
        if short is not None:
            print(f"{_size(actors, shards)}: left out: {short}", flush=True)
            continue
        print(f"{_size(actors, shards)}: up to {setup.ceiling:g} env steps/s …", flush=True)
        try:
            measured = measure(setup)
        except ScalingRunError as error:
            print(f"{_size(actors, shards)}: failed: {error}", file=sys.stderr, flush=True)
            status = 1
            continue
        results = [known for known in results if (known.setup.actors, known.setup.shards) != (actors, shards)]
        results = sorted([*results, measured], key=lambda each: (each.setup.shards, each.setup.actors))
        if options.out is not None:
            _write(options.out, results)
    print(_table(results))
    for row in growth_rows(results):
        print(f"{row['name']}: {row['figure']:.2f} (at most {row['ceiling']:g})")
    return status


def rows(results: Sequence[Measured]) -> list[dict[str, Any]]:
    """The figures that have a ceiling, with their ratio to it."""
    listed = []
    for each in results:
        size = _size(each.setup.actors, each.setup.shards)
        listed += [
            _row(f"throughput, {size}", each.env_steps_per_s, "env steps/s", each.setup.ceiling),
            _row(f"samples per insert, {size}", each.samples_per_insert, "samples/transition", SAMPLES_PER_INSERT),
        ]
    return listed


def growth_rows(results: Sequence[Measured]) -> list[dict[str, Any]]:
    """With which power of the number of actors each cost grows, for each number of shards.

    The exponent is that of the line through the smallest size from four actors on and the largest; a cost that
    grows like the number of actors has 1.
    """
    listed = []
    for shards in sorted({each.setup.shards for each in results}):
        sizes = [each for each in results if each.setup.shards == shards and each.setup.actors >= _GROWTH_FROM]
        if len(sizes) < 2:
            continue
        small, large = sizes[0], sizes[-1]
        span = f"{small.setup.actors} to {_size(large.setup.actors, shards)}"
        for name in ("driver CPU", "GCS and raylet CPU", "learner CPU", "shard CPU", "actor CPU", "memory"):
            ratio = _costs(large)[name] / _costs(small)[name]
            exponent = math.log(ratio) / math.log(large.setup.actors / small.setup.actors)
            listed.append(_row(f"growth of {name}, {span}", exponent, "power of actors", 1.0))
    return listed


def _costs(each: Measured) -> dict[str, float]:
    """Processor seconds per second, or bytes, of the whole system."""
    tick = 0.01 / each.seconds  # the least that is measured
    return {
        "driver CPU": max(tick, each.cpu["driver"]),
        "GCS and raylet CPU": max(tick, each.cpu["gcs"] + each.cpu["raylet"]),
        "learner CPU": max(tick, each.cpu["learner"]),
        "shard CPU": max(tick, each.cpu["shards"]),
        "actor CPU": max(tick, each.cpu["actors"]),
        "memory": float(sum(each.memory.values())),
    }


def _row(name: str, figure: float, unit: str, ceiling: float) -> dict[str, Any]:
    return {"name": name, "figure": round(figure, 4), "unit": unit, "ceiling": ceiling, "ratio": figure / ceiling}


def _size(actors: int, shards: int) -> str:
    return f"{actors} actor{'' if actors == 1 else 's'}, {shards} shard{'' if shards == 1 else 's'}"


def _memory_shortage(setup: Setup, results: Sequence[Measured]) -> str | None:
    """Why the machine's memory does not hold a run of this size, or None."""
    known = max(results, key=lambda each: each.setup.actors, default=None)
    each = _FIRST_ACTOR_BYTES if known is None else known.memory["actors"] / known.setup.actors
    needed, available = setup.actors * each + _OTHERS_BYTES, available_memory()
    if needed <= available:
        return None
    return (
        f"at {each / _MB:.0f} MB an actor it takes {needed / _MB:,.0f} MB, and {available / _MB:,.0f} MB are available"
    )


def _table(results: Sequence[Measured]) -> str:
    lines = [_TABLE_HEADER]
    for each in results:
        setup, cpu = each.setup, each.cpu
        cells = (
            *(setup.actors, setup.shards, f"{each.env_steps_per_s:.1f}", f"{each.env_steps_per_s / setup.ceiling:.1%}"),
            *(f"{each.samples_per_insert:.3f}", f"{each.policy_lag:.1f}"),
            *(f"{cpu['driver']:.3f}", f"{cpu['gcs'] + cpu['raylet']:.3f}", f"{cpu['learner']:.3f}"),
            *(f"{cpu['shards'] / setup.shards:.3f}", f"{cpu['actors'] / setup.actors:.4f}"),
            *(f"{each.memory['actors'] / setup.actors / _MB:.0f} MB", f"{sum(each.memory.values()) / _MB:,.0f} MB"),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _read(path: Path | None, step_ms: float) -> list[Measured]:
    """The sizes that a results file holds, measured with the same environment; those measured again are replaced."""
    if path is None or not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = [Measured.from_json(values) for values in content["raw"]]
        machine = content["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--out {path} is no results file of this benchmark ({error}); name another") from error
    if machine != describe_machine():
        raise UserError(f"--out {path} is of another machine; name another file")
    if any(each.setup.step_ms != step_ms for each in known):
        raise UserError(f"--out {path} is of environments with another --step-ms; name another file")
    return known


def _write(path: Path, results: Sequence[Measured]) -> None:
    content = {
        "benchmark": "scaling",
        "machine": describe_machine(),
        **describe_commit(),
        "rows": [*rows(results), *growth_rows(results)],
        "raw": [each.as_json() for each in results],
    }
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--actors", type=_numbers, default=[1, 4, 16, 32, 64], help="numbers of actors, such as 1,4,16,64"
    )
    parser.add_argument("--shards", type=_numbers, default=[2], help="numbers of shards, each with every one of actors")
    parser.add_argument("--seconds", type=at_least(5.0, float), default=60.0, help="measured at each size (default 60)")
    parser.add_argument("--warm-up", type=at_least(0.0, float), default=20.0, help="seconds before that (default 20)")
    parser.add_argument(
        "--step-ms", type=at_least(1.0, float), default=128.0, help="cost of an environment step (default 128)"
    )
    parser.add_argument("--out", type=result_file, help="JSON file; the sizes that it holds already are kept")
    return parser


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,4,16")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
