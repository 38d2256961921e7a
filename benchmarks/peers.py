"""Transitions and samples per second of `launch.py --preset peers` beside other DQNs, on the same machine and game.

    make bench-peers                                          # installs the peers and measures everything
    python -m benchmarks.peers --only sb3 ours --seconds 20   # a quick look

Every system plays World 1-1 through the project's own environment, with the same emulator core, preprocessing, actions
and network, learns from batches of 32 on this machine's processor, and is measured by itself in a process of its own,
one after the other, in a few rounds. A system with several settings worth trying gets a short trial of each first, and
is measured with its fastest.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from actors.cores import make_core
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from benchmarks.peers_process import MeasurementFailedError, measure
from benchmarks.peers_results import Measured, describe, markdown_table, rows
from benchmarks.peers_systems import SYSTEMS, System
from benchmarks.performance_tables import table
from common.errors import UserError, first_line
from common.files import write_atomically
from common.presets import PRESETS
from driver.options import flatten
from driver.provenance import describe_commit


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0; 1 after a failed measurement, 2 after a mistake of the user's, 130 if interrupted."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _compare(options)
    except UserError as error:
        print(f"peers: error: {error}", file=sys.stderr)
        return 2
    except MeasurementFailedError as error:
        print(f"peers: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("peers: interrupted", file=sys.stderr)
        return 130
    return 0


def _compare(options: argparse.Namespace) -> None:
    systems = available({name: SYSTEMS[name] for name in SYSTEMS if name in options.only})
    load = os.getloadavg()[0]
    measured = {name: _choose(system, options) for name, system in systems.items()}
    for number in range(1, options.rounds + 1):
        for entry in measured.values():
            speed = measure(entry.system, entry.settings, warm_up_s=options.warm_up, seconds=options.seconds)
            entry.runs.append(speed)
            _say(f"round {number}/{options.rounds}: {entry.system.title}", speed.transitions_per_s, speed.samples_per_s)
    found = rows(measured)
    print(f"\n{markdown_table(list(measured.values()))}\n\n{table(found)}")
    if options.out is not None:
        record = _record(options, load, measured, found)
        write_atomically(options.out, (json.dumps(record, indent=2) + "\n").encode())
        print(f"wrote {options.out}")


def available(systems: Mapping[str, System]) -> dict[str, System]:
    """Those whose emulator core is there; says which are left out.

    Raises:
        UserError: a library is missing, or nothing is left.
    """
    left = {}
    for name, system in systems.items():
        missing = [package for package in system.packages if not _version(package)]
        if missing:
            raise UserError(f"{', '.join(missing)} is not installed: make bench-peers does that, or leave out {name}")
        try:
            make_core(system.core).close()
        except UserError as error:
            print(f"{name} is left out: {first_line(error)}", flush=True)
        else:
            left[name] = system
    if not left:
        raise UserError("there is nothing to measure")
    return left


def _choose(system: System, options: argparse.Namespace) -> Measured:
    """The variant to measure, after a trial of each where there are several."""
    if len(system.variants) == 1 or options.trial_seconds == 0:
        return Measured(system, system.variants[0])
    trials = []
    for settings in system.variants:
        speed = measure(system, settings, warm_up_s=options.warm_up / 2, seconds=options.trial_seconds)
        trials.append((settings, speed))
        _say(f"trial: {system.title}, {describe(settings)}", speed.transitions_per_s, speed.samples_per_s)
    best, _ = max(trials, key=lambda trial: trial[1].transitions_per_s)
    return Measured(system, best, trials)


def _record(
    options: argparse.Namespace, load: float, measured: dict[str, Measured], found: list[dict[str, Any]]
) -> dict[str, Any]:
    packages = {package for entry in measured.values() for package in (*entry.system.packages, "torch", "nes-py")}
    return {
        "rows": found,
        "systems": {name: entry.as_json() for name, entry in measured.items()},
        "protocol": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warm_up_s": options.warm_up,
            "trial_seconds": options.trial_seconds,
            "load_average_before": round(load, 2),
        },
        "preset": flatten(PRESETS["peers"]),
        "versions": {package: _version(package) for package in sorted(packages)},
        **describe_commit(),
        "machine": describe_machine(),
    }


def _version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _say(what: str, transitions_per_s: float, samples_per_s: float) -> None:
    print(f"{what}: {transitions_per_s:.1f} transitions/s, {samples_per_s:.1f} samples/s", flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measures launch.py beside other implementations of DQN."
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help=f"of: {', '.join(SYSTEMS)}")
    add("--rounds", type=at_least(1, int), default=3, metavar="N", help="rounds over all systems; default: 3")
    text = "seconds of a measurement; default: 45"
    add("--seconds", type=at_least(1.0, float), default=45.0, metavar="S", help=text)
    # Long enough for the actors of launch.py to push their first chunks, before which they play unhindered.
    text = "seconds of training before a measurement, half of it before a trial; default: 20"
    add("--warm-up", type=at_least(0.0, float), default=20.0, metavar="S", help=text)
    text = "seconds of the trial of each of a system's settings; 0: no trials, its first; default: 15"
    add("--trial-seconds", type=at_least(0.0, float), default=15.0, metavar="S", help=text)
    add("--out", type=result_file, metavar="FILE", help="JSON file to write; none if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
