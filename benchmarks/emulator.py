"""The emulator cores alone: frames, pictures and what the rules cost on them.

    python -m benchmarks.emulator --out docs/results/performance/emulator.json

Every core runs Super Mario Bros. in this process, one console, one thread; the measurements take turns. *Frames* are
the core's own, with nothing read from it: the ceiling of everything that plays. *Played* adds the rules at each frame,
and, once in four frames, the picture as the network sees it and a step's random buttons.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

import numpy as np

from actors import fceumm
from actors.cores import CoreName, make_core
from actors.environment import make_environment
from actors.mario import MarioRules
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.files import write_atomically
from common.process import tune_process
from driver.provenance import describe_commit

FRAMES_PER_STEP: Final = 4
_RIGHT_AND_RUN: Final = 0b10000010
_FRAMES_OF_A_RUN: Final = 160  # before the first enemy gets him: black screens are cheaper than the game


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0."""
    options = _parser().parse_args(argv)
    tune_process()
    cores = installed_cores()
    loops = {core: (raw_loop(core), _played_loop(core)) for core in cores}
    frames: dict[CoreName, list[float]] = {core: [] for core in cores}
    played: dict[CoreName, list[float]] = {core: [] for core in cores}
    for _ in range(options.turns):
        for core, (raw, play) in loops.items():
            frames[core].append(rate(raw, options.seconds))
            played[core].append(rate(play, options.seconds))
    rows = [row for core in cores for row in _rows(core, median(frames[core]), median(played[core]))]
    slow, fast = (median(frames.get(core, [float("nan")])) for core in ("nes-py", "fceumm"))
    if len(cores) > 1:
        rows.append(_row("frames, fceumm", fast, "frames/s", {"peer": "nes-py", "peer_figure": slow}))
    for row in rows:
        print(f"{row['name']:28} {row['figure']:9.0f} {row['unit']:9} ratio {row['ratio']:.3f}")
    if options.out is not None:
        record = {"rows": rows, "turns": options.turns, **describe_commit(), "machine": describe_machine()}
        write_atomically(options.out, (json.dumps(record, indent=2) + "\n").encode())
    return 0


def installed_cores() -> list[CoreName]:
    """The cores that can be measured."""
    return ["nes-py", "fceumm"] if fceumm.is_installed() else ["nes-py"]


def raw_loop(core: CoreName) -> Callable[[], int]:
    """Runs a few frames of a console in World 1-1, with Mario running to the right from the start; how many."""
    console = MarioRules(make_core(core), (1, 1)).core
    played = 0

    def run() -> int:
        nonlocal played
        if played % _FRAMES_OF_A_RUN == 0:
            console.restore()
        played += FRAMES_PER_STEP
        for _ in range(FRAMES_PER_STEP):
            console.frame_advance(_RIGHT_AND_RUN)
        return FRAMES_PER_STEP

    return run


def rate(run: Callable[[], int], seconds: float) -> float:
    """What `run` counts, per second."""
    started, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        count += run()
    return count / elapsed


def _played_loop(core: CoreName) -> Callable[[], int]:
    env = make_environment(core=core, noop_max=0)
    env.reset()
    rng = np.random.default_rng(0)

    def run() -> int:
        _, _, terminated, _, _ = env.step(int(rng.integers(env.environment_spec.num_actions)))
        if terminated:
            env.reset()
        return FRAMES_PER_STEP

    return run


def _rows(core: CoreName, frames: float, played: float) -> list[dict[str, Any]]:
    ceiling = {"ceiling": "its frames alone", "ceiling_figure": round(frames, 1)}
    return [_row(f"played, {core}", played, "frames/s", ceiling)]


def _row(name: str, figure: float, unit: str, against: dict[str, Any]) -> dict[str, Any]:
    number = against.get("ceiling_figure") or against["peer_figure"]
    against = {key: round(value, 1) if isinstance(value, float) else value for key, value in against.items()}
    return {"name": name, "figure": round(figure, 1), "unit": unit, **against, "ratio": round(figure / number, 3)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emulator", description="Measures the emulator cores.")
    add = parser.add_argument
    add("--turns", type=at_least(1, int), default=3, metavar="N", help="turns of each measurement; default: 3")
    add("--seconds", type=at_least(0.1, float), default=2.0, metavar="S", help="length of a turn; default: 2")
    add("--out", type=result_file, metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
