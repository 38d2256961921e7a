"""A run keeps nothing of the user's environment, and nobody on the network can watch it."""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from learner.checkpoint import newest_checkpoint
from tests.launching import GRID, ROOT, descendants, finish, progress, start, wait_for
from tests.listening import Door, doors_of
from tests.making import environment_without_make

# Where secrets usually are; each gets a value of its own.
SECRETS = ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "SOME_PASSWORD")
START_S = 60.0


class Seen(NamedTuple):
    """A run that has ended."""

    folder: Path
    out: str
    secrets: dict[str, str]
    titles: list[str]  # of Ray's processes while it ran
    pages: dict[Door, tuple[int, bytes] | None]  # what they showed a browser without a token


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("privacy") / "run"
    values = {name: f"canary-{secrets.token_hex(16)}" for name in SECRETS}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        process = start(folder, *GRID, "--checkpoint.interval-updates", "100")
        wait_for(lambda: newest_checkpoint(folder / "checkpoints") is not None and len(progress(folder)) > 1, process)
    children = descendants(process.pid)
    raylet = next(pid for pid, title in children.items() if "raylet/raylet" in title)
    values["the private Ray's token"] = variable("RAY_AUTH_TOKEN", raylet)
    pages = {door: door.page() for door in doors_of([process.pid, *children])}
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    return Seen(folder, out, values, list(children.values()), pages)


def variable(name: str, pid: int) -> str:
    """A variable of another process's environment."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.partition("=")[::2] for entry in entries)[name]


def test_no_variable_of_the_environment_is_in_a_runs_folder_or_its_checkpoints(seen: Seen) -> None:
    assert len(seen.secrets["the private Ray's token"]) == 64
    files = [path for path in seen.folder.rglob("*") if path.is_file()]
    for expected in ("run.json", "config.yaml", "mario.log", "events.*", "replay-0.bin", "policy.pt", "state.json"):
        assert any(path.match(expected) for path in files), expected
    needles = {**seen.secrets, "PATH": os.environ["PATH"]}
    found = [
        f"{name} in {path.relative_to(seen.folder)}"
        for path in files
        for name, value in needles.items()
        if value.encode() in path.read_bytes() or json.dumps(value)[1:-1].encode() in path.read_bytes()
    ]
    assert found == []
    assert not any(value in seen.out for value in seen.secrets.values())


def test_the_private_ray_has_no_dashboard_and_shows_nothing_without_its_token(seen: Seen) -> None:
    boards = [title for title in seen.titles if "dashboard/dashboard.py" in title]
    assert all("--disable-frontend" in title for title in boards)
    assert seen.pages
    assert {door: page for door, page in seen.pages.items() if page is not None and page[0] != 401} == {}


def test_tensorboard_listens_on_loopback_alone(seen: Seen) -> None:
    advised = re.search(r"watch it with: (.*)", seen.out)
    assert advised is not None
    make = [shutil.which("make") or "make", "--no-print-directory", "-n", "tensorboard", f"RUN={seen.folder}"]
    recipe = subprocess.run(
        make, cwd=ROOT, env=environment_without_make(), capture_output=True, text=True, check=True
    ).stdout
    options = advised[1].removeprefix("tensorboard ")
    assert f"-m tensorboard.main {options} \n" in recipe  # the same command
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *shlex.split(options), "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_S
        shown: set[Door] = set()  # it has other servers, which speak no HTTP
        while not shown and time.monotonic() < deadline:
            time.sleep(0.2)
            doors = doors_of([board.pid, *descendants(board.pid)])
            shown = {door for door in doors if (page := door.page()) is not None and page[0] == 200}
        assert shown
        assert all(door.is_loopback for door in doors)
    finally:
        board.terminate()
        board.wait()
