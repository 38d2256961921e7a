"""`launch.py` for real: the emulator, Ray processes, TensorBoard files, checkpoints, signals."""

import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learner.checkpoint import load_checkpoint, newest_checkpoint
from tests.cores import needs_fceumm
from tests.launching import (
    GRID,
    SMALL,
    all_gone,
    descendants,
    finish,
    progress,
    start,
    start_program,
    start_raw,
    wait_for,
)

PROGRESS_KEYS = {
    *("time_s", "env_steps", "episodes", "updates", "samples", "replay_size", "actors_alive", "samples_per_insert"),
    *("env_steps_per_s", "samples_per_s", "wait_fraction", "policy_lag", "restarts"),
}
SCALARS = [
    *(f"actor/{name}" for name in ["env_steps_per_s", "episode_return", "episode_length", "x_pos", "clear_rate"]),
    *(f"replay/{name}" for name in ["size", "bytes", "samples_per_insert", "stale_priority_updates"]),
    *(f"learner/{name}" for name in ["loss", "td_error", "q_mean", "grad_norm", "updates_per_s", "samples_per_s"]),
    *("learner/wait_fraction", "learner/policy_lag", "learner/learning_rate"),
    *(f"eval/{name}/1-1" for name in ("clear_rate", "return", "x_pos")),
]


def test_a_run_on_the_real_emulator_leaves_metrics_checkpoint_and_best_policy_and_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--checkpoint.interval-updates", "20", "--checkpoint.no-replay"]
    status, out, err = finish(start(run, *SMALL, *options, "--total-env-steps", "800"))
    assert (status, err) == (0, "")
    assert f"python evaluate.py {run}" in out

    lines = progress(run)
    assert set(lines[-1]) >= PROGRESS_KEYS
    assert lines[-1]["env_steps"] >= 800
    assert lines[-1]["updates"] > 20
    assert lines[-1]["samples"] == lines[-1]["updates"] * 16
    assert lines[-1]["actors_alive"] == 2
    assert lines[-1]["samples_per_insert"] == pytest.approx(2.0, rel=0.3)

    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()
    assert set(SCALARS) <= set(tags["scalars"])
    rates = [event.value for event in events.Scalars("learner/learning_rate")]
    assert 2.5e-4 > rates[-1] > 9e-6  # it falls over the run
    assert "config/text_summary" in tags["tensors"]
    assert "eval/episode" in tags["images"]
    assert events.Images("eval/episode")[0].encoded_image_string.startswith(b"GIF89a")

    path = newest_checkpoint(run / "checkpoints")
    assert path is not None
    checkpoint = load_checkpoint(path)
    assert checkpoint.state["counters"]["env_steps"] == lines[-1]["env_steps"]
    assert checkpoint.step == lines[-1]["updates"]
    assert (run / "best.pt").exists()

    status, out, err = finish(start_raw("--resume", str(run), "--total-env-steps", "1200"))
    assert (status, err) == (0, "")
    assert "the replay fills anew: the checkpoint holds no replay" in out
    resumed = progress(run)
    assert [line["env_steps"] for line in resumed] == sorted(line["env_steps"] for line in resumed)
    assert resumed[-1]["env_steps"] >= 1200
    assert resumed[-1]["updates"] > lines[-1]["updates"]

    status, out, err = finish(start_raw("--resume", str(run), "--total-env-steps", "1200"))
    assert status == 2
    assert "complete" in err


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_a_line_and_an_earlier_one_can_be_chosen(tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, _, err = finish(start(run, *GRID, "--checkpoint.interval-updates", "100", "--max-updates", "900"))
    assert (status, err) == (0, "")
    *_, before_last, last = sorted((run / "checkpoints").glob("step-*"))
    (last / "optimizer.pt").write_bytes(b"")
    status, out, err = finish(start_raw("--resume", str(run), "--max-updates", "950"))
    assert (status, err) == (0, "")
    assert f"warning: passing over a damaged checkpoint: checkpoint {last} is damaged: optimizer.pt has 0 bytes" in out
    assert f"resuming from {before_last.name}" in out
    status, out, err = finish(start_raw("--resume-from", str(before_last), "--max-updates", "920"))
    assert (status, err) == (0, "")
    assert f"resuming from {before_last.name}" in out
    assert f"the newer checkpoint {last.name} is set aside" in out
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert 920 <= load_checkpoint(newest).step < 950
    aside = max((run / "checkpoints").glob(".aside-*"))
    status, out, err = finish(start_raw("--resume-from", str(aside), "--max-updates", "970"))
    assert (status, err) == (0, "")
    assert f"resuming from {aside.name.removeprefix('.aside-')}" in out
    assert "the replay goes on as it was" in out
    assert newest.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_resume_command(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID)
    wait_for(lambda: any(line["updates"] for line in progress(run)), process)
    children = list(descendants(process.pid))
    process.send_signal(number)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert f"python launch.py --resume {run}" in out
    path = newest_checkpoint(run / "checkpoints")
    assert path is not None
    assert load_checkpoint(path).state["counters"]["env_steps"] == progress(run)[-1]["env_steps"]
    assert all_gone(children)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["nes-py", pytest.param("fceumm", marks=needs_fceumm)])
