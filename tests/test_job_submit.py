"""`ray job submit -- python launch.py …`, with a real head and its dashboard; needs the group `cluster`."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launching import GRID, ROOT, descendants, progress
from tests.stopping import kill_all

pytestmark = pytest.mark.cluster
RAY = str(Path(sys.executable).with_name("ray"))
START_S = 180.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A head with a token and a dashboard; `ray job` finds it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    dashboard = free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_TMPDIR": str(folder),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ports = ["--port", str(free_port()), "--dashboard-port", str(dashboard), "--dashboard-host", "127.0.0.1"]
    more = ["--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats", f"--temp-dir={folder}"]
    with (folder / "log").open("w") as log:
        command = [RAY, "start", "--head", "--block", "--include-dashboard=true", *ports, *more]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + START_S
        while job("list").returncode and time.monotonic() < deadline:
            time.sleep(1)
        yield
    finally:
        kill_all([*descendants(process.pid), process.pid])
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def job(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`ray job …`; its output is in stdout."""
    return subprocess.run(
        [RAY, "job", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )


def launch(run: Path, *more: str) -> list[str]:
    """A job's command, as in docs/architecture.md."""
    options = [option for option in GRID if option not in ("--ray.address", "local")]
    program = ["python", "launch.py", "--run-dir", str(run), *options, "--actors.count", "1", *more]
    return ["bash", "-c", f"cd {ROOT} && exec {' '.join(program)}"]


@pytest.mark.usefixtures("head")
def test_a_job_joins_its_cluster_ends_with_the_programs_status_and_saves_when_it_is_stopped(tmp_path: Path) -> None:
    done = job("submit", "--", *launch(tmp_path / "run", "--max-updates", "20"))
    assert done.returncode == 0, done.stdout
    assert "1 node, 2 CPUs: 1 actor" in done.stdout
    assert progress(tmp_path / "run")[-1]["updates"] == 20

    refused = job("submit", "--", *launch(tmp_path / "run"))
    assert refused.returncode != 0
    assert "launch.py: error: " in refused.stdout
    assert "failed with exit code 2" in refused.stdout

    stopped = tmp_path / "stopped"
    patience = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}'
    job("submit", "--no-wait", "--submission-id", "one", "--runtime-env-json", patience, "--", *launch(stopped))
    deadline = time.monotonic() + START_S
    while not any(line["updates"] for line in progress(stopped)) and time.monotonic() < deadline:
        time.sleep(1)
    assert job("stop", "one").returncode == 0
    assert "was stopped" in job("status", "one").stdout
    assert "SIGTERM: stopping" in (stopped / "mario.log").read_text()
    assert list((stopped / "checkpoints").glob("step-*/manifest.json"))
