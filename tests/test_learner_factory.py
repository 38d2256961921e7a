"""Every setting of the learner reaches it the way that a run builds it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.config import AgentConfig, LearnerConfig
from learner.factory import build_learner
from tests.random_batches import MARIO_SPEC, random_batch

# What is of the actors, the replay or the process around the learner, and acts on no update by itself.
_ELSEWHERE = {
    *("n_step", "watkins", "flag_reward", "death_reward", "reward_scale"),
    *("batch_size", "broadcast_period", "device", "threads", "prefetch"),
}

# (setting, another value, what else must be set for it to matter)
_CHANGES: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("gamma", 0.5, {"tree_backup": False}),
    ("double", False, {"munchausen": 0.0}),
    ("munchausen", 0.5, {}),
    ("munchausen_temperature", 1.0, {}),
    ("target_epsilon", 0.5, {}),
    ("target_epsilon_late", 0.5, {"target_epsilon_late_update": 1}),
    ("target_epsilon_late_update", 1, {"target_epsilon_late": 0.5}),
    ("tree_backup", False, {}),
    ("dueling", True, {}),
    ("network", "nature", {}),
    ("layer_norm", False, {}),
    ("quantiles", 8, {}),
    ("learning_rate", 1e-3, {}),
    ("learning_rate_final", None, {"learning_rate_decay_updates": 4}),
    ("learning_rate_decay_updates", 2, {}),
    ("random_shift", 4, {}),
    ("average_decay", 0.5, {}),
    ("adam_epsilon", 1e-2, {}),
    ("huber_delta", 1e-3, {}),
    ("max_grad_norm", 1e-4, {}),
    ("target_update_period", 1, {}),
    ("precision", "bfloat16", {}),
)


def _weights(settings: dict[str, Any], updates: int) -> NDArray[np.float32]:
    """Online weights and those that are handed on, after so many updates."""
    of_agent = {name: value for name, value in settings.items() if hasattr(AgentConfig(), name)}
    of_learner = {name: value for name, value in settings.items() if name not in of_agent}
    agent = dataclasses.replace(AgentConfig(), **of_agent)
    learner = dataclasses.replace(LearnerConfig(precision="float32", learning_rate_decay_updates=10), **of_learner)
    built = build_learner(spec=MARIO_SPEC, agent=agent, learner=learner, seed=5, device="cpu")
    for seed in range(updates):
        built.update(random_batch(MARIO_SPEC, seed=seed, size=8))
    return np.concatenate([built.weights(), built.policy_weights()])


def test_each_setting_is_either_tried_here_or_acts_elsewhere() -> None:
    every = {field.name for base in (AgentConfig, LearnerConfig) for field in dataclasses.fields(base)}
    assert {name for name, _, _ in _CHANGES} | _ELSEWHERE == every


def test_the_same_settings_learn_the_same() -> None:
    np.testing.assert_array_equal(_weights({}, 3), _weights({}, 3))


@pytest.mark.parametrize(("name", "value", "needs"), _CHANGES, ids=[name for name, _, _ in _CHANGES])
def test_a_changed_setting_changes_what_is_learned(name: str, value: Any, needs: dict[str, Any]) -> None:
    updates = 25 if name == "average_decay" else 3  # the average is over the last tenth of the updates at most
    usual, changed = _weights(needs, updates), _weights({**needs, name: value}, updates)
    assert np.isfinite(changed).all()
    assert not np.array_equal(usual, changed)
