"""The learner's benchmark as a program; what it measures here means nothing."""

import json
from pathlib import Path

import pytest

from benchmarks import learner


def test_it_prints_and_writes_errors_and_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "learner.json"
    options = ["--batch-sizes", "2", "3", "--turns", "1", "--seconds", "0.05", "--device", "cpu", "--out", str(out)]
    assert learner.main(options) == 0
    record = json.loads(out.read_text())
    assert [error["precision"] for error in record["errors"]] == ["float32", "bfloat16"]
    assert record["errors"][0]["gradient"] < 1e-5 < record["errors"][1]["gradient"] < 0.2
    assert [row["name"].split(",")[1] for row in record["rows"]] == [" batch 2", " batch 2", " batch 3", " batch 3"]
    for row in record["rows"]:
        assert row["figure"] > 0
        assert row["ratio"] == pytest.approx(row["figure"] / row["ceiling_figure"], rel=0.1)
    assert "error beside float64, bfloat16" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert learner.main(["--device", "tpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
