"""The policy that comes with the project reaches the flag, and is the one that its evaluations measured."""

import json
from dataclasses import asdict
from pathlib import Path

import evaluate
from benchmarks.learning_record import FOLDER as RECORDS
from benchmarks.learning_records import TEST_SEED, load_groups, published_of
from common.policy import load_policy
from common.validation import validate
from driver.options import load_config
from driver.report import weights_sha256
from tests.launching import ROOT

FOLDER = ROOT / "pretrained"


def test_the_pretrained_policy_reaches_the_flag(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert evaluate.main([str(FOLDER / "1-1.pt"), "--episodes", "5", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["stages"]["1-1"]["clears"] >= 3


def test_the_pretrained_policy_is_small_and_is_the_one_that_was_measured_on_episodes_nothing_was_chosen_by() -> None:
    assert (FOLDER / "1-1.pt").stat().st_size < 16 * 2**20
    weights = weights_sha256(load_policy(FOLDER / "1-1.pt").network)
    for name, sticky in (("1-1.evaluation.json", 0.0), ("1-1.evaluation-sticky.json", 0.25)):
        measured = json.loads((FOLDER / name).read_text())
        assert measured["weights_sha256"] == weights
        protocol, figures = measured["protocol"], measured["stages"]["1-1"]
        assert (protocol["seed"], protocol["sticky_actions"]) == (TEST_SEED, sticky)
        assert (protocol["epsilon"], protocol["noop_max"]) == (0.01, 30)
        assert f"{figures['clears']} of {figures['episodes']}" in (ROOT / "README.md").read_text()


def test_the_pretrained_policys_settings_are_those_of_a_run_that_can_be_started() -> None:
    config = load_config(FOLDER / "1-1.config.yaml")
    validate(config)
    saved = load_policy(FOLDER / "1-1.pt").metadata
    assert saved["env"] == json.loads(json.dumps(asdict(config.env)))
    assert saved["seed"] == config.seed


def test_the_readme_says_what_the_seeds_of_the_default_preset_were_measured_to_do() -> None:
    groups, readme = load_groups(RECORDS), (ROOT / "README.md").read_text()
    rates = [
        f"{100 * figures['clear_rate']:.1f}"
        for record in (*groups["default"], *groups["gpu"])
        if (figures := published_of(record)) is not None
    ]
    first, second, third, on_a_gpu = rates
    assert f"{first}, {second} and {third} % of 300 fresh episodes" in readme
    assert f"a single run clears {on_a_gpu} % after 10 minutes" in readme
