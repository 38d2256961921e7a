"""Disks that are full or read-only, for real."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learner.checkpoint import load_checkpoint, newest_checkpoint
from tests.launching import GRID, finish, progress, wait_for
from tests.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NO_ROOM = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, 24) as mounted:
        yield mounted


def updates_said(terminal: Path) -> list[int]:
    """The learner's updates by the lines of progress on the terminal."""
    return [int(found.replace(",", "")) for found in re.findall(r"updates ([\d,]+) \(", terminal.read_text())]


def test_a_full_disk_leaves_old_checkpoints_whole_and_the_run_training_and_is_said_again(
    disk: SmallDisk, tmp_path: Path
) -> None:
    run, terminal = disk.path / "run", tmp_path / "terminal"
    with terminal.open("w") as out:
        options = [*GRID, "--checkpoint.interval-s", "4", "--run-dir", str(disk.folder / "run")]
        process = disk.start("launch.py", *options, out=out)

    def said(text: str) -> int:
        return terminal.read_text().count(text)

    wait_for(lambda: said("checkpoint step-") >= 2, process, 180)
    filler = disk.fill()
    wait_for(lambda: said(f"could not be written: {NO_ROOM}") >= 1, process)
    kept, known = sorted(path.name for path in (run / "checkpoints").glob("step-*")), len(updates_said(terminal))
    wait_for(lambda: said(f"could not be written: {NO_ROOM}") >= 4, process)
    wait_for(lambda: len(updates_said(terminal)) >= known + 3, process)
    assert updates_said(terminal)[-1] > updates_said(terminal)[known]
    for name in ("progress.jsonl", "mario.csv", "events.out.tfevents"):  # one may have some room left in its last block
        warning = rf"warning: \S*{re.escape(name)}\S* cannot be written \({NO_ROOM}\)"
        wait_for(lambda warning=warning: bool(re.search(warning, terminal.read_text())), process)  # type: ignore[misc]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == kept
    for name in kept:
        load_checkpoint(run / "checkpoints" / name)

    before, checkpoints = len(progress(run)), said("checkpoint step-")
    filler.unlink()
    wait_for(lambda: said("progress.jsonl can be written again") == 1, process)
    wait_for(lambda: len(progress(run)) > before + 1, process)
    wait_for(lambda: said("checkpoint step-") > checkpoints, process)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process, 180)
    assert (status, err) == (0, "")
    assert "Traceback" not in terminal.read_text()

    events = EventAccumulator(str(run))
    events.Reload()
    assert events.Scalars("learner/loss")[-1].step == progress(run)[-1]["env_steps"]
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert newest.name not in kept
    more = str(load_checkpoint(newest).step + 50)
    status, out_text, err = finish(
        disk.start("launch.py", "--resume", str(disk.folder / "run"), "--max-updates", more), 180
    )
    assert (status, err) == (0, "")
    assert f"resuming from {newest.name}" in out_text


def refused(disk: SmallDisk, program: str, *arguments: str) -> str:
    """What a program says that has one line to say."""
    status, _, err = finish(disk.start(program, *arguments), 180)
    assert status == 2, err
    assert err.startswith(f"{program}: error: ")
    assert err.count("\n") == 1
    return err


def test_a_run_that_cannot_begin_for_want_of_room_says_so_and_leaves_nothing(disk: SmallDisk) -> None:
    disk.fill()
    err = refused(disk, "launch.py", *GRID, "--run-dir", str(disk.folder / "run"))
    assert NO_ROOM in err
    assert [path.name for path in disk.path.iterdir()] == ["filler"]


def test_a_full_disk_at_the_end_of_a_run_is_no_success(disk: SmallDisk) -> None:
    process = disk.start("launch.py", *GRID, "--run-dir", str(disk.folder / "run"))
    run = disk.path / "run"
    wait_for(lambda: any(line["updates"] for line in progress(run)), process)
    disk.fill()
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process, 180)
    assert (status, err) == (1, "")
    assert NO_ROOM in out
    assert all(json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines())


def test_a_read_only_disk_is_refused_by_both_programs(disk: SmallDisk) -> None:
    run = disk.folder / "run"
    status, _, err = finish(disk.start("launch.py", *GRID, "--run-dir", str(run), "--max-updates", "20"), 180)
    assert (status, err) == (0, "")
    disk.run("mount", "-o", "remount,ro", str(disk.folder))
    before = sorted(disk.path.rglob("*"))
    assert "is not writable" in refused(disk, "launch.py", *GRID, "--run-dir", str(disk.folder / "new"))
    assert "cannot be written" in refused(disk, "launch.py", "--resume", str(run), "--max-updates", "40")
    for option, file in (("--json", "a.json"), ("--video", "a.mp4")):
        assert "cannot be written" in refused(disk, "evaluate.py", str(run), option, str(disk.folder / file))
    assert sorted(disk.path.rglob("*")) == before


@pytest.mark.parametrize(("option", "file"), [("--json", "a.json"), ("--video", "a.mp4"), ("--video", "a.gif")])
def test_an_evaluation_whose_result_has_no_room_says_so(option: str, file: str, disk: SmallDisk) -> None:
    run = disk.folder / "run"
    status, _, err = finish(disk.start("launch.py", *GRID, "--run-dir", str(run), "--max-updates", "20"), 180)
    assert (status, err) == (0, "")
    disk.fill()
    err = refused(disk, "evaluate.py", str(run), "--episodes", "300", option, str(disk.folder / file))
    assert NO_ROOM in err
    assert not (disk.path / file).exists()


def test_a_terminal_on_a_full_disk_loses_lines_and_the_run_goes_on(disk: SmallDisk, tmp_path: Path) -> None:
    run, terminal = tmp_path / "run", disk.path / "terminal"
    with terminal.open("w") as out:
        process = disk.start("launch.py", *GRID, "--checkpoint.interval-s", "2", "--run-dir", str(run), out=out)
    wait_for(lambda: any((run / "checkpoints").glob("step-*")), process)
    disk.fill()
    before, seen = progress(run)[-1]["updates"], terminal.stat().st_size
    wait_for(lambda: (run / "mario.log").read_text().count("checkpoint step-") >= 6, process)
    assert progress(run)[-1]["updates"] > before
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (0, "")
    assert terminal.stat().st_size <= seen + 4096
