"""Episodes of real frames for the replay's benchmarks, and the chunks that an actor would push for them."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from actors.chunks import ChunkBuilder
from actors.environment import environment_spec, make_environment
from common.config import ActorsConfig, AgentConfig
from common.errors import UserError
from common.types import Chunk, EnvironmentSpec

STAGES: Final = ("1-1", "1-2", "1-3", "1-4", "2-1", "2-2", "3-1", "4-1", "5-1", "6-2", "7-1", "8-1")
_MAX_STEPS: Final = 400
_CHANGE_ACTION: Final = 0.3
_ACTION_SHARES: Final = (0.04, 0.3, 0.26, 0.2, 0.2)  # of RIGHT_ONLY: mostly to the right, as any policy soon does


@dataclass(frozen=True)
class Recording:
    """An episode of L steps as it was played."""

    frames: NDArray[np.uint8]  # [L + 1, 84, 84]
    actions: NDArray[np.int64]  # [L]
    rewards: NDArray[np.float32]  # [L]

    def states(self, stack: int) -> NDArray[np.uint8]:
        """All states, uint8 [L + 1, S, 84, 84], zeros before the first frame."""
        padded = np.concatenate([np.zeros((stack - 1, *self.frames.shape[1:]), np.uint8), self.frames])
        windows = np.lib.stride_tricks.sliding_window_view(padded, stack, axis=0)  # [L + 1, 84, 84, S]
        return np.ascontiguousarray(np.moveaxis(windows, -1, 1))


def spec() -> EnvironmentSpec:
    """Of the recordings."""
    return environment_spec()


def play(transitions: int, seed: int = 0) -> list[Recording]:
    """Plays the stages in turn, with random actions that are held for about three steps, for so many steps."""
    rng = np.random.default_rng(seed)
    env = make_environment(stages=STAGES, max_steps=_MAX_STEPS, seed=seed)
    recordings: list[Recording] = []
    while sum(len(recording.actions) for recording in recordings) < transitions:
        state, _ = env.reset(options={"stage": STAGES[len(recordings) % len(STAGES)]})
        frames, actions, rewards, over = [state[-1].copy()], [1], [0.0], False
        while not over:
            action = int(rng.choice(5, p=_ACTION_SHARES)) if rng.random() < _CHANGE_ACTION else actions[-1]
            state, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            frames.append(state[-1].copy())
            actions.append(action)
            rewards.append(reward)
        recordings.append(Recording(np.stack(frames), np.array(actions[1:]), np.array(rewards[1:], np.float32)))
    env.close()
    return recordings


def save(path: Path, recordings: list[Recording]) -> None:
    """Writes recordings that `load` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        lengths=np.array([len(recording.actions) for recording in recordings]),
        frames=np.concatenate([recording.frames for recording in recordings]),
        actions=np.concatenate([recording.actions for recording in recordings]),
        rewards=np.concatenate([recording.rewards for recording in recordings]),
    )


def load(path: Path) -> list[Recording]:
    """Reads what `save` wrote.

    Raises:
        UserError: the file is none.
    """
    try:
        with np.load(path) as file:
            lengths, frames, actions, rewards = (file[name] for name in ("lengths", "frames", "actions", "rewards"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no recordings; remove it, and it is played anew") from error
    ends = np.cumsum(lengths)
    parts = zip(
        np.split(frames, (ends + np.arange(1, len(ends) + 1))[:-1]),
        np.split(actions, ends[:-1]),
        np.split(rewards, ends[:-1]),
        strict=True,
    )
    return [Recording(*part) for part in parts]


def build_chunks(recordings: list[Recording], seed: int = 0) -> Iterator[Chunk]:
    """The chunks of an actor with the default settings; Q-values, and so the priorities, are random."""
    rng = np.random.default_rng(seed)
    agent, actors = AgentConfig(), ActorsConfig()
    for recording in recordings:
        builder = ChunkBuilder(
            n_step=agent.n_step,
            gamma=agent.gamma,
            reward_scale=agent.reward_scale,
            frame_stack=spec().frame_stack,
            chunk_length=actors.chunk_length,
            actor=0,
        )
        builder.begin(recording.frames[:1])
        last = len(recording.actions) - 1
        for step, (action, reward) in enumerate(zip(recording.actions, recording.rewards, strict=True)):
            chunk = builder.bootstrap(float(rng.normal()))
            if chunk is not None:
                yield chunk
            builder.add(
                action=int(action),
                q_tm1=float(rng.normal()),
                weight_version=0,
                reward=float(reward),
                frame=recording.frames[step + 1],
                ending="terminated" if step == last else None,
            )
        yield builder.end(0.0)
