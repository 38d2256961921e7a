"""One system, measured in a process of its own: `python -m benchmarks.peers_process REQUEST`."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks.machine import ROOT
from benchmarks.peers_meter import Meter, Speed
from benchmarks.peers_systems import Settings, System

_START_S: Final = 300.0  # for the start, the filling of the replay and the end
_STOP_S: Final = 90.0


class MeasurementFailedError(Exception):
    """A system's process failed."""


def measure(system: System, settings: Settings, *, warm_up_s: float, seconds: float) -> Speed:
    """Starts the system, measures it and waits for its end.

    Args:
        system: what to measure.
        settings: one of its variants.
        warm_up_s: training before the window.
        seconds: the window's length.

    Raises:
        MeasurementFailedError: with the last lines of what the process said.
    """
    with tempfile.TemporaryDirectory(prefix="apex-mario-peers-") as folder:
        out = Path(folder) / "speed.json"
        request = {
            "module": system.module,
            "core": system.core,
            "settings": dict(settings),
            "warm_up_s": warm_up_s,
            "seconds": seconds,
            "out": str(out),
        }
        status, said = _run(request, Path(folder), timeout_s=_START_S + 3 * (warm_up_s + seconds))
        if status != 0 or not out.exists():
            raise MeasurementFailedError(f"{system.title}, {dict(settings)}: exit status {status}\n{said}")
        return Speed(**json.loads(out.read_text(encoding="utf-8")))


def _run(request: dict[str, Any], folder: Path, *, timeout_s: float) -> tuple[int, str]:
    """Exit status and the last lines said; a process that hangs, or whose caller is interrupted, is ended."""
    said = folder / "said.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers_process", json.dumps(request)],
            cwd=ROOT,
            # RLlib leaves a folder in ~/ray_results for each run.
            env=os.environ | {"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal reaches this program alone, which passes it on.
            start_new_session=True,
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = _stop(process)
        except BaseException:
            _stop(process)
            raise
    return status, "\n".join(said.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def _stop(process: "subprocess.Popen[bytes]") -> int:
    """An orderly end, or else that of all its processes; its exit status."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _main() -> None:
    """The child: measures and writes the speed."""
    signal.signal(signal.SIGTERM, _interrupt)
    request = json.loads(sys.argv[1])
    module = importlib.import_module(f"benchmarks.{request['module']}")
    meter = Meter(request["warm_up_s"], request["seconds"])
    speed: Speed = module.measure(request["core"], request["settings"], meter)
    Path(request["out"]).write_text(json.dumps(speed._asdict()), encoding="utf-8")


if __name__ == "__main__":
    _main()
