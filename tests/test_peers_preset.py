"""The preset of the comparison with other libraries, pinned whole: its figures hold for these settings alone."""

from common.config import Config
from common.presets import PRESETS
from driver.options import flatten

VALUES = {
    "agent.gamma": 0.9,
    "agent.n_step": 1,
    "agent.double": True,
    "agent.dueling": False,
    "agent.watkins": False,
    "agent.munchausen": 0.0,
    "agent.target_epsilon": 0.0,
    "agent.target_epsilon_late": None,
    "agent.tree_backup": False,
    "agent.quantiles": 1,
    "agent.network": "nature",
    "agent.layer_norm": False,
    "agent.flag_reward": 0.0,
    "agent.reward_scale": 1.0,
    "actors.epsilon": 0.4,
    "actors.epsilon_alpha": 7.0,
    "actors.exploration_zeta": 0.0,
    "actors.saved_starts": 0.0,
    "actors.practice_steps": None,
    "actors.practice_opening": 0,
    "env.name": "mario",
    "env.stages": ("1-1",),
    "env.actions": "right_only",
    "env.frame_skip": 4,
    "env.frame_stack": 4,
    "env.noop_max": 0,
    "env.sticky_actions": 0.0,
    "env.show_buttons": False,
    "replay.capacity": 20_000,
    "replay.min_size": 1_000,
    "replay.samples_per_insert": 8.0,
    "replay.priority_exponent": 0.6,
    "replay.importance_exponent": 0.4,
    "learner.batch_size": 32,
    "learner.learning_rate": 0.00025,
    "learner.learning_rate_final": None,
    "learner.average_decay": 0.0,
    "learner.huber_delta": 10.0,
    "learner.precision": "auto",
    "eval.enabled": False,
}


def test_the_preset_has_its_values() -> None:
    settings = flatten(PRESETS["peers"])
    assert {name: settings[name] for name in VALUES} == VALUES


def test_everything_else_is_as_by_default() -> None:
    settings, default = flatten(PRESETS["peers"]), flatten(Config())
    assert {name for name in settings if settings[name] != default[name]} <= set(VALUES)


def test_task_and_network_are_those_of_the_article() -> None:
    settings, article = flatten(PRESETS["peers"]), flatten(PRESETS["article"])
    shared = [name for name in settings if name.startswith(("agent.", "env."))]
    assert [name for name in shared if settings[name] != article[name]] == []
