"""A run whose Ray has no server any more says so and ends, before Ray ends it."""

import itertools
import os
import re
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

import driver.head_watch
from driver.head_watch import Part, head_watch
from tests.launching import GRID, all_gone, descendants, finish, progress, start, wait_for


@pytest.mark.parametrize("part", ["server", "daemon"])
def test_a_part_that_goes_away_for_good_is_told_once_and_one_that_is_there_never(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.head_watch, "LONGEST_INTERVAL_S", 0.02)
    told: list[str] = []
    gone = threading.Event()

    def tell(name: str) -> None:
        told.append(name)
        gone.set()

    servers = {name: socket.create_server(("127.0.0.1", 0)) for name in ("server", "daemon")}
    with head_watch([Part(name, f"127.0.0.1:{each.getsockname()[1]}", 0.3) for name, each in servers.items()], tell):
        time.sleep(0.6)
        assert told == []
        servers[part].close()
        assert gone.wait(10)
        time.sleep(0.6)
    assert told == [part]
    for each in servers.values():
        each.close()


@pytest.mark.parametrize(
    "answers",
    [[False, True], [None, False, None], [True]],
    ids=["refused once at a time", "away in between", "there"],
)
def test_what_may_pass_is_no_end(answers: list[bool | None], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.cycle(answers)
    monkeypatch.setattr(driver.head_watch, "_listens", lambda _: next(asked))
    told: list[str] = []
    with head_watch([Part("daemon", "127.0.0.1:9", 0.05)], told.append):
        time.sleep(0.6)
    assert told == []


def test_a_part_that_is_out_of_reach_for_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.head_watch, "_listens", lambda _: None)
    monkeypatch.setattr(driver.head_watch, "SILENT_S", 0.2)
    gone = threading.Event()
    with head_watch([Part("server", "127.0.0.1:9", 0.02)], lambda _: gone.set()):
        assert gone.wait(10)


def test_nothing_is_told_after_the_end() -> None:
    told: list[str] = []
    with head_watch([Part("server", "127.0.0.1:9", 0.1)], told.append):
        pass
    time.sleep(0.3)
    assert told == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "name"),
    [("gcs_server", "Ray's server"), ("raylet/raylet", "Ray's daemon on this machine")],
    ids=["server", "daemon"],
)
def test_a_run_without_a_part_of_ray_ends_with_the_reason_and_how_to_go_on_and_leaves_nothing(
    program: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # one per user, empty; it stays
    run = tmp_path / "run"
    process = start(run, *GRID, "--checkpoint.interval-s", "2")
    wait_for(lambda: any((run / "checkpoints").glob("step-*")), process)
    children = descendants(process.pid)
    os.kill(next(pid for pid, title in children.items() if program in title), signal.SIGKILL)
    status, out, err = finish(process)
    assert (status, err) == (1, "")
    assert f"launch.py: error: {name} is gone" in out
    again = re.search(r"go on with: python launch.py --resume (\S+)$", out, re.MULTILINE)
    assert again
    assert Path(again[1]) == run
    assert progress(run)
    assert all_gone(list(children), 5)
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
