"""Programs in surroundings whose terminal cannot show what they say, or that have none."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.environment import environment_spec
from common.networks import build_network
from common.policy import save_policy
from common.streams import prepare_streams

ROOT = Path(__file__).resolve().parent.parent


def run(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's command line, in which "$@" is `python -W error ARGUMENTS`; what it says is read as Latin-1."""
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-W", "error", *arguments],
        capture_output=True,
        encoding="latin-1",
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )


def test_characters_that_an_encoding_lacks_are_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    prepare_streams()
    print("starting Ray … at 5 °C, \udcff")
    sys.stdout.flush()
    assert written.getvalue().decode("latin-1") == "starting Ray ? at 5 °C, ?\n"


def test_other_streams_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()
    assert sys.stdout is stream


@pytest.mark.parametrize(("closed", "descriptor"), [("stdout", 1), ("stderr", 2)])
def test_a_closed_stream_takes_everything_and_keeps_its_descriptor(closed: str, descriptor: int) -> None:
    code = f"""
import sys
from common.streams import prepare_streams
assert sys.{closed} is None
prepare_streams()
sys.{closed}.write("…")
sys.{closed}.flush()
assert sys.{closed}.fileno() == {descriptor}
"""
    done = run(f'"$@" {descriptor}>&-', "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_with_all_streams_closed_no_file_gets_what_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = f"""
import os
from common.streams import prepare_streams
prepare_streams()
with open({str(path)!r}, "w") as file:
    os.write(1, b"out")
    os.write(2, b"err")
    file.write(str(file.fileno() > 2))
"""
    assert run('"$@" <&- >&- 2>&-', "-c", code).returncode == 0
    assert path.read_text() == "True"


def test_help_needs_no_open_stdout() -> None:
    done = run('"$@" >&-', "launch.py", "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_needs_no_open_stderr() -> None:
    done = run('"$@" 2>&-', "launch.py", "--max-updates", "0")
    assert (done.returncode, done.stdout) == (2, "")


def test_an_evaluation_is_said_in_the_characters_that_there_are(tmp_path: Path) -> None:
    spec = environment_spec(name="gridworld")
    policy = tmp_path / "grün….pt"
    save_policy(policy, build_network(spec, False, 0), spec, {"env": {"name": "gridworld"}})
    done = run('"$@"', "evaluate.py", str(policy), "--episodes", "1", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"policy: {tmp_path}/grün?.pt (as given)")


def test_the_tutorials_arrows_are_question_marks_where_they_have_to_be(tmp_path: Path) -> None:
    options = ["--episodes", "20", "--out", str(tmp_path / "plot.png")]
    done = run('"$@"', "-m", "examples.gridworld", *options, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout
