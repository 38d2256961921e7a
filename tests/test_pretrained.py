"""The policy that comes with the project plays as its evaluation says."""

import json
from pathlib import Path

import evaluate
from benchmarks.learning_record import FOLDER as RECORDS
from benchmarks.learning_records import load_groups, published_of
from tests.launching import ROOT

FOLDER = ROOT / "pretrained"


def test_the_pretrained_policy_reaches_the_flag(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert evaluate.main([str(FOLDER / "1-1.pt"), "--episodes", "5", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["stages"]["1-1"]["clears"] >= 3


def test_the_pretrained_policy_is_small_and_has_settings_and_evaluations_beside_it() -> None:
    assert (FOLDER / "1-1.pt").stat().st_size < 16 * 2**20
    assert (FOLDER / "1-1.config.yaml").exists()
    measured = json.loads((FOLDER / "1-1.evaluation.json").read_text())
    figures = measured["stages"]["1-1"]
    assert (measured["protocol"]["epsilon"], measured["protocol"]["noop_max"]) == (0.01, 30)
    assert f"{figures['clears']} of {figures['episodes']} episodes" in (ROOT / "README.md").read_text()


def test_the_readme_says_what_the_seeds_of_the_default_preset_were_measured_to_do() -> None:
    measured = [figures for record in load_groups(RECORDS)["default"] if (figures := published_of(record)) is not None]
    first, second, third = (f"{100 * figures['clear_rate']:.1f}" for figures in measured)
    assert f"{first}, {second} and {third} % of 300 fresh episodes" in (ROOT / "README.md").read_text()
