"""A run that is killed with its folder goes on elsewhere from what was mirrored."""

import shutil
import signal
from pathlib import Path

import pytest

from driver.copies import find_copies
from driver.store import open_store
from tests.launching import GRID, finish, progress, start, start_raw, wait_for

pytestmark = pytest.mark.slow


def test_a_run_whose_machine_is_gone_goes_on_from_the_newest_whole_copy(tmp_path: Path) -> None:
    store = open_store("--checkpoint.uri", f"file://{tmp_path}/mirror")
    first, second = tmp_path / "first", tmp_path / "second"
    process = start(first, *GRID, "--checkpoint.interval-s", "1", "--checkpoint.uri", store.uri)
    wait_for(lambda: sum(copy.complete for copy in find_copies(store)) == 3, process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    shutil.rmtree(first)
    newest, before = [copy for copy in find_copies(store) if copy.complete][:2]
    store.remove(f"{newest.name}/manifest.json")
    limit = str(before.step + 50)
    status, out, err = finish(
        start_raw("--resume", store.uri, "--run-dir", str(second), "--max-updates", limit, "--ray.address", "local")
    )
    assert (status, err) == (0, "")
    assert f"warning: passing over {store.uri}/{newest.name}: it is not complete" in out
    assert f"{store.uri}/{before.name} was fetched into {second}" in out
    assert f"resuming from step-{before.step:012d}: " in out
    lines = progress(second)
    assert lines[-1]["updates"] == before.step + 50
    assert [line["env_steps"] for line in lines] == sorted(line["env_steps"] for line in lines)
    assert (second / "mario.csv").read_text().startswith("Episode,Length,Reward")
    assert find_copies(store)[0].step == before.step + 50
    assert f"or elsewhere:     python launch.py --resume {store.uri}" in out


def test_a_mirror_that_goes_away_is_said_each_time_and_the_run_keeps_its_checkpoints(tmp_path: Path) -> None:
    folder, run = tmp_path / "mirror", tmp_path / "run"
    process = start(run, *GRID, "--checkpoint.interval-s", "1", "--checkpoint.uri", f"file://{folder}")
    wait_for(lambda: folder.exists() and any(folder.glob("step-*/manifest.json")), process)
    shutil.rmtree(folder)
    folder.write_text("a disk that was unmounted")
    warning = "could not be mirrored to file://"
    wait_for(lambda: (run / "mario.log").read_text().count(warning) >= 2, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert out.count(warning) >= 2
    assert len(list((run / "checkpoints").glob("step-*/manifest.json"))) == 3
