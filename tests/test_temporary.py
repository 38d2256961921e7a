"""Folders for temporary files do not pile up, whatever ends the programs that made them."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from common.errors import UserError
from driver.temporary import temporary_folder
from learner.checkpoint import load_checkpoint
from tests.checkpoints import make_run, save_step

HOLDING = """
from driver.temporary import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def holder() -> tuple["subprocess.Popen[str]", Path]:
    """Another program with a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with temporary_folder() as folder:
        assert Path(folder).parent == tmp_path
        (Path(folder) / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_programs_folder_goes_with_the_next_one_and_a_running_ones_stays(tmp_path: Path) -> None:
    (killed, dead), (running, alive) = holder(), holder()
    (tmp_path / "apex-mario-of-somebody-else").mkdir()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert dead.exists()
    with temporary_folder():
        assert not dead.exists()
        assert alive.exists()
    running.communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["apex-mario-of-somebody-else"]


def test_a_run_directory_of_such_a_name_stays_between_its_sessions_and_in_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "apex-mario-1-1")
    checkpoint = save_step(run, 5)
    with run.lock():
        pass
    with temporary_folder(), run.lock():  # as --resume does, or any other run's start
        assert load_checkpoint(checkpoint).step == 5
    assert run.config_path.exists()


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_leftover_with_a_run_in_it_stays(name: str, tmp_path: Path) -> None:
    killed, folder = holder()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (folder / name).touch()
    with temporary_folder():
        assert (folder / name).exists()


def test_where_no_folder_can_be_made_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")
    with pytest.raises(UserError, match=r"no folder for temporary files can be made.*TMPDIR"), temporary_folder():
        pass
