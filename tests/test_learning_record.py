"""Records of training runs say what was run, and what came of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.learning_record import ended_by, main, make_record
from common.config import Config
from common.errors import UserError
from driver.options import dump_config
from driver.run_directory import RunDirectory

METADATA = {"preset": "default", "command": "python launch.py --run-dir /a/b --seed 4", "commit": "0123456789"}


def _run(path: Path, metadata: dict[str, str]) -> Path:
    run = RunDirectory(path)
    run.create(dump_config(replace(Config(), seed=4)), metadata)
    counts = dict.fromkeys(("env_steps", "episodes", "updates", "samples", "restarts"), 7)
    run.progress_path.write_text(json.dumps({"time_s": 90.0, **counts}) + "\n")
    lines = [{"time_s": 30.0, "clears": 0}, {"time_s": 60.0, "clears": 2}, {"time_s": 105.0, "clears": 1}]
    run.evaluations_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_record_has_the_runs_command_settings_and_first_clear(tmp_path: Path) -> None:
    figures = {"episodes": 8, "clear_rate": 0.5, "clear_rate_ci95": [0.2, 0.8]}
    result = tmp_path / "out.json"
    protocol = {"sticky_actions": 0.0}
    result.write_text(
        json.dumps({"protocol": protocol, "stages": {"1-1": {**figures, "per_episode": [{"clear": True}]}}})
    )
    record = make_record(_run(tmp_path / "run", METADATA), "why", [result])
    assert record["command"] == "python launch.py --seed 4"
    assert (record["settings"], record["minutes"], record["first_clear_s"]) == (
        {"seed": 4},
        1.75,
        60.0,
    )  # the last evaluation ends after the training
    assert record["measured"] == [{"protocol": protocol, "stages": {"1-1": figures | {"clears_in_order": "1"}}}]


def test_a_run_that_did_not_keep_its_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not keep a run's command"):
        make_record(_run(tmp_path / "run", {"preset": "default"}), "", [])


@pytest.mark.parametrize("text", ['{"protocol": {}}', "[]", '{"protocol": {}, "stages": {"1-1": {}}}', "{"])
def test_a_file_that_is_no_evaluation_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "out.json"
    result.write_text(text)
    run = _run(tmp_path / "run", METADATA)
    assert main([str(run), "--group", "default", "--evaluation", str(result)]) == 2
    error = capsys.readouterr().err
    assert f"learning_record: error: {result} " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("minutes", "ended"), [(1.5, "the limit of 1.5 minutes is reached"), (1.6, None)])
def test_what_ended_a_run_is_its_limit_or_somebody(minutes: float, ended: str | None, tmp_path: Path) -> None:
    run = RunDirectory(_run(tmp_path / "run", METADATA))
    run.config_path.write_text(dump_config(replace(Config(), max_minutes=minutes)))
    assert ended_by(run) == ended
