"""`launch.py` for real when processes die, hang or stand still: what is replaced, and what ends the run."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from learner.checkpoint import load_checkpoint, newest_checkpoint
from tests.launching import (
    GRID,
    EndedRun,
    all_gone,
    descendants,
    finish,
    process_of,
    progress,
    start,
    start_raw,
    wait_for,
)


def test_a_dead_actor_is_replaced_and_counted(run_with_a_death: EndedRun) -> None:
    last = progress(run_with_a_death.folder)[-1]
    assert (last["restarts"], last["actors_alive"]) == (1, 2)
    assert "died" in run_with_a_death.out
    assert "takes its place" in run_with_a_death.out


@pytest.mark.parametrize(
    ("role", "name", "words"),
    [
        ("RemoteLearner", "learner", "the new learner goes on from step-"),
        ("RemoteReplayShard", "replay_shard", "is back as in the last checkpoint"),
        pytest.param(
            *("RemoteEvaluator", "evaluator", "the evaluator died (its process is gone); a new one takes its place"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_dead_roles_are_replaced_too_and_training_goes_on(
    role: str, name: str, words: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--checkpoint.interval-updates", "100")
    wait_for(lambda: newest_checkpoint(run / "checkpoints") is not None, process)
    os.kill(process_of(role, process), signal.SIGKILL)
    wait_for(lambda: progress(run)[-1]["restarts"] == 1, process)
    back = len(progress(run))
    wait_for(
        lambda: len(progress(run)) > back + 1 and progress(run)[-1]["updates"] > progress(run)[back]["updates"], process
    )
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert words in out
    counters = load_checkpoint(newest_checkpoint(run / "checkpoints")).state["counters"]  # type: ignore[arg-type]
    assert counters["restarts"] == {name: 1}
    # A new shard counts on from its predecessor, of which the last second is not known.
    assert counters["replay_samples"] >= 0.9 * max(line["samples"] for line in progress(run))


@pytest.mark.slow
def test_a_learner_that_dies_before_the_first_checkpoint_begins_afresh(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID)
    wait_for(lambda: any(line["updates"] for line in progress(run)), process)
    os.kill(process_of("RemoteLearner", process), signal.SIGKILL)
    wait_for(lambda: progress(run)[-1]["restarts"] == 1 and progress(run)[-1]["updates"] > 0, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert "there is no checkpoint to go on from: the new learner begins afresh" in out


@pytest.mark.slow
def test_a_learner_that_dies_when_the_checkpoints_are_gone_ends_the_run_which_goes_on_once_they_are_back(
    tmp_path: Path,
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    process = start(run, *GRID, "--checkpoint.interval-s", "5")
    wait_for(lambda: (run / "mario.log").exists() and "checkpoint step-" in (run / "mario.log").read_text(), process)
    (run / "checkpoints").rename(elsewhere)  # as where their disk is unmounted
    os.kill(process_of("RemoteLearner", process), signal.SIGKILL)
    status, out, err = finish(process)
    assert (status, err) == (1, "")
    assert "launch.py: error: the learner died and cannot be replaced: the checkpoints that this session loaded" in out
    assert f"once the checkpoints are back, go on with: python launch.py --resume {run}" in out
    assert progress(run)[-1]["updates"] > 0
    elsewhere.rename(run / "checkpoints")
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    more = str(load_checkpoint(newest).step + 50)
    status, out, err = finish(start_raw("--resume", str(run), "--max-updates", more))
    assert (status, err) == (0, "")
    assert f"resuming from {newest.name}" in out


@pytest.mark.slow
def test_a_run_whose_driver_is_killed_leaves_no_process_and_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # one per user, empty; it stays
    run = tmp_path / "run"
    process = start(run, *GRID, "--checkpoint.interval-updates", "100")
    wait_for(lambda: newest_checkpoint(run / "checkpoints") is not None, process)
    children = list(descendants(process.pid))
    process.kill()
    process.communicate()
    assert all_gone(children, 180)  # seconds, but for two of Ray's agents, which look for their raylet now and then
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    step = load_checkpoint(newest).step
    status, out, err = finish(start_raw("--resume", str(run), "--max-updates", str(step + 50)))
    assert (status, err) == (0, "")
    assert f"resuming from {newest.name}" in out
    assert "the replay goes on as it was" in out
    assert progress(run)[-1]["updates"] == step + 50
    assert list(temporary.iterdir()) == []  # the killed driver's folder went with the next run
    temporary.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("role", ["RemoteActor", "RemoteReplayShard", "RemoteLearner"])
def test_a_process_that_hangs_counts_as_dead(role: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--ray.hang-s", "5", "--checkpoint.interval-updates", "100")
    wait_for(lambda: newest_checkpoint(run / "checkpoints") is not None, process)
    pid = process_of(role, process)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: progress(run)[-1]["restarts"] == 1, process)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), process)
    back = progress(run)[-1]["env_steps"]
    wait_for(lambda: progress(run)[-1]["env_steps"] > back + 200, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert "died (no answer for 5 s); a new one takes its place" in out


@pytest.mark.slow
@pytest.mark.parametrize("all_of_it", [False, True], ids=["the driver", "the whole run"])
def test_a_run_that_is_paused_goes_on_with_all_its_processes(all_of_it: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--ray.hang-s", "5")
    wait_for(lambda: any(line["updates"] for line in progress(run)), process)
    paused = [process.pid, *(descendants(process.pid) if all_of_it else ())]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    for pid in reversed(paused):
        os.kill(pid, signal.SIGCONT)
    before = progress(run)[-1]["env_steps"]
    wait_for(lambda: progress(run)[-1]["env_steps"] > before + 1_000, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert "died" not in out
    assert progress(run)[-1]["restarts"] == 0


def test_an_actor_that_keeps_dying_ends_the_run_with_that_cause(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", "1")
    killed = set()
    while process.poll() is None:
        for pid, title in descendants(process.pid).items():
            if title.startswith("ray::RemoteActor") and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    status, out, err = finish(process)
    assert (status, err) == (1, "")
    assert len(killed) == 5
    assert "actor 0 died 5 times in a row" in out
