"""Scripts that a longer program runs: one interrupt ends them in order, and nothing counts as done by that."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.scripts import Scripts
from tests.interrupting import wait_for_file, write_script


def test_a_scripts_exit_status_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("import sys; sys.exit(int(sys.argv[1]))")
    with Scripts() as scripts:
        assert [scripts.run(str(path), [status]) for status in ("0", "2")] == [0, 2]


def test_stopped_scripts_end_in_order_and_nobodys_thread_takes_them_for_done(tmp_path: Path) -> None:
    script = write_script(tmp_path / "script.py")
    places = [tmp_path / "one", tmp_path / "two"]
    with ThreadPoolExecutor(2) as pool, Scripts() as scripts:
        for place in places:
            place.mkdir()
        runs = [pool.submit(scripts.run, script, [str(place)]) for place in places]
        for place in places:
            wait_for_file(place / "began")
        scripts.stop()
        for run in runs:
            assert isinstance(run.exception(timeout=30), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            scripts.run(script, [str(tmp_path)])
    assert all((place / "ended").exists() for place in places)
    assert not (tmp_path / "began").exists()


def test_what_does_not_end_is_asked_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scripts._STOP_TIMEOUTS_S", (0.5, 30.0))
    script = write_script(tmp_path / "script.py", interrupts=2)
    with ThreadPoolExecutor(1) as pool, Scripts() as scripts:
        pool.submit(scripts.run, script, [str(tmp_path)])
        wait_for_file(tmp_path / "began")
    assert (tmp_path / "ended").exists()


def test_what_ends_on_no_interrupt_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scripts._STOP_TIMEOUTS_S", (0.2, 0.2))
    script = write_script(tmp_path / "script.py", interrupts=99)
    with ThreadPoolExecutor(1) as pool:
        with Scripts() as scripts:
            run = pool.submit(scripts.run, script, [str(tmp_path)])
            wait_for_file(tmp_path / "began")
        assert isinstance(run.exception(timeout=10), KeyboardInterrupt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_interrupts_and_what_runs_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    script = write_script(tmp_path / "script.py")
    before = signal.signal(number, signal.SIG_DFL)  # whatever these tests were started with, `nohup` too
    try:
        with ThreadPoolExecutor(1) as pool:
            with Scripts() as scripts:
                pool.submit(scripts.run, script, [str(tmp_path)])
                wait_for_file(tmp_path / "began")
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(number)
            assert (tmp_path / "ended").exists()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_program_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Scripts():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_background_jobs_scripts_can_be_interrupted(tmp_path: Path) -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    script = tmp_path / "script.py"
    script.write_text("import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Scripts() as scripts:
            assert scripts.run(str(script), []) == 0
    finally:
        signal.signal(signal.SIGINT, before)
