"""Presets, YAML files and the command line; what is refused is refused in one line."""

import dataclasses
from pathlib import Path

import pytest

from common.config import Config
from common.errors import UserError
from common.presets import PRESETS
from common.validation import validate
from driver.options import RUNS, dump_config, flatten, load_config, load_run_settings, parse_options
from driver.run_directory import RunDirectory, newest_run


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _start(path: Path, *arguments: str) -> Config:
    options = parse_options(["--run-dir", str(path), *arguments])
    options.run.create(dump_config(options.config), {"preset": options.preset})
    return options.config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_its_file(name: str, tmp_path: Path) -> None:
    validate(PRESETS[name])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(PRESETS[name]), encoding="utf-8")
    assert load_config(path) == PRESETS[name]


def test_command_line_beats_file_and_file_beats_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "agent: {gamma: 0.9, watkins: false, tree_backup: false}\nreplay:\n  samples_per_insert: 2\n", encoding="utf-8"
    )
    config = parse_options(["--config", str(path), "--agent.gamma", "0.8", "--env.stages", "1-1", "1-2"]).config
    assert (config.agent.gamma, config.agent.watkins, config.replay.samples_per_insert) == (0.8, False, 2.0)
    assert config.env.stages == ("1-1", "1-2")
    assert config.learner == Config().learner


def test_all_stages_have_one_word_and_the_runs_folder_a_short_name() -> None:
    options = parse_options(["--env.stages", "all", "--eval.stages", "all"])
    assert len(options.config.env.stages) == 32
    assert options.config.eval.stages == options.config.env.stages
    assert options.run.path.name.endswith("_all")
    with pytest.raises(UserError, match=r"--env.stages all: no such stage; .* alone, all"):
        parse_options(["--env.stages", "all", "1-1"])


def test_documented_option_names_are_understood() -> None:
    arguments = "--env.core nes-py --actors.count 3 --replay.shards 4 --replay.samples-per-insert 2 "
    arguments += (
        "--learner.batch-size 16 --preset default --total-env-steps 10 --max-episodes 2 --max-updates 3 --max-minutes 4"
    )
    config = parse_options(arguments.split()).config
    assert (config.actors.count, config.replay.shards, config.learner.batch_size) == (3, 4, 16)
    assert (config.total_env_steps, config.max_episodes, config.max_updates, config.max_minutes) == (10, 2, 3, 4.0)


REFUSED = {
    "unknown option": ("--env.sages 1-1", "did you mean --env.stages"),
    "stray word": ("extra", "extra"),
    "word for a number": ("--learner.batch-size many", "--learner.batch-size"),
    "unknown choice": ("--env.actions fly", "--env.actions"),
    "missing value": ("--actors.count", "--actors.count"),
    "no actor": ("--actors.count 0", "--actors.count 0"),
    "no such stage": ("--env.stages 9-9", "9-9"),
    "no stage": ("--env.stages", "--env.stages"),
    "stage twice": ("--env.stages 1-1 1-1", "twice"),
    "game beside a stage": ("--env.stages game 1-1", "alone"),
    "no such evaluation stage": ("--eval.stages 0-1", "--eval.stages 0-1"),
    "gamma above one": ("--agent.gamma 1.5", "--agent.gamma 1.5"),
    "not a number": ("--max-minutes nan", "--max-minutes nan"),
    "negative seed": ("--seed -1", "--seed -1"),
    "unknown device": ("--learner.device tpu", "tpu"),
    "error buffer that deadlocks": ("--replay.error-buffer 3", "deadlock"),
    "minimum above capacity": ("--replay.min-size 200000", "--replay.capacity"),
    "minimum too close to capacity": ("--replay.min-size 100000", "too close"),
    "capacity below a chunk": ("--replay.capacity 100 --replay.min-size 10", "chunk"),
    "unknown preset": ("--preset fast", "there are default"),
    "no such file": ("--config nowhere.yaml", "nowhere.yaml"),
    "resume without a run": ("--resume", "no run"),
    "resume of nothing": ("--resume nowhere", "nowhere"),
    "two runs": ("--resume a --run-dir b", "two runs"),
    "run directory is a file": ("--run-dir a-file", "is a file"),
    "this folder is no run": ("--resume .", "no run"),
    "run directory in use by something else": ("--run-dir .", "other files"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_options_are_refused_in_one_line_that_names_them(name: str) -> None:
    Path("a-file").touch()
    arguments, expected = REFUSED[name]
    with pytest.raises(UserError) as error:
        parse_options(arguments.split())
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("env: {sages: [1-1]}", "did you mean env.stages"),
        ("agent: {gamma: high}", "--agent.gamma"),
        ("agent: {gamma: [1, 2]}", "single value"),
        ("env: {stages: 1-1}", "list"),
        ("agent: {double: 'no'}", "true or false"),
        ("help: true", "no setting help"),
        ("preset: notebook", "no setting preset"),
        ("- a\n- b", "list"),
        ("env: {stages: [1-1", "YAML"),
        ("learner: 3", "section"),
        ("learner: {batch_size: true}", "batch_size"),
    ],
)
def test_bad_files_are_refused_in_one_line_with_their_name(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        parse_options(["--config", str(path)])
    assert "mine.yaml" in str(error.value)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path: Path) -> None:
    _start(tmp_path / "run")
    with pytest.raises(UserError, match="--resume"):
        parse_options(["--run-dir", str(tmp_path / "run")])


