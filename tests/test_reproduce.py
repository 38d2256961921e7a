"""The verdict on whether a published result held."""

import json
from pathlib import Path

import pytest

from benchmarks.reproduce import Outcome, describe, held, main, published
from common.errors import UserError


@pytest.mark.parametrize(("clears", "verdict"), [(100, True), (93, True), (89, False), (0, False)])
def test_a_result_holds_unless_it_is_certainly_worse(clears: int, verdict: bool) -> None:
    expected = [Outcome(290, 300, 700_000), Outcome(286, 300, 800_000)]  # 96 %
    outcomes = [Outcome(clears, 100, 750_000)]
    assert held(outcomes, expected) == verdict
    text = describe(outcomes, expected)
    assert text.startswith("held: " if verdict else "NOT held: ")
    assert f"{clears}.0% of 100 episodes clear" in text
    assert "published 96.0% of 600; env steps 750,000, published 700,000 to 800,000" in text


def test_all_seeds_count_together() -> None:
    expected = [Outcome(96, 100, 1)]
    assert not held([Outcome(90, 100, 1)] * 3, expected)
    assert held([Outcome(90, 100, 1), Outcome(97, 100, 1), Outcome(98, 100, 1)], expected)


def test_published_are_the_measurements_without_sticky_actions(tmp_path: Path) -> None:
    measured = [
        {"protocol": {"sticky_actions": sticky}, "stages": {"1-1": {"clears": clears, "episodes": 300}}}
        for sticky, clears in ((0.0, 290), (0.25, 150))
    ]
    (tmp_path / "1.json").write_text(json.dumps({"env_steps": 5, "measured": measured}))
    assert published(tmp_path) == [Outcome(290, 300, 5)]


def test_without_published_results_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result is published"):
        published(tmp_path)


def test_a_run_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reproduce-7").mkdir()
    assert main(["--runs", str(tmp_path), "--seeds", "7"]) == 2
    assert "is there already" in capsys.readouterr().err
