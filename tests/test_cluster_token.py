"""A real cluster with token authentication: who has no token is turned away."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launching import GRID, descendants, finish, start

TOKEN = "a" * 64
START_S = 90.0


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a head that `ray start` made with a token."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    for name, value in {"MODE": "token", "TOKEN": TOKEN}.items():
        monkeypatch.setenv(f"RAY_AUTH_{name}", value)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"start --head --block --port={port} --num-cpus=2 --include-dashboard=false --temp-dir={folder}"
    ray = Path(sys.executable).with_name("ray")
    options = [*command.split(), "--object-store-memory=100000000", "--disable-usage-stats"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ray, *options], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in (folder / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        for pid in (*descendants(process.pid), process.pid):  # at once: an orderly end takes half a minute
            os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_client_without_the_token_is_turned_away_and_one_with_it_trains(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*GRID, "--actors.count", "1", "--ray.address", head, "--max-updates", "20"]
    status, _, err = finish(start(tmp_path / "run", *arguments))
    assert (status, err) == (0, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    for mode, token in (("token", "b" * 64), ("disabled", "b" * 64), ("token", "")):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        status, _, err = finish(start(tmp_path / "refused", *arguments))
        assert status == 2
        assert err.count("\n") == 1
        assert err.startswith(f"launch.py: error: the Ray cluster at {head} ")
        assert not (tmp_path / "refused").exists()
