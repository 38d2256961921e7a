"""What every system of the comparison is given: the same environment, network size and step size."""

from dataclasses import asdict
from typing import Final

from actors.environment import Environment, environment_spec, make_environment
from common.networks import build_network
from common.presets import PRESETS

PRESET: Final = PRESETS["peers"]
BATCH_SIZE: Final = PRESET.learner.batch_size
SAMPLES_PER_TRANSITION: Final = PRESET.replay.samples_per_insert
STEPS_PER_UPDATE: Final = round(BATCH_SIZE / SAMPLES_PER_TRANSITION)
"""Transitions between two updates."""
EPSILON: Final = 0.05
"""Exploration of the peers: where Stable-Baselines3's and RLlib's own schedules end."""


def make_task(core: str, seed: int = 0) -> Environment:
    """The preset's environment on an emulator core."""
    return make_environment(**{**asdict(PRESET.env), "core": core}, seed=seed)


def check_network(parameters: int) -> None:
    """Refuses a peer's network that has another size than ours.

    Raises:
        RuntimeError: it has.
    """
    env, agent = PRESET.env, PRESET.agent
    spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
    ours = sum(parameter.numel() for parameter in build_network(spec, agent.dueling, seed=0).parameters())
    if parameters != ours:
        raise RuntimeError(f"the peer's network has {parameters} parameters, ours {ours}")
