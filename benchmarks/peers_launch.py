"""Our own system on the task: `launch.py` as a user runs it."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import ROOT
from benchmarks.peers_meter import Meter, Speed

_POLL_S: Final = 0.5
_STOP_S: Final = 60.0


def command(core: str, options: list[str], run: Path) -> list[str]:
    """The command line of a run; it is stopped once it is measured."""
    own = ["--preset", "peers", "--env.core", core, "--run-dir", str(run), "--ray.address", "local"]
    return [sys.executable, str(ROOT / "launch.py"), *own, "--max-minutes", "60", *options]


def measure(core: str, settings: dict[str, Any], meter: Meter) -> Speed:
    """Trains until the meter has what it needs.

    Args:
        core: emulator core.
        settings: `options`, further ones of `launch.py`.
        meter: takes a reading with each line of the run's `progress.jsonl`, one in five seconds.

    Raises:
        RuntimeError: the run ended before it was measured.
    """
    with tempfile.TemporaryDirectory(prefix="apex-mario-peers-") as folder:
        run = Path(folder) / "run"
        process = subprocess.Popen(command(core, settings["options"], run), stdin=subprocess.DEVNULL)
        try:
            _follow(process, run / "progress.jsonl", meter)
        finally:
            _stop(process)
    return meter.speed()


def _follow(process: "subprocess.Popen[bytes]", progress: Path, meter: Meter) -> None:
    seen = 0
    while True:
        ended = process.poll() is not None
        text = progress.read_text(encoding="utf-8") if progress.exists() else ""
        lines = text.rpartition("\n")[0].splitlines()  # the last line may be half written
        for line in map(json.loads, lines[seen:]):
            if not meter.read(line["time_s"], line["env_steps"], line["samples"]):
                return
        if ended:
            raise RuntimeError(f"launch.py ended by itself, with exit status {process.returncode}")
        seen = len(lines)
        time.sleep(_POLL_S)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """An orderly end, as by Ctrl-C."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
