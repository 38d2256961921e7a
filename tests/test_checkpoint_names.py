"""Going on from a chosen checkpoint: those that are newer are set aside, and nothing is lost."""

from pathlib import Path

import pytest

from common.errors import UserError
from driver.checkpoints import read_start, return_to_chosen
from driver.options import parse_options
from driver.run_directory import RunDirectory
from learner.checkpoint import load_checkpoint, newest_checkpoint
from learner.checkpoint_names import checkpoint_folders, return_to
from learner.manifest import MANIFEST, write_manifest
from tests.checkpoints import make_run, save_step


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Checkpoints of the steps 1 to 4, the last of which has a file more."""
    run = make_run(tmp_path / "run")
    *_, last = [save_step(run, step) for step in range(1, 5)]
    (last / "actors.pt").write_bytes(b"episodes")
    (last / MANIFEST).unlink()
    write_manifest(last, 4)
    return run


def name(step: int) -> str:
    return f"step-{step:012d}"


def steps(run: RunDirectory) -> list[int]:
    """Of the checkpoints that are found."""
    return sorted(load_checkpoint(path).step for path in checkpoint_folders(run.checkpoints))


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_newer_checkpoints_are_found_no_more_but_are_there(run: RunDirectory) -> None:
    chosen = run.checkpoints / name(2)
    path, aside = return_to(run.checkpoints, chosen)
    assert path == newest_checkpoint(run.checkpoints) == chosen
    assert {before: load_checkpoint(where).step for before, where in aside.items()} == {name(3): 3, name(4): 4}
    assert steps(run) == [1, 2]
    assert return_to(run.checkpoints, chosen) == (chosen, {})


def test_a_checkpoint_that_was_set_aside_has_its_name_back_and_earlier_ones_stay(run: RunDirectory) -> None:
    _, aside = return_to(run.checkpoints, run.checkpoints / name(1))
    path, newer = return_to(run.checkpoints, aside[name(3)])
    assert path == newest_checkpoint(run.checkpoints) == run.checkpoints / name(3)
    assert (steps(run), newer) == ([1, 3], {})


def test_it_takes_its_name_from_another_one_of_that_step_which_stays_too(run: RunDirectory) -> None:
    _, aside = return_to(run.checkpoints, run.checkpoints / name(2))
    for step in (3, 5):
        save_step(run, step)
    (run.checkpoints / name(3) / "mark").touch()
    path, newer = return_to(run.checkpoints, aside[name(3)])
    assert (steps(run), set(newer)) == ([1, 2, 3], {name(3), name(5)})
    assert not (path / "mark").exists()
    assert (newer[name(3)] / "mark").exists()
    again, _ = return_to(run.checkpoints, newer[name(3)])
    assert again == path
    assert (again / "mark").exists()


def test_what_was_set_aside_before_is_never_written_over(run: RunDirectory) -> None:
    for _ in range(3):
        return_to(run.checkpoints, run.checkpoints / name(3))
        save_step(run, 4)
    aside = [f".aside-{name(4)}{end}" for end in ("", ".2", ".3")]
    assert names(run) == [*aside, *map(name, range(1, 5))]


def test_a_link_means_the_checkpoint_that_it_leads_to(run: RunDirectory) -> None:
    link = run.checkpoints / "latest"
    link.symlink_to(name(3))
    path, aside = return_to(run.checkpoints, link)
    assert (path, set(aside), steps(run)) == (run.checkpoints / name(3), {name(4)}, [1, 2, 3])


@pytest.mark.parametrize("other", ["copy", ".temporary-step-000000000002", "step-2"])
def test_what_the_run_would_not_find_again_is_refused_and_nothing_renamed(other: str, run: RunDirectory) -> None:
    chosen = (run.checkpoints / name(2)).rename(run.checkpoints / other)
    before = names(run)
    with pytest.raises(UserError, match=f"--resume-from {chosen}: no checkpoint of a run"):
        parse_options(["--resume-from", str(chosen)])
    with pytest.raises(UserError, match=r"is no checkpoint in .*; name a folder such as"):
        return_to(run.checkpoints, chosen)
    assert names(run) == before


def test_another_runs_checkpoint_is_refused_be_it_set_aside_or_not(run: RunDirectory, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other")
    save_step(other, 2)
    aside = return_to(other.checkpoints, save_step(other, 1))[1][name(2)]
    for chosen in (aside, other.checkpoints / name(1)):
        with pytest.raises(UserError, match="is no checkpoint in"):
            return_to(run.checkpoints, chosen)
    assert (steps(run), aside.exists()) == ([1, 2, 3, 4], True)


def test_a_resumed_run_reads_a_checkpoints_files_where_they_are_once_it_has_its_name_back(run: RunDirectory) -> None:
    _, aside = return_to(run.checkpoints, run.checkpoints / name(2))
    options = parse_options(["--resume-from", str(aside[name(4)])])
    assert options.checkpoint is not None
    begin = return_to_chosen(run, options.checkpoint, read_start(run, options.checkpoint))
    assert begin.data is not None
    assert begin.data.path == run.checkpoints / name(4)
    assert begin.data.extra["actors.pt"].read_bytes() == b"episodes"


def test_it_is_said_where_newer_checkpoints_are(run: RunDirectory) -> None:
    chosen = run.checkpoints / name(3)
    begin = return_to_chosen(run, chosen, read_start(run, chosen))
    where = run.checkpoints / f".aside-{name(4)}"
    assert begin.remarks == [f"the newer checkpoint {name(4)} is set aside as {where}"]


def test_a_checkpoint_of_another_step_than_its_name_says_is_refused_set_aside_or_not(run: RunDirectory) -> None:
    wrong = (run.checkpoints / name(4)).rename(run.checkpoints / f".aside-{name(7)}")
    with pytest.raises(UserError, match="that of step 4"):
        load_checkpoint(wrong)
