"""A checkpoint knows the settings that it was made with, and is not gone on from under others."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.environment import environment_spec
from common.config import AgentConfig, Config, EnvConfig
from common.errors import UserError
from driver import checkpoints
from driver.checkpoints import CheckpointWriter, Saved, read_start
from driver.counters import Counters
from driver.options import flatten
from driver.run_directory import RunDirectory
from driver.run_settings import compare_settings
from learner.checkpoint import load_checkpoint
from learner.factory import build_learner
from tests.checkpoints import make_run, save_step

CONFIG = Config(env=EnvConfig(name="gridworld"), agent=AgentConfig(gamma=0.5, n_step=1), seed=99)
BEFORE = flatten(CONFIG)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run with a checkpoint that its own writer made."""
    run = make_run(tmp_path / "run", CONFIG)
    spec = environment_spec(name="gridworld")
    learner = build_learner(spec=spec, agent=CONFIG.agent, learner=CONFIG.learner, seed=99, device="cpu")
    monkeypatch.setattr(checkpoints, "replay_writers", lambda shards: {})
    writer = CheckpointWriter(run, CONFIG, spec)
    writer.start(learner.state_dict() | {"updates": 5}, Counters(updates=5), None, (), {}, without_replay=False)
    saved = writer.wait()
    writer.close()
    assert isinstance(saved, Saved)
    return run


def edit(run: RunDirectory, name: str, value: Any) -> None:
    """Changes a setting in the run's file, as by hand."""
    leaf = name.rpartition(".")[2]
    text, places = re.subn(rf"(?m)^( *{leaf}: ).*$", rf"\g<1>{value}", run.config_path.read_text(encoding="utf-8"))
    assert places == 1
    run.config_path.write_text(text, encoding="utf-8")


def test_a_checkpoint_of_the_runs_settings_is_gone_on_from_without_a_word(run: RunDirectory) -> None:
    begin = read_start(run, None)
    assert (begin.step, begin.remarks) == (5, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent.gamma", 0.17),
        ("agent.n_step", 7),
        ("agent.munchausen", 0.25),
        ("env.frame_skip", 2),
        ("env.sticky_actions", 0.25),
        ("seed", 0),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_both_values(name: str, value: Any, run: RunDirectory) -> None:
    edit(run, name, value)
    with pytest.raises(UserError) as error:
        read_start(run, None)
    message = str(error.value)
    assert f"{name} {value} instead of {BEFORE[name]};" in message
    assert "from the copy in the checkpoint" in message
    assert "\n" not in message


def test_the_copy_in_the_checkpoint_restores_the_runs_settings(run: RunDirectory) -> None:
    before = run.config_path.read_bytes()
    edit(run, "agent.gamma", 0.17)
    copy = load_checkpoint(next(run.checkpoints.iterdir())).extra["config.yaml"]
    assert copy.read_bytes() == before
    run.config_path.write_bytes(copy.read_bytes())
    assert read_start(run, None).step == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent.target_epsilon", 0.07),
        ("agent.target_epsilon_late", 0.25),
        ("agent.target_epsilon_late_update", 7),
        ("agent.death_reward", -450.0),
        ("agent.flag_reward", 15.0),
        ("env.core", "nes-py"),
        ("learner.learning_rate_final", 0.0003),
        ("replay.samples_per_insert", 2.5),
        ("actors.envs_per_actor", 3),
        ("max_minutes", 5.0),
    ],
)
def test_what_may_be_changed_by_hand_is_told(name: str, value: Any, run: RunDirectory) -> None:
    edit(run, name, value)
    told = f"config.yaml differs from step-000000000005's: {name} {value} instead of {BEFORE[name]}"
    assert read_start(run, None).remarks == [told]


def test_a_checkpoint_of_earlier_versions_has_no_settings_and_is_gone_on_from(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CONFIG)
    save_step(run, 7)
    edit(run, "agent.gamma", 0.17)
    begin = read_start(run, None)
    assert (begin.step, begin.remarks) == (7, [])


def test_a_setting_that_the_checkpoints_version_did_not_have_is_no_difference(tmp_path: Path) -> None:
    older = make_run(tmp_path / "older", CONFIG)
    text = older.config_path.read_text(encoding="utf-8")
    older.config_path.write_text(text.replace("  gamma: 0.5\n", ""), encoding="utf-8")
    run = make_run(tmp_path / "run", CONFIG)
    data = replace(load_checkpoint(save_step(run, 5)), extra={"config.yaml": older.config_path})
    assert compare_settings(run, data) == []
