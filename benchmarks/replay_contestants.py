"""Replay buffers to compare with, each behind the same three calls: add, sample, update priorities.

All hold transitions between states of four frames, and give both states of each sampled transition as stacked `uint8`
arrays or tensors. Each is set up for the least memory that its documentation knows of.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from benchmarks.replay_frames import Recording, build_chunks, spec
from common.compression import compress_frames
from replay.client import LocalReplay
from replay.rate_limiter import RateLimiter
from replay.shard import ReplayShard

STACK: Final = 4
_STATE_BYTES: Final = STACK * 84 * 84
_SMALL_BYTES: Final = 64  # the largest of what they take beside the frames
_ALPHA, _BETA, _EPSILON = 0.6, 0.4, 1e-6


class Contestant(Protocol):
    """A buffer in this process."""

    def prepare(self, recording: Recording) -> Any:
        """What `add` takes, ready made: states stacked as an environment gives them. Not timed."""

    def add(self, prepared: Any) -> None:
        """Inserts an episode's transitions. Timed."""

    def sample(self, n: int) -> Any:
        """Draws n transitions. Timed."""

    def update(self, sample: Any, priorities: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """New priorities for a sample; nothing in a buffer without priorities. Timed."""


class ApexMario:
    """Ours: a shard, with compression at one end and expansion and stacking at the other."""

    def __init__(self, capacity: int) -> None:
        limiter = RateLimiter(1.0, 1, 1e15, 100, 100_000)
        self._shard = ReplayShard(capacity, spec(), _ALPHA, limiter, np.random.SeedSequence(0))
        self._replay = LocalReplay([self._shard], 512, _BETA)

    def prepare(self, recording: Recording) -> Any:
        start, prepared = 0, []
        for chunk in build_chunks([recording]):
            first = start - chunk.first_state
            prepared.append((chunk, list(recording.frames[first : first + chunk.num_frames])))
            start += len(chunk)
        return prepared

    def add(self, prepared: Any) -> None:
        for chunk, frames in prepared:
            data, ends = compress_frames(frames)
            self._replay.push(dataclasses.replace(chunk, frames=data, block_ends=ends).sealed())

    def sample(self, n: int) -> Any:
        batch = self._replay.sample_batch()
        assert batch is not None
        return batch, batch.stack(batch.s_tm1), batch.stack(batch.s_t)

    def update(self, sample: Any, priorities: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self._replay.update_priorities(sample[0], priorities)


class StableBaselines3:
    """`ReplayBuffer`, uniform, each state once (`optimize_memory_usage`)."""

    def __init__(self, capacity: int) -> None:
        from gymnasium import spaces
        from stable_baselines3.common.buffers import ReplayBuffer

        self._buffer: Any = ReplayBuffer(
            capacity,
            spaces.Box(0, 255, (STACK, 84, 84), np.uint8),
            spaces.Discrete(5),
            device="cpu",
            optimize_memory_usage=True,
            handle_timeout_termination=False,  # which it does not offer together with the option above
        )

    def prepare(self, recording: Recording) -> Any:
        states = recording.states(STACK)
        last = len(recording.actions) - 1
        return [
            (states[[t]], states[[t + 1]], recording.actions[[t]], recording.rewards[[t]], np.array([t == last]))
            for t in range(last + 1)
        ]

    def add(self, prepared: Any) -> None:
        for s_tm1, s_t, action, reward, over in prepared:
            self._buffer.add(s_tm1, s_t, action, reward, over, [{}])

    def sample(self, n: int) -> Any:
        return self._buffer.sample(n)

    def update(self, sample: Any, priorities: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        pass


class TorchRL:
    """`TensorDictPrioritizedReplayBuffer` on a `LazyTensorStorage`, both states of each transition."""

    def __init__(self, capacity: int) -> None:
        from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer

        self._buffer: Any = TensorDictPrioritizedReplayBuffer(
            alpha=_ALPHA, beta=_BETA, eps=_EPSILON, storage=LazyTensorStorage(capacity), batch_size=512
        )

    def prepare(self, recording: Recording) -> Any:
        import torch
        from tensordict import TensorDict

        states = torch.from_numpy(recording.states(STACK))
        n = len(recording.actions)
        over = torch.zeros(n, 1, dtype=torch.bool)
        over[-1] = True
        after = {"pixels": states[1:], "reward": torch.from_numpy(recording.rewards)[:, None], "done": over}
        content = {"pixels": states[:-1], "action": torch.from_numpy(recording.actions), "next": after}
        return TensorDict(content, [n])

    def add(self, prepared: Any) -> None:
        self._buffer.extend(prepared)

    def sample(self, n: int) -> Any:
        return self._buffer.sample()

    def update(self, sample: Any, priorities: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        import torch

        sample["td_error"] = torch.from_numpy(priorities)
        self._buffer.update_tensordict_priority(sample)


class Cpprb:
    """`PrioritizedReplayBuffer` with `next_of` and `stack_compress`: each frame once, uncompressed."""

    def __init__(self, capacity: int) -> None:
        from cpprb import PrioritizedReplayBuffer

        states = {"shape": (84, 84, STACK), "dtype": np.uint8}
        fields = {"obs": states, "act": {"dtype": np.int32}, "rew": {}, "done": {}}
        self._buffer: Any = PrioritizedReplayBuffer(
            capacity, fields, next_of="obs", stack_compress="obs", alpha=_ALPHA, eps=_EPSILON
        )

    def prepare(self, recording: Recording) -> Any:
        states = np.ascontiguousarray(np.moveaxis(recording.states(STACK), 1, -1))
        done = np.zeros(len(recording.actions))
        done[-1] = 1
        return {
            "obs": states[:-1],
            "next_obs": states[1:],
            "act": recording.actions,
            "rew": recording.rewards,
            "done": done,
        }

    def add(self, prepared: Any) -> None:
        self._buffer.add(**prepared)
        self._buffer.on_episode_end()

    def sample(self, n: int) -> Any:
        return self._buffer.sample(n, _BETA)

    def update(self, sample: Any, priorities: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self._buffer.update_priorities(sample["indexes"], priorities)


CONTESTANTS: Final[dict[str, tuple[Callable[[int], Contestant], int]]] = {
    "apex-mario": (ApexMario, 1_200),
    "stable-baselines3": (StableBaselines3, _STATE_BYTES + _SMALL_BYTES),
    "torchrl": (TorchRL, 2 * _STATE_BYTES + _SMALL_BYTES),
    "cpprb": (Cpprb, _STATE_BYTES // STACK + _SMALL_BYTES),
}
"""By name: how to make one, and the bytes that a transition is expected to take, which size it to the memory."""
