"""What a run's processes take of a machine's memory beside the replay's contents, before any of them is started."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from actors.cores import CoreName, has_saved_states
from actors.remote import EVALUATION_ENVS
from common.config import Config
from common.errors import UserError
from common.precision import uses_bfloat16
from common.types import EnvironmentSpec
from driver.plan import Plan
from learner.feeder import ready_batches

_MIB: Final = 2**20
_GIB: Final = 2**30

# Proportional set sizes of processes, PyTorch and Ray included, with a margin.
_LEARNER_BYTES: Final = 390 * _MIB  # without its batches
_SHARD_BYTES: Final = 150 * _MIB  # without its contents
_PLAYER_BYTES: Final = 260 * _MIB  # an actor or the evaluator, without its environments
# Of one environment with its unfinished chunk and saved states, by emulator core. Measured over actors of 1, 8 and 32
# environments after 200 steps: 4.7 and 1.9 MiB; in the gridworld 0.03.
_ENVIRONMENT_BYTES: Final[dict[CoreName | None, int]] = {"fceumm": 5 * _MIB, "nes-py": 2 * _MIB, None: _MIB // 10}
# More for each further stage: every environment has an emulator for each stage that it came to (2.1 and 0.9 MiB
# measured), and an actor keeps saved states of each, at most 64 before deaths and 8 of each of 50 parts, of 42 KB.
_EMULATOR_BYTES: Final[dict[CoreName | None, int]] = {"fceumm": 3 * _MIB, "nes-py": 1 * _MIB, None: 0}
_SAVED_STARTS_BYTES: Final = 20 * _MIB
_HEIGHTS_BYTES: Final = 48 * _MIB  # at most, for the same parts at three further heights
# What a batch that is trained on takes besides, for each byte of the networks' inputs: activations, gradients and what
# is not given back between updates. Measured on batches of 512 and 2,048: 2.8 to 4.7, by network and precision.
_TRAINING: Final = 5


class Part(NamedTuple):
    """Some of the processes."""

    what: str
    size: int  # bytes
    advice: str  # how they take less


def learner_and_beside(config: Config, plan: Plan, spec: EnvironmentSpec) -> list[Part]:
    """The learner and what shares its node in a cluster."""
    learner, shards = config.learner, config.replay.shards
    evaluator = config.eval.enabled * _player_bytes(EVALUATION_ENVS, plan, config.eval.stages or config.env.stages)
    return [
        Part(
            f"the learner with batches of {learner.batch_size:,}",
            _LEARNER_BYTES + learner.batch_size * _bytes_per_sample(config, plan, spec),
            "lower --learner.batch-size or --learner.prefetch",
        ),
        Part(_count(shards, "empty replay shard"), shards * _SHARD_BYTES, "lower --replay.shards"),
        Part("the evaluator", evaluator, "leave it out with --eval.no-enabled"),
    ]


def whole_machine(config: Config, plan: Plan, spec: EnvironmentSpec) -> list[Part]:
    """All of a private Ray's."""
    envs, store = config.actors.envs_per_actor, config.ray.object_store_mb
    return [
        *learner_and_beside(config, plan, spec),
        Part(
            f"{_count(plan.actors, 'actor')} of {_count(envs, 'environment')}",
            plan.actors * (_player_bytes(envs, plan, config.env.stages) + _further_saved_starts(config, plan)),
            "lower --actors.count or --actors.envs-per-actor",
        ),
        Part("the object store", store * _MIB, "lower --ray.object-store-mb"),
    ]


def room_for_replay(parts: Sequence[Part], available_bytes: int) -> int:
    """Bytes that the parts leave for what the replay holds.

    Raises:
        UserError: none, with the largest part and what to do about it.
    """
    room = available_bytes - sum(part.size for part in parts)
    if room > 0:
        return room
    largest = max(parts, key=lambda part: part.size)
    raise UserError(
        f"beside the replay's contents the run takes {(available_bytes - room) / _GIB:.1f} GiB of memory, but "
        f"{available_bytes / _GIB:.1f} GiB are available; {largest.size / _GIB:.1f} are for {largest.what}: "
        f"{largest.advice}"
    )


def _player_bytes(environments: int, plan: Plan, stages: Sequence[str]) -> int:
    further = (len(stages) - 1) * _EMULATOR_BYTES[plan.core]
    return _PLAYER_BYTES + environments * (_ENVIRONMENT_BYTES[plan.core] + further)


def _further_saved_starts(config: Config, plan: Plan) -> int:
    has_them = plan.core is not None and has_saved_states(plan.core) and config.actors.saved_starts != 0
    stages = len(config.env.stages)
    heights = stages * _HEIGHTS_BYTES if config.actors.saved_start_heights else 0
    return has_them * ((stages - 1) * _SAVED_STARTS_BYTES + heights)


def _bytes_per_sample(config: Config, plan: Plan, spec: EnvironmentSpec) -> int:
    """What the learner's process takes more for each transition that batches are larger by."""
    states = 2 * math.prod(spec.state_shape)  # s_tm1 and s_t, a byte a pixel, as if no two shared a frame
    on_their_way, ready = config.learner.prefetch, ready_batches(config.learner.prefetch)
    if plan.learner_device == "cuda":  # two batches under way; the networks' inputs are in the GPU's memory
        return states * (on_their_way + ready + 2)
    width = 2 if uses_bfloat16(config.learner.precision, torch.device("cpu")) else 4
    return states * (on_their_way + ready * (1 + width) + _TRAINING * width)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
