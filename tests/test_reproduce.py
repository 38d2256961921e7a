"""The verdict on whether a published result held."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.learning_records import TEST_SEED
from benchmarks.reproduce import Outcome, describe, held, main, published
from benchmarks.scripts import Scripts
from common.errors import UserError
from driver.options import dump_config, parse_options
from driver.run_directory import RunDirectory
from tests.interrupting import terminated_when_there, write_script


@pytest.mark.parametrize(("clears", "verdict"), [(100, True), (93, True), (89, False), (0, False)])
def test_a_result_holds_unless_it_is_certainly_worse(clears: int, verdict: bool) -> None:
    expected = [Outcome(290, 300, 700_000), Outcome(286, 300, 800_000)]  # 96 %
    outcomes = [Outcome(clears, 100, 750_000, 240.0)]
    assert held(outcomes, expected) == verdict
    goal, text = describe(outcomes, expected).splitlines()
    assert goal.startswith("goal reached: " if clears >= 95 else "goal missed: ")
    assert goal.endswith("after 4:00")
    assert text.startswith("held: " if verdict else "NOT held: ")
    assert f"{clears}.0% of 100 episodes clear" in text
    assert "published 96.0% of 600; env steps 750,000, published 700,000 to 800,000" in text


@pytest.mark.parametrize("first_clear_s", [481.0, None])
def test_a_first_clear_that_is_late_or_missing_misses_the_goal(first_clear_s: float | None) -> None:
    assert not Outcome(100, 100, 1, first_clear_s).reaches_goal


def test_all_seeds_count_together() -> None:
    expected = [Outcome(96, 100, 1)]
    assert not held([Outcome(90, 100, 1)] * 3, expected)
    assert held([Outcome(90, 100, 1), Outcome(97, 100, 1), Outcome(98, 100, 1)], expected)


def test_published_are_the_measurements_of_the_stage_trained_on_without_sticky_actions_on_fresh_seeds() -> None:
    def measured(stage: str, seed: int, sticky: float, clears: int) -> dict[str, object]:
        figures = {stage: {"clears": clears, "episodes": 300}}
        return {"protocol": {"seed": seed, "sticky_actions": sticky}, "stages": figures}

    every = [
        measured("1-3", TEST_SEED, 0.0, 3),
        measured("1-1", TEST_SEED, 0.25, 150),
        measured("1-1", 0, 0.0, 300),
        measured("1-1", TEST_SEED, 0.0, 290),
    ]
    record = {"stages": ["1-1"], "env_steps": 5, "first_clear_s": 7.0, "measured": every}
    assert published([record]) == [Outcome(290, 300, 5, 7.0)]


def test_without_published_results_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(UserError, match="no result of the default preset"):
        published([])


@pytest.mark.parametrize(("arguments", "words"), [("--seeds 3 3", "named twice"), ("--minutes 0", "--minutes")])
def test_bad_input_is_refused_before_anything_is_trained(
    arguments: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        assert main([*arguments.split(), "--runs", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_run_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reproduce-7").mkdir()
    assert main(["--runs", str(tmp_path), "--seeds", "7"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_interrupt_ends_the_training_in_order_and_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.scripts.ROOT", tmp_path)
    write_script(tmp_path / "launch.py", place=repr(str(tmp_path)))
    with terminated_when_there(tmp_path / "began"):
        assert main(["--runs", str(tmp_path)]) == 130
    assert (tmp_path / "ended").exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_training_that_somebody_stopped_says_nothing_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Scripts, script: str, arguments: Sequence[str]) -> int:
        assert script == "launch.py"
        config = parse_options(list(arguments)).config
        folder = RunDirectory(tmp_path / "reproduce-1")
        folder.create(dump_config(config), {})
        counts = dict.fromkeys(("env_steps", "episodes", "updates"), 7)
        folder.progress_path.write_text(json.dumps({"time_s": 1799.0, **counts}) + "\n")
        return 0

    monkeypatch.setattr(Scripts, "run", run)
    assert main(["--runs", str(tmp_path)]) == 2
    assert "was stopped before 30 minutes" in capsys.readouterr().err
