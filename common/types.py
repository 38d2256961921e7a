"""The records that cross from one role to another, with their shapes and dtypes.

Time is in the name, as in dqn_zoo: a transition is `s_tm1, a_tm1, r_t, discount_t, s_t`.
`F` is the shape of one frame, (84, 84) for Mario; a state is `S` frames, oldest first: [S, *F].
"""

import zlib
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BUTTON_PIXELS: Final = 4
"""Side of the square that shows one button at the upper edge of a frame; the first layer's filters move by as much."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What the networks, the replay and the actors need to know of an environment.

    Attributes:
        frame_shape: shape F of one `uint8` frame; two axes mean an image, one a vector.
        frame_stack: S, frames in a state. States before the S-th frame of an episode are padded with zeros.
        action_names: one readable name per action, such as "right+A".
    """

    frame_shape: tuple[int, ...]
    frame_stack: int
    action_names: tuple[str, ...]

    @property
    def num_actions(self) -> int:
        """A, the number of discrete actions."""
        return len(self.action_names)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """[S, *F]."""
        return (self.frame_stack, *self.frame_shape)


@dataclass(frozen=True)
class Chunk:
    """Consecutive transitions of one environment's episode, each frame once: what an actor pushes.

    Self-contained: up to S-1 frames before the first transition's, up to n after the last one's. No
    padding frame is stored: a state whose index is less than S-1 is padded with zeros, which is right
    because a chunk that starts later in its episode carries its S-1 earlier frames.

    `T` transitions, `M` frames. Transition j starts in the state whose newest frame is
    `first_state + j` and bootstraps from the state whose newest frame is `first_state + j + steps[j]`.

    Attributes:
        frames: the M frames in K compressed blocks, one after the other (see `common.compression`).
        block_ends: int32 [K], where each block ends in `frames`.
        first_state: position among the M frames of the first transition's newest frame.
        a_tm1: int32 [T].
        r_t: float32 [T], discounted sum of the window's rewards, scaled as the learner wants them.
        discount_t: float32 [T], gamma**steps (with tree backup less: see `actors.n_step`), or 0 where the episode
            terminated within the window.
        steps: uint8 [T], rewards in the window, 1 … n.
        priority: float32 [T], absolute TD error by the actor's own Q-values, before any exponent.
        weight_version: int32 [T], version of the weights that chose a_tm1.
        actor: index of the actor.
        checksum: CRC-32 of all the others, which `sealed` makes; shards leave a chunk out where it is wrong.
    """

    frames: bytes
    block_ends: NDArray[np.int32]
    first_state: int
    a_tm1: NDArray[np.int32]
    r_t: NDArray[np.float32]
    discount_t: NDArray[np.float32]
    steps: NDArray[np.uint8]
    priority: NDArray[np.float32]
    weight_version: NDArray[np.int32]
    actor: int
    checksum: int = 0

    def __len__(self) -> int:
        return len(self.a_tm1)

    def sealed(self) -> "Chunk":
        """The same chunk with the checksum of what it holds now."""
        return replace(self, checksum=self._crc())

    @property
    def is_intact(self) -> bool:
        """Whether it holds what it held when it was sealed."""
        return self.checksum == self._crc()

    @property
    def num_frames(self) -> int:
        """M, what the transitions need."""
        return self.first_state + int((np.arange(len(self)) + self.steps).max()) + 1

    def _crc(self) -> int:
        of_transitions = (self.a_tm1, self.r_t, self.discount_t, self.steps, self.priority, self.weight_version)
        crc = zlib.crc32(self.frames, zlib.crc32(f"{self.first_state} {self.actor}".encode()))
        for array in (self.block_ends, *of_transitions):
            crc = zlib.crc32(array.data, crc)
        return crc


class ShardSample(NamedTuple):
    """What one shard answers to a sample request for n transitions.

    The frames travel as they lie in the shard, in compressed blocks, each block once. Frame i of block k has the number
    `k * FRAMES_PER_BLOCK + i` (see `common.compression`); -1 stands for a frame before the episode's first, all zeros.
    """

    blocks: NDArray[np.uint8]  # the K blocks one after the other
    block_ends: NDArray[np.int64]  # [K], where each block ends in `blocks`
    frame_shape: tuple[int, ...]  # F
    s_tm1: NDArray[np.int32]  # [n, S], frame numbers
    a_tm1: NDArray[np.int64]  # [n]
    r_t: NDArray[np.float32]  # [n]
    discount_t: NDArray[np.float32]  # [n]
    s_t: NDArray[np.int32]  # [n, S], frame numbers
    ids: NDArray[np.int64]  # [n], never reused, carries the shard's incarnation
    share: NDArray[np.float64]  # [n], p_i / T_k at this draw
    weight_version: NDArray[np.int32]  # [n]
    size: int  # transitions that the shard held at this draw


class Batch(NamedTuple):
    """A learner's batch, drawn from one or several shards.

    Each frame is there once; states are stacked from them where they are needed, on the learner's device.
    """

    frames: NDArray[np.uint8]  # [M, *F]; row 0 is all zeros, the frame before an episode's first
    s_tm1: NDArray[np.int32]  # [B, S], rows of `frames`
    a_tm1: NDArray[np.int64]  # [B]
    r_t: NDArray[np.float32]  # [B]
    discount_t: NDArray[np.float32]  # [B]
    s_t: NDArray[np.int32]  # [B, S], rows of `frames`
    weight: NDArray[np.float32]  # [B], importance weights, the largest is 1
    ids: NDArray[np.int64]  # [B]
    shard: NDArray[np.int32]  # [B], index of the shard that each came from
    weight_version: NDArray[np.int32]  # [B]

    def stack(self, rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The states [B, S, *F] of `s_tm1` or `s_t`, stacked on the CPU."""
        states: NDArray[np.uint8] = self.frames[rows]
        return states


class Weights(NamedTuple):
    """A snapshot of the online network.

    Version 0 is the network as it was initialised; it grows with each broadcast and never goes back.
    """

    version: int
    updates: int  # learner updates behind it, which a decaying exploration schedule counts
    backup_epsilon: float  # the target policy's in returns that are summed by tree backup; 0 where they are not
    flat: NDArray[np.float32]  # [P], parameters in `state_dict` order


@dataclass(frozen=True)
class ShardStats:
    """Counters of one shard since it was made."""

    size: int  # transitions held
    capacity: int  # transitions
    bytes: int  # all-in, of frames, per-transition arrays and the tree
    inserts: int  # transitions
    samples: int  # transitions
    inserts_while_sampling: int  # transitions inserted since the limiter first let samples out
    stale_priority_updates: int  # priority updates that came after the transition's eviction
    damaged_chunks: int = 0  # left out, on arrival or of a snapshot, because a checksum was wrong


@dataclass(frozen=True)
class Episode:
    """One finished training or evaluation episode."""

    stage: str  # "1-1" … "8-4", or "game"
    episode_return: float  # undiscounted sum of the environment's own rewards, unscaled
    length: int  # agent steps
    x_pos: int  # largest horizontal position reached, pixels
    final_x: int  # horizontal position at the end, pixels
    time_left: int  # game clock at the end
    clear: bool  # the flag or the axe was reached; in "game", at least one stage was
    stages_cleared: int  # 0 or 1 for a single stage
    truncated: bool  # ended by the step limit
    epsilon: float
    actor: int = 0
    first_update: int = 0  # learner updates behind the weights at its start
    last_update: int = 0  # and at its end
    saved_start: bool = False  # began within the stage, at a state saved before a death