def test_the_default_preset_trains_on_both_cores(core: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    enough = ["--replay.min-size", "1000", "--max-updates", "300"]  # a slow core needs a minute for the preset's 5,000
    status, out, err = finish(start(run, "--env.core", core, *enough, "--ray.address", "local"), timeout_s=400)
    assert (status, err) == (0, "")
    assert f"on the emulator core {core}" in out
    assert progress(run)[-1]["updates"] >= 300
    assert (run / "best.pt").exists()


def test_a_second_signal_ends_the_run_at_once_and_leaves_nothing_running(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *GRID)
    wait_for(lambda: any(line["updates"] for line in progress(tmp_path / "run")), process)
    children = list(descendants(process.pid))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process, timeout_s=30)
    assert (status, err) == (130, "") or (status, "go on with it" in out) == (0, True)  # it may have been quick
    assert all_gone(children)


# Writes a replay's file, and does not come to its end.
SLOW_DISK = """
import sys, time
import launch
from learner import checkpoint
write = checkpoint.write_synced
def write_slowly(path, fill):
    write(path, fill)
    if path.name == "replay-0.bin":
        time.sleep(600)
checkpoint.write_synced = write_slowly
sys.exit(launch.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_second_signal_does_not_wait_for_a_checkpoint_that_is_being_written(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # one per user, empty; it stays
    run = tmp_path / "run"
    process = start_program("-c", SLOW_DISK, "--run-dir", str(run), *GRID, "--checkpoint.interval-updates", "20")
    wait_for(lambda: any((run / "checkpoints").glob(".*/replay-0.bin")), process)
    children = list(descendants(process.pid))
    process.send_signal(number)
    wait_for(lambda: f"{number.name}: stopping" in (run / "mario.log").read_text(), process)
    process.send_signal(number)
    status, _, err = finish(process, timeout_s=30)
    assert (status, err) == (128 + number, "")
    assert all_gone(children, 10)
    assert progress(run)
    assert newest_checkpoint(run / "checkpoints") is None  # half of one counts for nothing
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


def test_an_interrupt_before_the_run_begins_is_one_line(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *GRID)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (130, "launch.py: interrupted before the run began\n")
    assert not (tmp_path / "run").exists()


def test_a_reader_that_goes_away_does_not_end_the_training(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *GRID, "--max-updates", "200")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert progress(tmp_path / "run")[-1]["updates"] == 200


def test_a_run_joins_the_cluster_that_is_named_and_leaves_it_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))  # where the head leaves its address; the folder must be there
    (folder / "ray").mkdir()
    head = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 100 * 2**20, "temp_dir": str(folder)}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        arguments = [argument for argument in GRID if argument not in ("--ray.address", "local")]
        for name in ("a", "b"):
            joined = start(tmp_path / name, *arguments, "--ray.address", cluster.address, "--max-updates", "30")
            status, out, err = finish(joined)
            assert (status, err) == (0, "")
            assert f"Ray cluster at {cluster.address}: 1 node, 3 CPUs" in out
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_two_runs_side_by_side_are_independent(tmp_path: Path) -> None:
    processes = [start(tmp_path / name, *GRID, "--max-updates", "60") for name in ("a", "b")]
    for process, name in zip(processes, ("a", "b"), strict=True):
        status, _, err = finish(process)
        assert (status, err) == (0, "")
        assert progress(tmp_path / name)[-1]["updates"] == 60


def test_the_limit_of_episodes_ends_the_run(tmp_path: Path) -> None:
    status, _, err = finish(start(tmp_path / "run", *GRID, "--max-episodes", "30"))
    assert (status, err) == (0, "")
    assert progress(tmp_path / "run")[-1]["episodes"] >= 30


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--learner.device", "cuda"], "no GPU"),
        (["--replay.capacity", "100000000000"], "GiB"),
        (["--ray.address", "127.0.0.1:9"], "no Ray answers"),
        (["--env.sages", "1-1"], "--env.stages"),
    ],
)
def test_a_mistake_gets_one_line_status_2_and_no_run_directory(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # whatever this machine has
    run = tmp_path / "run"
    status, _, err = finish(start(run, *arguments))
    assert status == 2
    assert err.startswith("launch.py: error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not run.exists()


def test_a_policy_that_has_not_learned_anything_is_evaluated_in_the_end_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    waiting = ["--replay.min-size", "900000", "--replay.capacity", "1000000"]  # longer than the run
    status, out, err = finish(start(run, *GRID, *waiting, "--max-minutes", "0.25"))
    assert (status, err) == (0, "")
    assert progress(run)[-1]["updates"] == 0
    assert out.count("evaluation after") <= 1
