"""The ablation's plan: one change a variant, every seed once, what has a record passed over."""

from collections.abc import Sequence
from pathlib import Path
from threading import Barrier

import pytest

from benchmarks import ablation
from benchmarks.ablation import VARIANTS, Run, main, missing
from common.errors import UserError
from common.presets import PRESETS
from driver.options import flatten, parse_options


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_a_command_that_changes_something_and_only_the_default_nothing(
    variant: str, tmp_path: Path
) -> None:
    config = parse_options(Run(variant, 2).command(10, tmp_path / "run")).config
    usual = flatten(PRESETS["default"])
    changed = {name for name, value in flatten(config).items() if value != usual[name]}
    assert {"seed", "max_minutes", "checkpoint.replay"} >= changed if variant == "default" else len(changed) > 3


def test_all_variants_come_before_the_second_seed_and_what_has_a_record_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    done = Run("dueling", 1)
    done.record.parent.mkdir()
    done.record.write_text('{"settings": {"max_minutes": 10.0}}')
    runs = [(run.variant, run.seed) for run in missing(["default", "dueling"], [1, 2], "ablation", 10)]
    assert runs == [("default", 1), ("default", 2), ("dueling", 2)]
    with pytest.raises(UserError, match=r"is of 10.0 minutes, not 5: name another --group"):
        list(missing(["dueling"], [1], "ablation", 5))


def test_a_folder_that_an_ended_training_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    (tmp_path / "runs" / "ablation-default-1").mkdir(parents=True)
    assert main(["--only", "default", "--seeds", "1", "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert "default-1 is there already" in error
    assert error.count("\n") == 1


def test_runs_at_once_wait_for_no_other_and_options_after_two_dashes_are_every_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    started: dict[str, Sequence[str]] = {}
    both = Barrier(2)

    def call(script: str, arguments: Sequence[str], quiet: bool) -> None:
        if script == "launch.py":
            assert quiet
            started[arguments[0]] = arguments
            both.wait(timeout=30)
        else:
            raise UserError("enough")

    monkeypatch.setattr(ablation, "_call", call)
    options = ["--only", "dueling", "one-step", "--seeds", "1", "--at-once", "2", "--runs", str(tmp_path / "runs")]
    assert main([*options, "--", "--actors.count", "3"]) == 2
    assert sorted(started) == ["--agent.dueling", "--agent.n-step"]
    assert all(arguments[-2:] == ["--actors.count", "3"] for arguments in started.values())