def test_resume_takes_the_runs_settings(tmp_path: Path) -> None:
    before = _start(tmp_path / "run", "--agent.gamma", "0.5", "--actors.count", "3")
    options = parse_options(["--resume", str(tmp_path / "run")])
    assert options.config == before
    assert options.resume


def test_a_run_that_is_being_fetched_is_not_the_newest_one() -> None:
    whole, fetching = RUNS / "whole", RUNS / ".fetching-12"
    for path in (whole, fetching):
        RunDirectory(path).create(dump_config(Config()), {"preset": "default"})
    assert newest_run(RUNS) == whole


def test_resume_without_a_folder_takes_the_newest_run() -> None:
    _start(Path("runs/old"), "--seed", "1")
    _start(Path("runs/new"), "--seed", "2")
    RunDirectory(Path("runs/old")).progress_path.write_text("{}\n", encoding="utf-8")  # written to last
    assert parse_options(["--resume"]).config.seed == 1


def test_resume_refuses_contradictions_by_name_and_takes_what_may_change(tmp_path: Path) -> None:
    _start(tmp_path / "run", "--agent.gamma", "0.5")
    with pytest.raises(UserError) as error:
        parse_options(["--resume", str(tmp_path / "run"), "--agent.gamma", "0.9", "--env.stages", "1-2"])
    assert "--agent.gamma (the run has 0.5)" in str(error.value)
    assert "--env.stages (the run has 1-1)" in str(error.value)
    options = parse_options(["--resume", str(tmp_path / "run"), "--max-minutes", "5", "--actors.count", "2"])
    assert (options.config.max_minutes, options.config.actors.count, options.config.agent.gamma) == (5.0, 2, 0.5)


def test_a_checkpoint_that_is_named_by_a_relative_path_lies_in_its_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _start(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-000000000005").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    options = parse_options(["--resume-from", "run/checkpoints/step-000000000005"])
    assert options.checkpoint == options.run.checkpoints / "step-000000000005"


def test_a_runs_settings_that_are_cut_at_any_byte_are_refused(tmp_path: Path) -> None:
    arguments = "--env.stages 1-1 1-2 --agent.gamma 0.5 --seed 12345 --print-episodes"
    config = parse_options(arguments.split()).config
    whole, path = dump_config(config), tmp_path / "config.yaml"
    mark = "...\n"
    assert whole.endswith(mark)
    accepted = []
    for end in range(len(whole)):
        path.write_text(whole[:end], encoding="utf-8")
        try:
            assert load_run_settings(path) == (config, ())
            accepted.append(end)
        except UserError as error:
            reason = str(error)
            if "is cut short" not in reason or "\n" in reason:
                raise
    # Without the mark alone it is as earlier versions wrote it, and nothing is missing.
    assert accepted == [len(whole) - len(mark)]


def test_settings_that_the_runs_version_did_not_have_are_told(tmp_path: Path) -> None:
    config = _start(tmp_path / "run", "--agent.gamma", "0.5")
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert "  watkins: true\n" in text
    path.write_text(text.replace("  watkins: true\n", ""), encoding="utf-8")
    options = parse_options(["--resume", str(tmp_path / "run")])
    assert options.config == config
    assert options.remarks == (
        "config.yaml is of an earlier version, and lacks what this one has: taken as agent.watkins True",
    )


def test_a_run_from_before_practice_had_openings_goes_on_without(tmp_path: Path) -> None:
    config = _start(tmp_path / "run")
    assert config.actors.practice_opening > 0
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    line = f"  practice_opening: {config.actors.practice_opening}\n"
    assert line in text
    path.write_text(text.replace(line, ""), encoding="utf-8")
    options = parse_options(["--resume", str(tmp_path / "run")])
    assert options.config.actors.practice_opening == 0
    assert "taken as actors.practice_opening 0" in options.remarks[0]


def test_flatten_names_every_setting_once() -> None:
    flat = flatten(Config())
    count = sum(
        len(dataclasses.fields(getattr(Config(), f.name))) if dataclasses.is_dataclass(getattr(Config(), f.name)) else 1
        for f in dataclasses.fields(Config)
    )
    assert len(flat) == count
    assert flat["replay.samples_per_insert"] == Config().replay.samples_per_insert


def test_an_empty_section_of_a_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("env:\nseed: 3\n", encoding="utf-8")
    assert parse_options(["--config", str(path)]).config == dataclasses.replace(Config(), seed=3)


def test_two_drivers_cannot_work_in_one_run(tmp_path: Path) -> None:
    _start(tmp_path / "run")
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    with first.lock(), pytest.raises(UserError, match="another launch"), second.lock():
        pass
    with second.lock():
        pass


def test_help_is_shown_also_beside_resume(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_options(["--resume", "--help"])
    assert exit_.value.code == 0
    assert "--replay.samples-per-insert" in capsys.readouterr().out
