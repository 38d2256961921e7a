"""Scripts that a longer program runs: one interrupt ends them in order, and nothing counts as done by that."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.scripts import Scripts

# Ends with status 0 after an interrupt, as `launch.py` does once it has saved.
_SCRIPT = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
try:
    (place / "began").touch()
    time.sleep(60)
except KeyboardInterrupt:
    (place / "ended").touch()
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(_SCRIPT)
    return str(path)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _ask_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


def test_a_scripts_exit_status_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("import sys; sys.exit(int(sys.argv[1]))")
    with Scripts() as scripts:
        assert [scripts.run(str(path), [status]) for status in ("0", "2")] == [0, 2]


def test_stopped_scripts_end_in_order_and_nobodys_thread_takes_them_for_done(script: str, tmp_path: Path) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    with ThreadPoolExecutor(2) as pool, Scripts() as scripts:
        for place in places:
            place.mkdir()
        runs = [pool.submit(scripts.run, script, [str(place)]) for place in places]
        for place in places:
            _wait_for(place / "began")
        scripts.stop()
        for run in runs:
            assert isinstance(run.exception(timeout=30), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            scripts.run(script, [str(tmp_path)])
    assert all((place / "ended").exists() for place in places)
    assert not (tmp_path / "began").exists()


def test_sigterm_interrupts_and_what_runs_is_stopped(script: str, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        with Scripts() as scripts:
            pool.submit(scripts.run, script, [str(tmp_path)])
            _wait_for(tmp_path / "began")
            with pytest.raises(KeyboardInterrupt):
                _ask_to_end()
        assert (tmp_path / "ended").exists()
    assert signal.getsignal(signal.SIGTERM) is before
