"""One measured run of the real system on the synthetic environment."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import ROOT
from benchmarks.scaling_processes import ROLES, cpu_seconds, memory_bytes, processes_by_role
from driver.provenance import describe_commit

ENVS_PER_ACTOR: Final = 4
SAMPLES_PER_INSERT: Final = 0.25  # a light learner: it is not what is measured
CHUNK_LENGTH: Final = 8  # short, so that slow synthetic actors make as many calls a second as real ones do
BATCH_SIZE: Final = 16
REPLAY_AGE_S: Final = 20.0  # the capacity grows with the actors, so that transitions are equally old
_START_TIMEOUT_S: Final = 400.0
_STOP_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.5


class ScalingRunError(Exception):
    """A run did not come to be measured; the message is its output's last line."""


@dataclass(frozen=True)
class Setup:
    """What is run and for how long it is measured."""

    actors: int
    shards: int
    step_ms: float  # of an environment step
    seconds: float  # measured
    warm_up_s: float  # after all actors play and the learner trains

    @property
    def ceiling(self) -> float:
        """Env steps/s if nothing but the environments took time."""
        return self.actors * 1000 / self.step_ms

    @property
    def capacity(self) -> int:
        """Transitions of the replay."""
        return max(self.shards * 4 * CHUNK_LENGTH, round(self.ceiling * REPLAY_AGE_S))

    def options(self, run: Path) -> list[str]:
        """What `launch.py` is given."""
        settings: dict[str, object] = {
            "run-dir": run,
            "env.name": "synthetic",
            "env.step-ms": self.step_ms,
            "actors.count": self.actors,
            "actors.envs-per-actor": ENVS_PER_ACTOR,
            "actors.chunk-length": CHUNK_LENGTH,
            "replay.shards": self.shards,
            "replay.capacity": self.capacity,
            "replay.min-size": self.capacity // 4,
            "replay.samples-per-insert": SAMPLES_PER_INSERT,
            "learner.batch-size": BATCH_SIZE,
            # At most about one broadcast a second.
            "learner.broadcast-period": max(1, round(self.ceiling * SAMPLES_PER_INSERT / BATCH_SIZE)),
            "learner.prefetch": 1,
            "learner.threads": 1,
            "learner.device": "cpu",
            "checkpoint.interval-s": 3_600,
            "ray.address": "local",
            "max-minutes": 60,
        }
        return ["--eval.no-enabled", *(text for name, value in settings.items() for text in (f"--{name}", str(value)))]


@dataclass(frozen=True)
class Measured:
    """The figures of one run's measured seconds."""

    setup: Setup
    seconds: float
    env_steps_per_s: float
    samples_per_s: float
    samples_per_insert: float  # since sampling began
    policy_lag: float  # weight versions
    actor_wait_fraction: float
    learner_wait_fraction: float
    cpu: dict[str, float]  # processor seconds per second, by role
    memory: dict[str, int]  # bytes of proportional set size at the end, by role
    processes: dict[str, int]  # by role
    commit: str | None = None  # of the code

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Measured":
        """The opposite of `as_json`."""
        return Measured(**(values | {"setup": Setup(**values["setup"])}))


def measure(setup: Setup) -> Measured:
    """Starts the system, warms it up, measures and stops it.

    Raises:
        ScalingRunError: it did not start or did not go on.
    """
    with tempfile.TemporaryDirectory(prefix="apex-mario-scaling-") as folder:
        run, log = Path(folder) / "run", Path(folder) / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "launch.py"), *setup.options(run)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        try:
            return _measure_running(setup, process, run, log)
        finally:
            _stop(process)


def _measure_running(setup: Setup, process: "subprocess.Popen[bytes]", run: Path, log: Path) -> Measured:
    def plays() -> bool:
        lines = _progress(run)
        return bool(lines) and lines[-1]["actors_alive"] == setup.actors and lines[-1]["updates"] > 0

    _wait(plays, _START_TIMEOUT_S, process, log)
    _sleep(setup.warm_up_s, process, log)
    roles = processes_by_role(process.pid)
    first, cpu, started = len(_progress(run)), cpu_seconds(roles), time.monotonic()
    _sleep(setup.seconds, process, log)
    used, seconds = cpu_seconds(roles), time.monotonic() - started
    lines = _progress(run)[first - 1 :]  # the first one ends where the measured seconds begin
    before, after = lines[0], lines[-1]
    elapsed = after["time_s"] - before["time_s"]
    if elapsed <= 0:
        raise ScalingRunError(f"{setup.seconds:g} measured seconds hold no line of progress; measure longer")
    memory = memory_bytes(roles)
    return Measured(
        setup=setup,
        seconds=seconds,
        env_steps_per_s=(after["env_steps"] - before["env_steps"]) / elapsed,
        samples_per_s=(after["samples"] - before["samples"]) / elapsed,
        samples_per_insert=after["samples_per_insert"],
        policy_lag=_mean(lines[1:], "policy_lag"),
        actor_wait_fraction=_mean(lines[1:], "actor_wait_fraction"),
        learner_wait_fraction=_mean(lines[1:], "wait_fraction"),
        cpu={role: round((used[role] - cpu[role]) / seconds, 4) for role in ROLES},
        memory={role: memory[role] for role in ROLES},
        processes={role: list(roles.values()).count(role) for role in ROLES},
        commit=describe_commit()["commit"],
    )


def _progress(run: Path) -> list[dict[str, Any]]:
    """The whole lines of `progress.jsonl` so far."""
    path = run / "progress.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _mean(lines: list[dict[str, Any]], key: str) -> float:
    values = [line[key] for line in lines if line[key] is not None]
    return sum(values) / len(values) if values else float("nan")


def _wait(condition: Callable[[], bool], timeout_s: float, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ScalingRunError(f"not all actors and the learner were at work after {timeout_s:g} s: {_last(log)}")
        _sleep(_POLL_S, process, log)


def _sleep(seconds: float, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits, unless the run ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise ScalingRunError(f"the run ended by itself: {_last(log)}")


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the run; at once if it does not end cleanly."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
