"""One shard of the replay: a complete prioritized replay with its own frames, sum tree and rate limiter."""

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.compression import blocks_for
from common.types import Chunk, EnvironmentSpec, ShardSample, ShardStats
from replay.frame_store import FrameStore
from replay.rate_limiter import RateLimiter
from replay.snapshot import ShardSnapshot, Tables, check_transitions, newest, undamaged
from replay.sum_tree import SumTree

SEQUENCE_BITS = 40
"""Low bits of a transition's id that hold its sequence number; the bits above hold the shard's incarnation."""

MAX_INCARNATION = (1 << (63 - SEQUENCE_BITS)) - 1
"""The greatest incarnation that fits an id."""

PRIORITY_EPSILON = 1e-6
"""Added to absolute TD errors, so that a transition with none can still be drawn (Schaul et al., 2016, section 3.3)."""


class ReplayShard:
    """Transitions of whole chunks, first in, first out, drawn in proportion to (|TD error| + epsilon) ** alpha.

    A transition's sequence number counts insertions and is never reused; its slot in all arrays is the sequence
    number modulo the capacity, its id is `incarnation << 40 | sequence number`.

    | per slot | dtype | |
    |---|---|---|
    | a_tm1 | int32 | action |
    | r_t | float32 | n-step return |
    | discount_t | float32 | see `common.types.Chunk` |
    | steps | uint8 | from s_tm1 to s_t |
    | weight_version | int32 | of the weights that acted |
    | chunk | int64 | serial number in the frame store |
    | sum tree | float64, 2 to 4 nodes | priority ** alpha |

    Args:
        capacity: transitions held at most.
        spec: the environment's.
        priority_exponent: alpha in 0 … 1; 0 samples uniformly.
        limiter: this shard's own rate limiter.
        seed: of the draws.
        incarnation: how many shards had this place before; ids of earlier incarnations are known as stale.

    Raises:
        ValueError: a setting is out of range, or eviction could leave less than the limiter's `min_size`.
    """

    def __init__(
        self,
        capacity: int,
        spec: EnvironmentSpec,
        priority_exponent: float,
        limiter: RateLimiter,
        seed: np.random.SeedSequence,
        incarnation: int = 0,
    ) -> None:
        if not 0 <= priority_exponent <= 1:
            raise ValueError(f"priority_exponent must be in 0 … 1, not {priority_exponent}")
        if not 0 <= incarnation <= MAX_INCARNATION:
            raise ValueError(f"incarnation must be in 0 … {MAX_INCARNATION}, not {incarnation}")
        smallest = limiter.min_size + limiter.max_insert - 1
        if capacity < smallest:
            raise ValueError(
                f"capacity={capacity} is too small: evicting a chunk of max_insert={limiter.max_insert} could leave "
                f"fewer than min_size={limiter.min_size} transitions; it must be at least {smallest}"
            )
        self._capacity = capacity
        self._spec = spec
        self._alpha = priority_exponent
        self._limiter = limiter
        self._rng = np.random.default_rng(seed)
        self._incarnation = incarnation
        self._oldest = 0  # sequence number of the oldest transition held
        self._next = 0  # sequence number of the next one to come
        self._stale_priority_updates = 0
        self._damaged_chunks = 0
        self._counted = (0, 0, 0)  # what the limiter had counted when this shard was restored
        self._frames = FrameStore(spec)
        self._tree = SumTree(capacity)
        self._a_tm1 = np.zeros(capacity, np.int32)
        self._r_t = np.zeros(capacity, np.float32)
        self._discount_t = np.zeros(capacity, np.float32)
        self._steps = np.zeros(capacity, np.uint8)
        self._weight_version = np.zeros(capacity, np.int32)
        self._chunk = np.zeros(capacity, np.int64)

    @property
    def size(self) -> int:
        """Transitions held."""
        return self._next - self._oldest

    def can_insert(self, n: int) -> bool:
        """Whether the rate limiter would let a chunk of n transitions in now."""
        return self._limiter.can_insert(n)

    def can_sample(self, n: int) -> bool:
        """Whether the rate limiter would let n samples out now."""
        return self._limiter.can_sample(n)

    def insert(self, chunk: Chunk) -> bool:
        """Copies a chunk into this shard's own memory; the oldest chunks make room for it.

        One that is not as it was sealed is left out and counted. It is not asked for again: it may be its actor's
        memory that is damaged.

        Returns:
            False if the rate limiter refused it, nothing was changed, and it is to be sent again.

        Raises:
            ValueError: the chunk contradicts itself or is longer than the limiter's `max_insert`.
        """
        if not chunk.is_intact:
            self._damaged_chunks += 1
            return True
        validate_chunk(chunk, self._spec)
        n = len(chunk)
        if not self._limiter.can_insert(n):
            return False
        while self.size + n > self._capacity:
            self._evict_oldest_chunk()
        slots = self._slots(self._next, n)
        self._a_tm1[slots] = chunk.a_tm1
        self._r_t[slots] = chunk.r_t
        self._discount_t[slots] = chunk.discount_t
        self._steps[slots] = chunk.steps
        self._weight_version[slots] = chunk.weight_version
        self._chunk[slots] = self._frames.append(chunk, self._next)
        self._tree.set(slots, self._to_tree(chunk.priority))
        self._next += n
        self._limiter.insert(n)
        return True

    def sample(self, n: int) -> ShardSample | None:
        """Draws n transitions with replacement, in proportion to their priorities.

        The draws are stratified, one from each n-th part of the priority sum, and come in random order, so that
        each of them alone, and any part of them, is distributed in proportion to the priorities.

        Returns:
            None if the rate limiter refused and nothing was changed.

        Raises:
            ValueError: n is not within the limiter's `max_sample`.
        """
        if not self._limiter.can_sample(n):
            return None
        total = self._tree.total
        strata = self._rng.permutation(n)
        u = np.minimum((strata + self._rng.random(n)) / n, 1.0) * total
        slots = self._tree.sample(u)  # [n]
        sequences = self._oldest + (slots - self._oldest) % self._capacity  # [n]
        states = self._frames.read_states(self._chunk[slots], sequences, self._steps[slots])
        self._limiter.sample(n)
        return ShardSample(
            blocks=states.blocks,
            block_ends=states.block_ends,
            frame_shape=self._spec.frame_shape,
            s_tm1=states.s_tm1,
            a_tm1=self._a_tm1[slots].astype(np.int64),
            r_t=self._r_t[slots],
            discount_t=self._discount_t[slots],
            s_t=states.s_t,
            ids=self._incarnation << SEQUENCE_BITS | sequences,
            share=self._tree.get(slots) / total,
            weight_version=self._weight_version[slots],
            size=self.size,
        )

    def update_priorities(self, ids: NDArray[np.int64], priorities: NDArray[np.float32]) -> None:
        """Takes new absolute TD errors for transitions; those evicted or of another incarnation are counted as stale.

        Args:
            ids: int64 [n] from `sample`; where one repeats, its last priority stays.
            priorities: float32 [n], absolute TD errors.

        Raises:
            ValueError: lengths differ, or a priority is negative or not finite; nothing is changed.
        """
        if ids.shape != priorities.shape:
            raise ValueError(f"{ids.shape} ids for {priorities.shape} priorities")
        if not (np.isfinite(priorities) & (priorities >= 0)).all():
            raise ValueError("priorities must be finite and not negative")
        sequences = ids & ((1 << SEQUENCE_BITS) - 1)
        held = (ids >> SEQUENCE_BITS == self._incarnation) & (sequences >= self._oldest) & (sequences < self._next)
        self._stale_priority_updates += int((~held).sum())
        self._tree.set(sequences[held] % self._capacity, self._to_tree(priorities[held]))

    def snapshot(self) -> ShardSnapshot:
        """All that an equal shard needs to go on exactly as this one; later changes leave it alone."""
        slots = self._slots(self._oldest, self.size)
        chunks, frames = self._frames.snapshot()
        tables = Tables(
            a_tm1=self._a_tm1[slots],
            r_t=self._r_t[slots],
            discount_t=self._discount_t[slots],
            steps=self._steps[slots],
            weight_version=self._weight_version[slots],
            tree=self._tree.get(slots),
            **chunks,
        )
        header = {
            **self._identity(),
            "oldest": self._oldest,
            "limiter": self._limiter.state(),
            "rng": self._rng.bit_generator.state,
        }
        return ShardSnapshot(header, tables, frames)

    def restore(self, snapshot: ShardSnapshot) -> None:
        """Takes another shard's contents in the place of its own; of those beyond the capacity the oldest go.

        Chunks with a damaged block of frames are left out and counted.

        Raises:
            ValueError: they are of another environment or priority exponent, or damaged; nothing is changed.
        """
        header = snapshot.header
        for name, value in self._identity().items():
            if header.get(name) != value:
                raise ValueError(f"it was made with {name} {header.get(name)} instead of {value}")
        check_transitions(snapshot.tables, self._spec, self._priority_range())
        whole, damaged = undamaged(snapshot)
        _, tables, frames = newest(whole, self._capacity)
        limiter, rng = copy.deepcopy(self._limiter), copy.deepcopy(self._rng)
        try:
            oldest = int(header["oldest"]) + len(snapshot.tables.a_tm1) - len(tables.a_tm1)
            limiter.restore(header["limiter"], len(tables.a_tm1))
            rng.bit_generator.state = header["rng"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"its header is damaged ({error!r})") from None
        if not 0 <= oldest < 1 << (SEQUENCE_BITS - 1):
            raise ValueError(f"its header is damaged (oldest is {oldest})")
        self._limiter, self._rng = limiter, rng
        self._oldest, self._next = oldest, oldest + len(tables.a_tm1)
        slots = self._slots(oldest, self.size)
        for name in ("a_tm1", "r_t", "discount_t", "steps", "weight_version"):
            getattr(self, f"_{name}")[slots] = getattr(tables, name)
        self._chunk[slots] = np.repeat(self._frames.restore(tables, frames, oldest), tables.length)
        self._tree = SumTree(self._capacity)
        self._tree.set(slots, tables.tree)
        self._counted = limiter.inserts, limiter.samples, limiter.inserts_while_sampling
        self._damaged_chunks += damaged

    def stats(self) -> ShardStats:
        """Counters since this shard was made; what a restored one had counted before is left out."""
        inserts, samples, inserts_while_sampling = self._counted
        return ShardStats(
            size=self.size,
            capacity=self._capacity,
            bytes=self._nbytes(),
            inserts=self._limiter.inserts - inserts,
            samples=self._limiter.samples - samples,
            inserts_while_sampling=self._limiter.inserts_while_sampling - inserts_while_sampling,
            stale_priority_updates=self._stale_priority_updates,
            damaged_chunks=self._damaged_chunks,
        )

    def check_valid(self) -> tuple[bool, str]:
        """Whether the shard is consistent, and if not, why."""
        for part in (self._tree, self._frames):
            ok, reason = part.check_valid()
            if not ok:
                return False, reason
        if not 0 <= self.size <= self._capacity:
            return False, f"{self.size} transitions at a capacity of {self._capacity}"
        if self._frames.transitions != self.size:
            return False, f"chunks of {self._frames.transitions} transitions instead of {self.size}"
        held = np.zeros(self._capacity, bool)
        held[self._slots(self._oldest, self.size)] = True
        drawable = self._tree.get(np.arange(self._capacity)) > 0
        if (held != drawable).any():
            return False, "a transition held has no priority, or an evicted one still has"
        return True, ""

    def _evict_oldest_chunk(self) -> None:
        n = self._frames.oldest_length
        self._tree.set(self._slots(self._oldest, n), np.zeros(n))
        self._frames.evict_oldest()
        self._oldest += n

    def _slots(self, first_sequence: int, n: int) -> NDArray[np.int64]:
        return np.arange(first_sequence, first_sequence + n) % self._capacity

    def _to_tree(self, priorities: NDArray[np.float32]) -> NDArray[np.float64]:
        leaves: NDArray[np.float64] = (priorities.astype(np.float64) + PRIORITY_EPSILON) ** self._alpha
        return leaves

    def _priority_range(self) -> tuple[float, float]:
        """The least and the most that a priority comes to in the tree, with some room for rounding."""
        least, most = self._to_tree(np.array([0, np.finfo(np.float32).max], np.float32)).tolist()
        return least / 2, most * 2

    def _identity(self) -> dict[str, Any]:
        """What another shard's contents must have been made with."""
        return {
            "frame_shape": list(self._spec.frame_shape),
            "frame_stack": self._spec.frame_stack,
            "actions": list(self._spec.action_names),
            "priority_exponent": self._alpha,
        }

    def _nbytes(self) -> int:
        arrays = (self._a_tm1, self._r_t, self._discount_t, self._steps, self._weight_version, self._chunk)
        return sum(array.nbytes for array in arrays) + self._tree.nbytes + self._frames.nbytes


