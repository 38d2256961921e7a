"""RLlib's DQN on the task: new API stack, prioritized episode replay, env runners."""

import logging
import os
import tempfile
import time
from typing import Any

import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune import register_env

from benchmarks.peers_gymnasium import GymnasiumTask
from benchmarks.peers_meter import Meter, Speed
from benchmarks.peers_task import (
    BATCH_SIZE,
    EPSILON,
    PRESET,
    SAMPLES_PER_TRANSITION,
    check_network,
)

_READING_S = 2.0  # RLlib's iteration, after which its counters are up to date


class ByteImages(DefaultDQNTorchRLModule):
    """RLlib's own DQN module for images that travel and are stored as bytes.

    RLlib's default networks do not scale images; its Atari wrapper has the environment make them float32, which is
    four times the bytes to stack, ship and store, and slower.
    """

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        scaled = {**batch, Columns.OBS: batch[Columns.OBS].float() / 255}
        outputs: dict[str, Any] = super()._qf_forward_helper(scaled, encoder, head)
        return outputs


def measure(core: str, settings: dict[str, Any], meter: Meter) -> Speed:
    """Trains until the meter has what it needs.

    Args:
        core: emulator core.
        settings: `runners` (0: the environments are in the learner's process), `envs` per runner, `fragment`, the
            steps of each environment between two rounds of training, and `threads` of PyTorch in the learner's
            process (None: its default).
        meter: takes a reading about every two seconds.
    """
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    with tempfile.TemporaryDirectory(prefix="apex-mario-peers-") as folder:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            _train(_config(core, settings).build_algo(), meter)
        finally:
            ray.shutdown()
    return meter.speed()


def _train(algorithm: Any, meter: Meter) -> None:
    check_network(_parameters(algorithm.get_module(DEFAULT_MODULE_ID)))
    transitions = samples = 0
    while meter.read(time.perf_counter(), transitions, samples):
        result = algorithm.train()
        transitions = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
        learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        samples = int(learner.get("num_module_steps_trained_lifetime", 0))


def _config(core: str, settings: dict[str, Any]) -> DQNConfig:
    register_env("mario", lambda config: GymnasiumTask(config["core"], config.worker_index, channels_last=True))
    runners = settings["runners"]
    return (
        DQNConfig()
        .environment("mario", env_config={"core": core})
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=settings["envs"],
            rollout_fragment_length=settings["fragment"],
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ByteImages,
                model_config=DefaultModelConfig(
                    conv_filters=[[32, 8, 4, "valid"], [64, 4, 2, "valid"], [64, 3, 1, "valid"]],
                    head_fcnet_hiddens=[512],
                ),
            )
        )
        .training(
            lr=PRESET.learner.learning_rate,
            gamma=PRESET.agent.gamma,
            train_batch_size_per_learner=BATCH_SIZE,
            num_steps_sampled_before_learning_starts=PRESET.replay.min_size,
            # RLlib 2.60 divides this by one runner more than there are as soon as there is one.
            training_intensity=SAMPLES_PER_TRANSITION * max(runners, 1) / (runners + 1),
            dueling=False,
            double_q=PRESET.agent.double,
            epsilon=EPSILON,
            replay_buffer_config={
                "type": "PrioritizedEpisodeReplayBuffer",
                "capacity": PRESET.replay.capacity,
                "alpha": PRESET.replay.priority_exponent,
                "beta": PRESET.replay.importance_exponent,
            },
        )
        .reporting(min_time_s_per_iteration=_READING_S, min_sample_timesteps_per_iteration=0)
    )


def _parameters(module: Any) -> int:
    """Of the online network alone."""
    return sum(parameter.numel() for part in (module.encoder, module.af) for parameter in part.parameters())
