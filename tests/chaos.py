"""Kills processes and nodes of a real run at random and checks what it makes of it: `make chaos`.

The system is `launch.py` on a Ray cluster of several nodes on this machine, or, with `--private`, on the Ray of its own
that a user's run has, with its long evaluations. Every kill is SIGKILL. Figures go to `--out`; the exit status is 1 if
a promise of docs/reliability.md was not kept.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.config import Config
from driver.options import load_config
from driver.plan import error_buffer
from tests.chaos_report import (
    NEWEST,
    Interval,
    Kill,
    Progress,
    Report,
    fallen,
    largest_burst,
    lost_updates,
    recovery,
    speed_before,
)
from tests.launching import ROOT, descendants, memory_parts_mib, progress
from tests.traces import Traces

_TITLES: Final = {
    "actor": "ray::RemoteActor",
    "replay shard": "ray::RemoteReplayShard",
    "learner": "ray::RemoteLearner",
    "evaluator": "ray::RemoteEvaluator",
}
_KINDS: Final = {
    **_TITLES,
    "driver": "launch.py",
    "Ray's server": "gcs_server",
    "Ray's daemons": "raylet/raylet",
    "spare workers": "ray::IDLE",
}
_RESTARTS: Final = "system/restarts/"
_TWO_AT_ONCE: Final = 0.15  # of the kills
_CHANCES: Final = {"actor": 8, "replay shard": 4, "learner": 3, "evaluator": 1, "node": 4}
_CHECKPOINT_S: Final = 20.0
# A long evaluation takes a share of two cores that no recovery can bring back.
_SHORT_EVALUATIONS: Final = ("--eval.interval-s", "60", "--eval.episodes", "4", "--eval.max-episodes", "4")
_WRITING_S: Final = 10.0  # for a checkpoint of the default run
_ENDING_S: Final = 10.0
_REPORTS_S: Final = 2.0  # between reports of steps and of samples, at most
_RESUMED_S: Final = 30.0  # that the run goes on for in the end
_HEAD_CPUS, _NODE_CPUS, _NODES = 3, 1, 2
_STORE_BYTES: Final = 200 * 2**20
_WARM_UP_S: Final = 75.0
_NODE_BACK_S: Final = 5.0
_LONGEST_WAIT_S: Final = 90.0
_LONGEST_SILENCE_S: Final = 260.0  # an evaluation's interval and some
_POLL_S: Final = 1.0
_FULL: Final = 0.9  # of the replay's capacity: before that, memory grows as it must


Memory = tuple[float, dict[str, float]]
"""The run's seconds, and MiB by kind of process."""


