"""The ablation's plan: one change a variant, every seed once, what has a record passed over."""

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Barrier

import pytest

from benchmarks import ablation, learning_record
from benchmarks.ablation import VARIANTS, Budget, Run, main, missing
from benchmarks.scripts import Scripts
from common.errors import UserError
from common.presets import PRESETS
from driver.options import dump_config, flatten, parse_options
from driver.run_directory import RunDirectory
from tests.interrupting import terminated_when_there, write_script

_TEN_MINUTES = Budget("max_minutes", 10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_a_command_that_changes_something_and_only_the_default_nothing(
    variant: str, tmp_path: Path
) -> None:
    config = parse_options(Run(variant, 2).command(_TEN_MINUTES, tmp_path / "run")).config
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
    runs = [(run.variant, run.seed) for run in missing(["default", "dueling"], [1, 2], "ablation", _TEN_MINUTES)]
    assert runs == [("default", 1), ("default", 2), ("dueling", 2)]
    with pytest.raises(UserError, match=r"is of 10 minutes, not 5 minutes: name another --group"):
        list(missing(["dueling"], [1], "ablation", Budget("max_minutes", 5)))


def test_a_budget_in_env_steps_stands_beside_one_in_minutes_but_not_beside_another_in_env_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    record = Run("dueling", 1).record
    record.parent.mkdir()
    record.write_text('{"settings": {"total_env_steps": 320000}}')
    assert list(missing(["dueling"], [1], "ablation", Budget("total_env_steps", 320_000))) == []
    assert capsys.readouterr().out == ""
    assert list(missing(["dueling"], [1], "ablation", _TEN_MINUTES)) == []
    assert capsys.readouterr().out == "dueling, seed 1: has a record of 320,000 env steps\n"
    for variant in ("dueling", "default"):
        with pytest.raises(UserError, match=r"is of 320,000 env steps, not 5,000 env steps: name another --group"):
            list(missing([variant], [1], "ablation", Budget("total_env_steps", 5_000)))


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

    def run(_: Scripts, script: str, arguments: Sequence[str], *, quiet: bool) -> int:
        assert (script, quiet) == ("launch.py", True)
        started[arguments[0]] = arguments
        both.wait(timeout=30)
        return 1

    monkeypatch.setattr(Scripts, "run", run)
    options = ["--only", "dueling", "one-step", "--seeds", "1", "--at-once", "2", "--runs", str(tmp_path / "runs")]
    assert main([*options, "--", "--actors.count", "3"]) == 2
    assert sorted(started) == ["--agent.dueling", "--agent.n-step"]
    assert all(arguments[-2:] == ["--actors.count", "3"] for arguments in started.values())


def _trained(seconds: float) -> Callable[..., int]:
    """In place of the scripts: a training that ended after so long, and a measurement of its policy."""

    def run(_: Scripts, script: str, arguments: Sequence[str], *, quiet: bool) -> int:
        if script == "launch.py":
            config = parse_options(list(arguments)).config
            folder = RunDirectory(Path(arguments[list(arguments).index("--run-dir") + 1]))
            folder.create(dump_config(config), {"preset": "default", "command": "python launch.py", "commit": "0"})
            counts = dict.fromkeys(("env_steps", "episodes", "updates", "samples", "restarts"), 7)
            folder.progress_path.write_text(json.dumps({"time_s": seconds, **counts}) + "\n")
        else:
            figures = {"clears": 1, "episodes": 2, "per_episode": [{"clear": True}, {"clear": False}]}
            result = {"protocol": {"seed": 0}, "stages": {"1-1": figures}}
            Path(arguments[-1]).write_text(json.dumps(result))
        return 0

    return run


def _options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path / "records")
    monkeypatch.setattr(learning_record, "FOLDER", tmp_path / "records")
    return ["--only", "one-step", "--seeds", "3", "--minutes", "2", "--runs", str(tmp_path / "runs")]


def test_a_training_that_used_its_budget_is_measured_and_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path, monkeypatch)
    monkeypatch.setattr(Scripts, "run", _trained(120.0))
    assert main(options) == 0
    record = json.loads((tmp_path / "records" / "ablation-one-step" / "seed-3.json").read_text())
    assert (record["seed"], record["settings"]["agent.n_step"]) == (3, 1)
    assert record["measured"][0]["stages"]["1-1"] == {"clears": 1, "episodes": 2, "clears_in_order": "10"}
    monkeypatch.setattr(Scripts, "run", None)
    assert main(options) == 0


def test_a_budget_of_env_steps_is_the_trainings_only_limit_and_must_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _options(tmp_path, monkeypatch)
    monkeypatch.setattr(Scripts, "run", _trained(120.0))  # after 7 env steps
    options = ["--only", "one-step", "--seeds", "3", "--runs", str(tmp_path / "runs")]
    assert main([*options, "--env-steps", "8"]) == 2
    assert "was stopped before its budget was used" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs")
    assert main([*options, "--env-steps", "7"]) == 0
    record = json.loads((tmp_path / "records" / "ablation-one-step" / "seed-3.json").read_text())
    assert record["settings"]["total_env_steps"] == 7
    assert "max_minutes" not in record["settings"]


def test_a_training_that_somebody_stopped_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, monkeypatch)
    monkeypatch.setattr(Scripts, "run", _trained(119.0))
    assert main(options) == 2
    assert "was stopped before its budget was used" in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


def test_an_interrupt_ends_what_runs_begins_nothing_more_and_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, monkeypatch)
    monkeypatch.setattr("benchmarks.scripts.ROOT", tmp_path)
    write_script(tmp_path / "launch.py", place=repr(str(tmp_path)))
    with terminated_when_there(tmp_path / "began"):
        assert main(["--only", "one-step", "dueling", "default", *options[2:]]) == 130
    said = capsys.readouterr()
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "records").exists()
    assert (said.out, said.err.count("\n")) == ("one-step, seed 3 …\n", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "1", "1"], "named twice"),
        (["--only", "dueling", "dueling"], "named twice"),
        (["--seeds", "-1"], "--seeds"),
        (["--env-steps", "0"], "is not between 1 and"),
        (["--env-steps", "2000000000"], "is not between 1 and"),
        (["--env-steps", "5", "--minutes", "5"], "not allowed with"),
        (["--", "--max-minutes", "5"], "--max-minutes after --"),
        (["--env-steps", "5", "--", "--total_env_steps=9"], "--total_env_steps=9 after --"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    monkeypatch.setattr(Scripts, "run", None)
    with contextlib.suppress(SystemExit):
        assert main([*arguments, "--runs", str(tmp_path / "runs")]) == 2
    assert words in capsys.readouterr().err


def test_a_damaged_record_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, monkeypatch)
    record = Run("one-step", 3).record
    record.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"settings": {}}'):
        record.write_text(text)
        assert main(options) == 2
        assert f"{record} cannot be read" in capsys.readouterr().err
