"""The tutorials' presets have the tutorials' values, and their lockstep."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from actors.environment import environment_spec
from common.config import Config
from common.networks import build_network
from common.presets import PRESETS
from common.schedules import decayed_epsilon
from driver.options import flatten
from driver.plan import build_limiter
from driver.serial import SerialRun
from tests.launching import finish, progress, start

SHARED = {
    "agent.gamma": 0.9,
    "agent.n_step": 1,
    "agent.double": True,
    "agent.dueling": False,
    "agent.munchausen": 0.0,
    "agent.target_epsilon": 0.0,
    "agent.target_epsilon_late": None,
    "agent.tree_backup": False,
    "agent.quantiles": 1,
    "agent.watkins": False,
    "agent.network": "nature",
    "agent.layer_norm": False,
    "agent.flag_reward": 0.0,
    "agent.death_reward": 0.0,
    "agent.reward_scale": 1.0,
    "env.name": "mario",
    "env.stages": ("1-1",),
    "env.frame_skip": 4,
    "env.frame_stack": 4,
    "env.noop_max": 0,
    "env.sticky_actions": 0.0,
    "env.show_buttons": False,
    "env.max_steps": None,
    "actors.count": 1,
    "actors.envs_per_actor": 1,
    "actors.exploration": "schedule",
    "actors.exploration_zeta": 0.0,
    "actors.practice_steps": None,
    "actors.practice_opening": 0,
    "actors.saved_starts": 0.0,
    "actors.saved_start_heights": False,
    "actors.chunk_length": 1,
    "actors.weights_poll_s": 0.0,
    "replay.shards": 1,
    "replay.priority_exponent": 0.0,
    "replay.min_size": 32,
    "replay.samples_per_insert": 32.0,
    "replay.error_buffer": 32.0,
    "replay.importance_exponent": 0.0,
    "actors.max_inserts_in_flight": 1,
    "learner.prefetch": 1,
    "eval.interval_s": 600.0,
    "eval.noop_max": 0,
    "learner.batch_size": 32,
    "learner.learning_rate": 0.00025,
    "learner.learning_rate_final": None,
    "learner.average_decay": 0.0,
    "learner.random_shift": 0,
    "learner.adam_epsilon": 1e-8,
    "learner.huber_delta": 1.0,
    "learner.max_grad_norm": None,
    "learner.target_update_period": 5_000,
    "learner.broadcast_period": 1,
    "actors.precision": "float32",
    "learner.precision": "float32",
    "max_episodes": 10_000,
}
NOTEBOOK = SHARED | {
    "env.actions": "simple",
    "replay.capacity": 20_000,
    "actors.epsilon_start": 1.0,
    "actors.epsilon_final": 0.02,
    "actors.epsilon_decay": 0.9999,
    "checkpoint.interval_updates": 10_000,
    "checkpoint.interval_s": None,
    "print_episodes": False,
    "eval.stages": ("1-3",),
    "eval.epsilon": 0.05,
    "seed": 42,
}
ARTICLE = SHARED | {
    "env.actions": "right_only",
    "replay.capacity": 30_000,
    "actors.epsilon_start": 0.02,
    "actors.epsilon_final": 0.02,
    "actors.epsilon_decay": 0.99,
    "eval.epsilon": 0.02,
    "eval.stages": (),
    "print_episodes": True,
}


@pytest.mark.parametrize(("preset", "values"), [("notebook", NOTEBOOK), ("article", ARTICLE)])
def test_a_tutorials_preset_has_its_values(preset: str, values: dict[str, object]) -> None:
    settings = flatten(PRESETS[preset])
    assert {name: settings[name] for name in values} == values


@pytest.mark.parametrize(("preset", "values"), [("notebook", NOTEBOOK), ("article", ARTICLE)])
def test_what_a_tutorial_does_not_say_is_as_by_default(preset: str, values: dict[str, object]) -> None:
    settings, default = flatten(PRESETS[preset]), flatten(Config())
    assert {name for name in settings if settings[name] != default[name]} <= set(values)


def test_the_notebooks_network_has_its_parameters() -> None:
    env, agent = PRESETS["notebook"].env, PRESETS["notebook"].agent
    spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
    network = build_network(spec, agent.dueling, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_687_719


def test_the_notebooks_epsilon_is_at_its_floor_after_39_119_updates() -> None:
    actors = PRESETS["notebook"].actors
    start, final, decay = actors.epsilon_start, actors.epsilon_final, actors.epsilon_decay
    assert decayed_epsilon(39_118, start, final, decay) > 0.02
    assert decayed_epsilon(39_119, start, final, decay) == 0.02


@pytest.mark.parametrize("preset", ["notebook", "article"])
def test_learning_may_begin_with_the_32nd_transition_and_not_before(preset: str) -> None:
    limiter = build_limiter(PRESETS[preset])
    for _ in range(31):
        limiter.insert(1)
        assert not limiter.can_sample(32)
    limiter.insert(1)
    assert limiter.can_sample(32)


def test_the_presets_processes_take_turns_too(tmp_path: Path) -> None:
    arguments = ["--preset", "notebook", "--env.name", "gridworld", "--ray.address", "local", "--eval.no-enabled"]
    status, _, err = finish(start(tmp_path / "run", *arguments, "--ray.object-store-mb", "100", "--max-updates", "300"))
    assert (status, err) == (0, "")
    last = progress(tmp_path / "run")[-1]
    assert last["updates"] == 300
    assert 31 <= last["env_steps"] - last["updates"] <= 36  # the 32nd step's update is the first; 4 are in flight
    with (tmp_path / "run" / "mario.csv").open() as file:
        rows = list(csv.DictReader(file))
    ends = itertools.accumulate(int(row["Length"]) for row in rows)
    learned = [row for row, end in zip(rows, ends, strict=True) if end - 32 > int(row["Length"]) > 3]
    assert learned
    assert all(row["Loss"] for row in learned)


def _lockstep(preset: str) -> Config:
    return replace(PRESETS[preset], env=replace(PRESETS[preset].env, name="gridworld"))


@pytest.mark.parametrize("preset", ["notebook", "article"])
def test_there_is_one_update_of_32_samples_per_step_from_the_32nd_transition_on(preset: str) -> None:
    run = SerialRun(_lockstep(preset))
    for steps in (32, 50, 100, 400):
        run.run(steps - run.env_steps)
        assert abs(run.learner.updates - max(0, steps - 32)) <= 2
    stats = run.shards[0].stats()
    assert stats.samples == run.learner.updates * 32
    run.close()