class Nodes:
    """The cluster that the run plays on; none for a private Ray."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def __bool__(self) -> bool:
        return self._cluster is not None

    def kill_one(self, rng: random.Random) -> None:
        """Ends a node, not the head, with all its processes."""
        self._cluster.remove_node(rng.choice(list(self._cluster.worker_nodes)), allow_graceful=False)

    def add_one(self) -> None:
        """Starts a node."""
        self._cluster.add_node(num_cpus=_NODE_CPUS, object_store_memory=_STORE_BYTES)


@contextmanager
def ray_nodes(private: bool, folder: Path) -> Iterator[tuple[Nodes, list[str]]]:
    """A cluster, whose files lie in a folder, and the options of `launch.py` that name it."""
    if private:
        yield Nodes(None), ["--ray.address", "local"]
        return
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
    (folder / "ray").mkdir()
    from ray.cluster_utils import Cluster  # Ray reads its environment when it is imported

    head = {
        "num_cpus": _HEAD_CPUS,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "temp_dir": str(folder),
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = Nodes(cluster)
    try:
        for _ in range(_NODES):
            nodes.add_one()
        yield nodes, ["--ray.address", cluster.address, *_SHORT_EVALUATIONS]
    finally:
        cluster.shutdown()


class Chaos:
    """One run and its killer."""

    def __init__(
        self, run: Path, process: "subprocess.Popen[str]", nodes: Nodes, rng: random.Random, traces: Traces
    ) -> None:
        self._run = run
        self._process = process
        self._nodes = nodes
        self._rng = rng
        self._traces = traces
        self._killed: set[int] = set()
        self.kills: list[Kill] = []
        self.memory: list[Memory] = []

    def begin(self) -> None:
        """Waits for the first line of progress."""
        while not progress(self._run):
            self._look()

    def rage(self, kills: int, gap_s: float, minutes: float | None) -> None:
        """Kills so many times, some seconds after each recovery, or for so many minutes of the run."""
        end = math.inf if minutes is None else 60 * minutes
        self._watch(_WARM_UP_S)
        # Later there may be one more for a moment: a node that joins is there before another's death is noticed.
        actors = self.lines[-1]["actors_alive"]
        while len(self.kills) < kills:
            self._watch(min(self._rng.uniform(0.5, 1.5) * gap_s, end - self._now))
            if self._now >= end:
                break
            what = self._choose()
            both = [what] if self._rng.random() >= _TWO_AT_ONCE else [what, self._choose_process()]
            time_s = self._now
            before = speed_before(self.lines, time_s, self.kills)
            for each in reversed(both):  # a node last: after it comes a pause
                self._kill(each)
            what = " and ".join(both)
            took = self._wait_for_recovery(time_s, before, actors)
            self.kills.append(Kill(what, time_s, before, took))
            print(f"{time_s:7.0f} s  {what:12}  {before:6.0f} steps/s before, back after {took} s", flush=True)
        self._wait_until_told()

    @property
    def lines(self) -> Progress:
        """The run's progress so far."""
        return progress(self._run)

    @property
    def _now(self) -> float:
        """The run's clock, by its last line and the time since that was written."""
        written = (self._run / "progress.jsonl").stat().st_mtime
        return float(self.lines[-1]["time_s"]) + time.time() - written

    def _choose(self) -> str:
        # There is no evaluator where the run has none.
        kinds = [kind for kind in _CHANCES if (self._nodes if kind == "node" else _processes(_TITLES[kind]))]
        return self._rng.choices(kinds, [_CHANCES[kind] for kind in kinds])[0]

    def _choose_process(self) -> str:
        while (what := self._choose()) == "node":
            pass
        return what

    def _kill(self, what: str) -> None:
        if what == "node":
            self._nodes.kill_one(self._rng)
            self._watch(_NODE_BACK_S)
            self._nodes.add_one()
            return
        while not (pids := set(_processes(_TITLES[what])) - self._killed):
            self._watch(_POLL_S)
        pid = self._rng.choice(sorted(pids))
        self._killed.add(pid)
        os.kill(pid, signal.SIGKILL)

    def _wait_for_recovery(self, time_s: float, before: float, actors: int) -> float | None:
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while (took := recovery(self.lines, time_s, before, actors)) is None and time.monotonic() < deadline:
            self._watch(_POLL_S)
        return took

    def _wait_until_told(self) -> None:
        """An evaluator's death is noticed when it is to play again."""
        deadline = time.monotonic() + _LONGEST_SILENCE_S
        while self.lines[-1]["restarts"] < len(self._killed) and time.monotonic() < deadline:
            self._watch(_POLL_S)

    def _watch(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.memory.append((self._now, _memory_by_role(self._look())))

    def _look(self) -> dict[int, str]:
        """The processes that there are, with their titles, about a second later."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the run ended by itself with status {self._process.returncode}")
        titles = descendants(os.getpid())
        self._traces.take(list(titles))
        time.sleep(_POLL_S)
        return titles


def _memory_by_role(titles: dict[int, str]) -> dict[str, float]:
    """MiB of all processes of each kind, and of what they share."""
    found = {"object store": 0.0}
    for pid, title in titles.items():
        role = next((name for name, words in _KINDS.items() if words in title), "others")
        own, shared = memory_parts_mib(pid)
        found[role] = found.get(role, 0.0) + own
        found["object store"] += shared
    return found


def _processes(title: str) -> list[int]:
    """Our own whose titles begin so."""
    return [pid for pid, found in descendants(os.getpid()).items() if found.startswith(title)]


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    options, more = _parse(arguments)
    rng = random.Random(options.seed)
    traces = Traces()
    # Nobody else writes here: what is left is the run's. The names are short because those of Ray's sockets must be.
    run, temporary, cluster = (Path(tempfile.mkdtemp(prefix=f"chaos-{name}-")) for name in "rtc")
    try:
        with ray_nodes(options.private, cluster) as (nodes, address):
            report = _rage(run / "run", temporary, nodes, [*address, *more], options, rng, traces)
        report.left_behind = [*traces.left(), *map(str, sorted(temporary.iterdir()))]
    finally:
        for folder in (run, temporary, cluster):
            shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(report.to_json(), indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text)
    return 1 if report.misses() else 0


def _rage(
    run: Path,
    temporary: Path,
    nodes: Nodes,
    more: list[str],
    options: argparse.Namespace,
    rng: random.Random,
    traces: Traces,
) -> Report:
    limits = ["--max-minutes", "1000", "--checkpoint.interval-s", str(_CHECKPOINT_S)]
    command = [sys.executable, str(ROOT / "launch.py"), "--run-dir", str(run), *limits, *more]
    terminal = run.parent / "terminal"
    # PyTorch's cache is the user's, not the run's: an empty folder that stays.
    environment = os.environ | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(run.parent / "torch")}
    with terminal.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment)
        chaos = Chaos(run, process, nodes, rng, traces)
        try:
            chaos.begin()
            chaos.rage(options.kills, options.gap_s, options.minutes)
            process.send_signal(signal.SIGINT)
            status = process.wait(180)
        except RuntimeError:
            print(terminal.read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            process.kill()
            process.wait()
    report = _report(run, terminal, chaos, status)
    report.left_behind += [f"process {pid}" for title in _TITLES.values() for pid in _still_there(title)]
    report.left_behind += map(str, sorted((run / "checkpoints").glob(".*")))
    report.resumed = _resume(run, more, environment)
    report.largest_burst = largest_burst(progress(run), report.samples_per_insert_setting)
    return report


def _still_there(title: str) -> list[int]:
    """Processes that have not ended some seconds after the run, while the cluster goes on."""
    deadline = time.monotonic() + _ENDING_S
    while (pids := _processes(title)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return pids


def _resume(run: Path, more: list[str], environment: dict[str, str]) -> str:
    """Why the run does not go on where it ended; empty if it does."""
    before = progress(run)[-1]
    limit = ["--max-minutes", str((before["time_s"] + _RESUMED_S) / 60), *_without_settings(more)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--resume", str(run), *limit],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    if done.returncode:
        return f"status {done.returncode}: {done.stderr}{done.stdout[-1000:]}"
    if "the replay goes on as it was" not in done.stdout:
        return "its replay began anew"
    after = progress(run)[-1]
    fell = [name for name in ("env_steps", "updates", "episodes") if after[name] <= before[name]]
    return f"{', '.join(fell)} did not grow" if fell else ""


def _without_settings(more: list[str]) -> list[str]:
    """Of the options of `launch.py`, the Ray to join alone: a resumed run has its own settings."""
    index = more.index("--ray.address")
    return more[index : index + 2]


def _report(run: Path, terminal: Path, chaos: Chaos, status: int) -> Report:
    lines, last = chaos.lines, chaos.lines[-1]
    settings = yaml.safe_load((run / "config.yaml").read_text())
    told = terminal.read_text(), (run / "mario.log").read_text()
    usual = statistics.median(line["updates_per_s"] for line in lines)
    memory = _once_full(chaos.memory, lines, settings)
    return Report(
        kills=chaos.kills,
        restarts=last["restarts"],
        told_on_terminal=told[0].count("; a new one takes its place"),
        told_in_log=told[1].count("; a new one takes its place"),
        samples_per_insert=last["samples_per_insert"],
        samples_per_insert_setting=float(settings["replay"]["samples_per_insert"]),
        lost_updates=lost_updates(told[1], lines),
        # A checkpoint takes some seconds to be written, and counts from when it was begun.
        updates_in_an_interval=int(usual * (settings["checkpoint"]["interval_s"] + _WRITING_S)),
        told_on_curves=_restarts_on_curves(run),
        began_without_contents=told[0].count("begins empty") + told[0].count("begins afresh"),
        speed_first=chaos.kills[0].before,
        speed_last=speed_before(lines, chaos.kills[-1].time_s, chaos.kills[:-1], NEWEST),
        fallen_counters=fallen(lines, ("env_steps", "episodes", "samples", "restarts")),
        memory_mib=_by_minute([(time_s, sum(kinds.values())) for time_s, kinds in memory]),
        memory_mib_by_kind={
            kind: _by_minute([(time_s, kinds.get(kind, 0.0)) for time_s, kinds in memory])
            for kind in sorted({kind for _, kinds in memory for kind in kinds})
        },
        minutes=round(last["time_s"] / 60, 1),
        env_steps=last["env_steps"],
        updates=last["updates"],
        episodes=last["episodes"],
        evaluations=_evaluations(run),
        burst_allowed=_burst_allowed(load_config(run / "config.yaml"), lines),
        exit_status=status,
    )


def _burst_allowed(config: Config, lines: Progress) -> float:
    """From one end of the limiters' buffers to the other, and what is sampled until both sides have reported."""
    samples_per_s = float(statistics.median(line["samples_per_s"] for line in lines))
    return 2 * config.replay.shards * error_buffer(config) + _REPORTS_S * samples_per_s


def _evaluations(run: Path) -> list[Interval]:
    """When each began and ended, about; one that a death cut short left nothing."""
    file = run / "evaluations.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(line["time_s"] - line["seconds"], line["time_s"]) for line in lines]


def _restarts_on_curves(run: Path) -> dict[str, int]:
    """The last points of system/restarts/*."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(_RESTARTS)]
    return {tag.removeprefix(_RESTARTS): int(events.Scalars(tag)[-1].value) for tag in tags}


def _once_full(memory: list[Memory], lines: Progress, settings: Any) -> list[Memory]:
    """From when the replay had filled; all of it if it never did."""
    capacity = settings["replay"]["capacity"]
    full = next((line["time_s"] for line in lines if line["replay_size"] >= _FULL * capacity), 0.0)
    return [each for each in memory if each[0] >= full] or memory


def _by_minute(memory: list[tuple[float, float]]) -> list[float]:
    """The medians of the minutes, oldest first."""
    minutes: dict[int, list[float]] = {}
    for time_s, amount in memory:
        minutes.setdefault(int(time_s / 60), []).append(amount)
    return [round(statistics.median(amounts), 1) for _, amounts in sorted(minutes.items())]


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Further options go to launch.py.")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--minutes", type=float, help="of the run, after which no more is killed")
    parser.add_argument("--gap-s", type=float, default=3.0, help="mean seconds from a recovery to the next kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--private", action="store_true", help="the run's own Ray instead of a cluster of three nodes")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
