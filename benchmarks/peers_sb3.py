"""Stable-Baselines3's DQN on the task."""

import time
from functools import partial
from typing import Any

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from benchmarks.peers_gymnasium import GymnasiumTask
from benchmarks.peers_meter import Meter, Speed
from benchmarks.peers_task import BATCH_SIZE, EPSILON, PRESET, STEPS_PER_UPDATE, check_network


class _Readings(BaseCallback):
    """Reads the meter after every step of the environments, and ends training when it has enough."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def _on_step(self) -> bool:
        return self._meter.read(time.perf_counter(), self.num_timesteps, self.model._n_updates * BATCH_SIZE)


def measure(core: str, settings: dict[str, Any], meter: Meter) -> Speed:
    """Trains until the meter has what it needs.

    Args:
        core: emulator core.
        settings: `envs`, `vec_env` ("dummy" or "subproc") and `threads` of PyTorch (None: its default).
        meter: takes a reading after every step.
    """
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    envs = settings["envs"]
    model = DQN(
        "CnnPolicy",
        _environments(core, envs, settings["vec_env"]),
        learning_rate=PRESET.learner.learning_rate,
        buffer_size=PRESET.replay.capacity,
        learning_starts=PRESET.replay.min_size,
        batch_size=BATCH_SIZE,
        gamma=PRESET.agent.gamma,
        # Counted in calls of the environments' step, each of which brings `envs` transitions.
        train_freq=max(1, STEPS_PER_UPDATE // envs),
        gradient_steps=max(1, envs // STEPS_PER_UPDATE),
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        seed=0,
        device="cpu",
    )
    check_network(sum(parameter.numel() for parameter in model.q_net.parameters()))
    try:
        model.learn(total_timesteps=10**9, callback=_Readings(meter))
    finally:
        model.get_env().close()
    return meter.speed()


def _environments(core: str, count: int, kind: str) -> VecEnv:
    makers = [partial(GymnasiumTask, core, seed) for seed in range(count)]
    return SubprocVecEnv(makers) if kind == "subproc" else DummyVecEnv(makers)
