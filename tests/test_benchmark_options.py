"""A mistake in a benchmark's options is told before anything is measured."""

import argparse
import importlib
from pathlib import Path

import pytest

from benchmarks.options import result_file

MISTAKES = [
    ("emulator", "--turns 0"),
    ("emulator", "--seconds 0"),
    ("actor", "--turns 0"),
    ("actor", "--seconds 0"),
    ("learner", "--seconds 0"),
    ("learner", "--turns 0"),
    ("learner", "--batch-sizes 0"),
    ("running_learner", "--turns 0"),
    ("running_learner", "--seconds -1"),
    ("running_learner", "--batch-sizes 0"),
    ("core_agreement", "--players 0"),
    ("scaling", "--step-ms 0"),
    ("scaling", "--seconds nan"),
    ("scaling_calls", "--seconds 0"),
    ("peers", "--rounds 0"),
]


@pytest.mark.parametrize(("module", "arguments"), MISTAKES)
def test_a_number_out_of_range_is_one_line(module: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{module}").main(arguments.split())
    assert ended.value.code == 2
    assert "is not between" in capsys.readouterr().err.splitlines()[-1]


def test_the_folder_of_the_figures_is_made_first(tmp_path: Path) -> None:
    path = result_file(str(tmp_path / "new" / "figures.json"))
    assert path.parent.is_dir()
    assert not path.exists()


def test_figures_that_could_not_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file/figures.json", "."):
        with pytest.raises(argparse.ArgumentTypeError, match="cannot be written"):
            result_file(str(tmp_path / name))