def validate_chunk(chunk: Chunk, spec: EnvironmentSpec) -> None:
    """Checks that a chunk agrees with itself; frames are not decompressed.

    Raises:
        ValueError: with the reason.
    """
    n = len(chunk)
    if n == 0:
        raise ValueError("chunk without transitions")
    for name in ("a_tm1", "r_t", "discount_t", "steps", "priority", "weight_version"):
        if np.shape(getattr(chunk, name)) != (n,):
            raise ValueError(f"chunk.{name} has the shape {np.shape(getattr(chunk, name))} instead of {(n,)}")
    for name in ("r_t", "discount_t", "priority"):
        if not np.isfinite(getattr(chunk, name)).all():
            raise ValueError(f"chunk.{name} is not finite")
    _check_range("a_tm1", chunk.a_tm1, 0, spec.num_actions - 1)
    _check_range("discount_t", chunk.discount_t, 0, 1)
    _check_range("priority", chunk.priority, 0, np.inf)
    _check_range("steps", chunk.steps, 1, np.iinfo(np.uint8).max)
    _validate_frames(chunk, spec)


def _validate_frames(chunk: Chunk, spec: EnvironmentSpec) -> None:
    if np.ndim(chunk.block_ends) != 1 or len(chunk.block_ends) == 0:
        raise ValueError(f"chunk.block_ends has the shape {np.shape(chunk.block_ends)} instead of (K,)")
    if (np.diff(chunk.block_ends, prepend=0) <= 0).any():
        raise ValueError("chunk.block_ends does not increase")
    if chunk.block_ends[-1] != len(chunk.frames):
        raise ValueError(f"chunk.block_ends ends at {chunk.block_ends[-1]} of {len(chunk.frames)} bytes")
    if not 0 <= chunk.first_state < spec.frame_stack:
        raise ValueError(f"chunk.first_state is {chunk.first_state}, not within 0 … {spec.frame_stack - 1}")
    needed = blocks_for(chunk.num_frames)
    if needed != len(chunk.block_ends):
        raise ValueError(f"chunk has {len(chunk.block_ends)} blocks of frames where its transitions need {needed}")


def _check_range(name: str, values: ArrayLike, low: float, high: float) -> None:
    array = np.asarray(values)
    if (array < low).any() or (array > high).any():
        raise ValueError(f"chunk.{name} is not within {low} … {high}")
