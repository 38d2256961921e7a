"""A run whose Ray has no server any more says so and ends, before Ray ends it."""

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
from driver.head_watch import head_watch
from tests.launching import GRID, all_gone, descendants, finish, progress, start, wait_for


def test_a_server_that_goes_away_for_good_is_told_once_and_one_that_is_there_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver.head_watch, "_INTERVAL_S", 0.02)
    monkeypatch.setattr(driver.head_watch, "GONE_S", 0.3)
    told: list[float] = []
    gone = threading.Event()

    def tell() -> None:
        told.append(time.monotonic())
        gone.set()

    server = socket.create_server(("127.0.0.1", 0))
    with head_watch(f"127.0.0.1:{server.getsockname()[1]}", tell):
        time.sleep(0.6)
        assert told == []
        server.close()
        assert gone.wait(10)
        time.sleep(0.6)
    assert len(told) == 1


def test_nothing_is_told_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.head_watch, "_INTERVAL_S", 0.02)
    monkeypatch.setattr(driver.head_watch, "GONE_S", 0.1)
    told: list[None] = []
    with head_watch("127.0.0.1:9", lambda: told.append(None)):
        pass
    time.sleep(0.3)
    assert told == []


@pytest.mark.slow
def test_a_run_without_rays_server_ends_with_the_reason_and_how_to_go_on_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # not tmp_path: the paths of sockets must be short
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # one per user, empty; it stays
    run = tmp_path / "run"
    process = start(run, *GRID, "--checkpoint.interval-s", "2")
    wait_for(lambda: any((run / "checkpoints").glob("step-*")), process)
    children = descendants(process.pid)
    server = next(pid for pid, title in children.items() if "gcs_server" in title)
    os.kill(server, signal.SIGKILL)
    status, out, err = finish(process)
    assert (status, err) == (1, "")
    assert "launch.py: error: Ray's server is gone" in out
    again = re.search(r"go on with: python launch.py --resume (\S+)$", out, re.MULTILINE)
    assert again
    assert Path(again[1]) == run
    assert progress(run)
    assert all_gone(list(children), 5)
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
