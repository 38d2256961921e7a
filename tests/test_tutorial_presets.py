"""The tutorials' presets have the tutorials' values, and their lockstep."""

from dataclasses import replace

import pytest

from common.actions import ACTION_SETS
from common.config import Config
from common.networks import build_network
from common.presets import PRESETS
from common.schedules import decayed_epsilon
from common.types import EnvironmentSpec
from driver.options import flatten
from driver.serial import SerialRun

SHARED = {
    "agent.gamma": 0.9,
    "agent.n_step": 1,
    "agent.double": True,
    "agent.dueling": False,
    "agent.reward_scale": 1.0,
    "env.name": "mario",
    "env.stages": ("1-1",),
    "env.frame_skip": 4,
    "env.frame_stack": 4,
    "env.noop_max": 0,
    "env.sticky_actions": 0.0,
    "env.max_steps": None,
    "actors.count": 1,
    "actors.envs_per_actor": 1,
    "actors.exploration": "schedule",
    "actors.chunk_length": 1,
    "actors.weights_poll_s": 0.0,
    "replay.shards": 1,
    "replay.priority_exponent": 0.0,
    "replay.min_size": 32,
    "replay.samples_per_insert": 32.0,
    "replay.error_buffer": 32.0,
    "learner.batch_size": 32,
    "learner.learning_rate": 0.00025,
    "learner.adam_epsilon": 1e-8,
    "learner.huber_delta": 1.0,
    "learner.max_grad_norm": None,
    "learner.target_update_period": 5_000,
    "learner.broadcast_period": 1,
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
    "eval.stages": ("1-3",),
    "eval.epsilon": 0.05,
    "eval.noop_max": 0,
    "seed": 42,
}
ARTICLE = SHARED | {
    "env.actions": "right_only",
    "replay.capacity": 30_000,
    "actors.epsilon_start": 0.02,
    "actors.epsilon_final": 0.02,
    "print_episodes": True,
}


@pytest.mark.parametrize(("preset", "values"), [("notebook", NOTEBOOK), ("article", ARTICLE)])
def test_a_tutorials_preset_has_its_values(preset: str, values: dict[str, object]) -> None:
    settings = flatten(PRESETS[preset])
    assert {name: settings[name] for name in values} == values


def test_the_notebooks_network_has_its_parameters() -> None:
    spec = EnvironmentSpec((84, 84), 4, ACTION_SETS["simple"])
    network = build_network(spec, dueling=False, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_687_719


def test_the_notebooks_epsilon_is_at_its_floor_after_39_119_updates() -> None:
    actors = PRESETS["notebook"].actors
    start, final, decay = actors.epsilon_start, actors.epsilon_final, actors.epsilon_decay
    assert decayed_epsilon(39_118, start, final, decay) > 0.02
    assert decayed_epsilon(39_119, start, final, decay) == 0.02


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
