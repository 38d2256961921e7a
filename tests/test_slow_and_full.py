"""Parts of a real run that pause or are gone, and an object store that is small: the others wait and nothing grows."""

import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.launching import (
    SMALL,
    descendants,
    finish,
    memory_parts_mib,
    process_of,
    processes_of,
    progress,
    start,
    wait_for,
)

PATIENT = ["--ray.hang-s", "900"]  # who is paused here is to count as slow, not as dead
PLAYED = ["--env.name", "synthetic", "--env.step-ms", "2", *SMALL, *PATIENT, "--checkpoint.interval-s", "20"]
SAMPLES_PER_INSERT = 2.0  # of SMALL
REST_S = 20.0  # until what was on its way has arrived

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


Memory = dict[tuple[int, str], float]  # MiB, by process and title
OBJECT_STORE = (0, "object store")


class Watched:
    """A running `launch.py` and what its processes take."""

    def __init__(self, run: Path, *arguments: str) -> None:
        self.run = run
        self.process = start(run, *arguments)

    def begin(self) -> None:
        """Waits until it learns."""
        wait_for(lambda: any(line["updates"] > 100 for line in progress(self.run)), self.process, 300)

    def close(self) -> None:
        """Ends what a test that failed left running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    @property
    def last(self) -> dict[str, Any]:
        return progress(self.run)[-1]

    def memory(self) -> Memory:
        """Each process's own, and Ray's object store once: a process's part of that depends on who looks at it too."""
        titles = {self.process.pid: "driver", **descendants(self.process.pid)}
        parts = {pid: memory_parts_mib(pid) for pid in titles}
        # Ray adds the method that runs, after a point.
        own = {(pid, title[:60].partition(".")[0]): parts[pid][0] for pid, title in titles.items()}
        return {**own, OBJECT_STORE: sum(shared for _, shared in parts.values())}

    def watch(self, seconds: float) -> tuple[list[Memory], list[dict[str, Any]]]:
        """Memory every two seconds, and the lines of progress meanwhile."""
        before, memory = len(progress(self.run)), []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            memory.append(self.memory())
            time.sleep(2)
        return memory, progress(self.run)[before:]

    def go_on(self) -> None:
        """Until much has been played and learned."""
        steps, updates = self.last["env_steps"] + 5_000, self.last["updates"] + 500
        wait_for(lambda: self.last["env_steps"] > steps and self.last["updates"] > updates, self.process, 300)

    def end(self) -> str:
        """What the run said, after a clean end without a death, and with the ratio on its setting."""
        self.process.send_signal(signal.SIGINT)
        status, out, err = finish(self.process, 180)
        assert (status, err) == (0, "")
        assert self.last["restarts"] == 0
        assert self.last["samples_per_insert"] == pytest.approx(SAMPLES_PER_INSERT, rel=0.1)
        return out


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A run that learns."""
    with closing(Watched(tmp_path / "run", *PLAYED)) as run:
        run.begin()
        yield run


@contextmanager
def paused(pids: list[int], process: "subprocess.Popen[str]") -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _medians(memory: list[Memory]) -> Memory:
    there = set.intersection(*(set(each) for each in memory))
    return {process: statistics.median(each[process] for each in memory) for process in there}


def flat(memory: list[Memory]) -> None:
    """Our processes do not grow; Ray's own, which are young, by a few MiB.

    Compared are medians of the first and the last third: a learner gives the memory of a checkpoint's copy back, some
    of which it takes again within seconds, so that two instants differ by several MiB either way.
    """
    third = len(memory) // 3
    first, last = _medians(memory[:third]), _medians(memory[-third:])
    totals = [sum(each.values()) for each in memory]
    print(f"memory {totals[0]:.1f} MiB at first, {max(totals):.1f} at most, {totals[-1]:.1f} at last")
    grown = {process: last[process] - first[process] for process in last.keys() & first.keys()}
    print({f"{title} {pid}": round(size, 1) for (pid, title), size in grown.items() if size > 0.5})
    ours = {process: size for process, size in grown.items() if process[1].startswith(("ray::Remote", "driver"))}
    assert len(ours) == 7  # driver, learner, two actors, two shards, evaluator
    assert grown[OBJECT_STORE] < 2
    assert max(ours.values()) < 2
    assert max(totals) - totals[0] < 0.02 * totals[0]


def test_actors_wait_for_a_learner_that_pauses_for_five_minutes_and_memory_is_flat(watched: Watched) -> None:
    with paused([process_of("RemoteLearner", watched.process)], watched.process):
        time.sleep(REST_S)
        memory, lines = watched.watch(300 - REST_S)
    assert len({(line["env_steps"], line["updates"], line["replay_size"]) for line in lines}) == 1
    flat(memory)
    watched.go_on()
    out = watched.end()
    assert out.count("the actors wait for the learner: there was no room for their transitions for 30 s") == 1
    assert out.count("the actors go on after 3") == 1  # hundred seconds


def test_a_learner_without_actors_waits_by_the_limiter_and_says_so(watched: Watched) -> None:
    with paused(processes_of("RemoteActor", watched.process), watched.process):
        time.sleep(REST_S)
        memory, lines = watched.watch(60)
    assert len({(line["env_steps"], line["updates"]) for line in lines}) == 1
    assert lines[-1]["wait_fraction"] > 0.9
    flat(memory)
    watched.go_on()
    out = watched.end()
    assert out.count("the learner waits for the actors: no transitions for 30 s") == 1
    assert out.count("the learner goes on after") == 1


def test_a_shard_that_pauses_does_not_hold_the_other_one_up(watched: Watched) -> None:
    with paused([process_of("RemoteReplayShard", watched.process)], watched.process):
        time.sleep(REST_S)
        memory, lines = watched.watch(60)
    for earlier, later in zip(lines[:-2:2], lines[2::2], strict=False):  # ten seconds each
        assert later["env_steps"] > earlier["env_steps"]
        assert later["updates"] > earlier["updates"]
    flat(memory)
    watched.go_on()
    assert "wait for" not in watched.end()


STATE = {
    "spilled": r"cumulative spill requests: (\d+)",
    "free": r"num bytes available for pulled objects: (-?\d+)",
    "waiting": r"num_waiting_for_plasma_memory: (\d+)",
}


def store_state(process: "subprocess.Popen[str]") -> dict[str, int]:
    """What Ray last wrote of its object store, about every ten seconds; nothing before."""
    arguments = next((title for title in descendants(process.pid).values() if "--session_dir=" in title), None)
    if arguments is None:
        return {}
    session = Path(re.findall(r"--session_dir=(\S+)", arguments)[0])
    assert not list(session.glob("ray_spilled_objects*/*"))
    state = session / "logs" / "debug_state.txt"
    text = state.read_text() if state.exists() else ""
    return {name: int(found[1]) for name, pattern in STATE.items() if (found := re.search(pattern, text))}


@pytest.mark.parametrize("network", [[], ["--agent.network", "nature"]], ids=["default", "nature"])
def test_a_small_object_store_spills_nothing(network: list[str], tmp_path: Path) -> None:
    """The default preset, frames of Mario, with the smallest store: chunks, batches, weights, snapshots."""
    store_mb = 80
    settings = ["--ray.address", "local", "--ray.object-store-mb", str(store_mb), "--checkpoint.interval-s", "10"]
    evaluations = ["--eval.interval-s", "10", "--eval.episodes", "1", "--eval.max-episodes", "1"]
    run = Watched(tmp_path / "run", *settings, *evaluations, *network, "--replay.capacity", "20000", "--seed", "1")
    states: list[dict[str, int]] = []

    def enough() -> bool:
        states.append(store_state(run.process))
        log = (run.run / "mario.log").read_text() if progress(run.run) else ""
        checkpoints, evaluated = log.count("checkpoint step-"), log.count("evaluation after")
        return checkpoints > 5 and evaluated > 2 and run.last["env_steps"] > 25_000

    with closing(run):
        wait_for(enough, run.process, 900)
        run.process.send_signal(signal.SIGINT)
        status, _, err = finish(run.process, 180)
    assert (status, err) == (0, "")
    known = [state for state in states if state]
    print(f"at least {min(state['free'] for state in known) / 2**20:.1f} of {store_mb} MiB were free")
    assert {state["spilled"] for state in known} == {0}
    assert {state["waiting"] for state in known} == {0}
    assert min(state["free"] for state in known) > 0
