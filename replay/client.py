"""The arithmetic over shards, and the client of shards in the same process."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.types import Batch, Chunk, ShardSample
from replay.decoding import FrameMemory, decode_states, ordinary_memory
from replay.shard import ReplayShard


def importance_weights(
    share: NDArray[np.float64], shard_fraction: NDArray[np.float64], total_size: int, beta: float
) -> NDArray[np.float32]:
    """Importance weights w = (N * P)**-beta / max w of a batch (Schaul et al., 2016, section 3.4).

    Transition i was drawn with probability P(i) = q_k * p_i / T_k, k being its shard.

    Args:
        share: float64 [B], p_i / T_k > 0.
        shard_fraction: float64 [B], q_k, the part of the batch that came from the transition's shard.
        total_size: N, transitions in all shards.
        beta: 0 corrects nothing, 1 fully.

    Returns:
        float32 [B], the largest is 1.
    """
    weights = (total_size * shard_fraction * share) ** -beta
    normalised: NDArray[np.float32] = (weights / weights.max()).astype(np.float32)
    return normalised


def split_evenly(batch_size: int, candidates: Sequence[int], turn: int) -> dict[int, int]:
    """Equal shares of a batch, by shard; shards without any are left out.

    Args:
        batch_size: samples to share out.
        candidates: indices of the shards that can serve them; none: nothing is shared out.
        turn: a counter; the remainder goes to the shards from place `turn` on, so it evens out over the turns.
    """
    if not candidates:
        return {}
    share, remainder = divmod(batch_size, len(candidates))
    shares = dict.fromkeys(candidates, share)
    for place in range(turn, turn + remainder):
        shares[candidates[place % len(candidates)]] += 1
    return {shard: n for shard, n in shares.items() if n > 0}


def plan_draws(
    batch_size: int, shards: Sequence[int], turn: int, can_sample: Callable[[int, int], bool]
) -> dict[int, int]:
    """Equal shares of a batch over the shards that can serve theirs; empty if no full batch can be had.

    Args:
        batch_size: samples to share out.
        shards: indices of the shards to ask.
        turn: a counter, see `split_evenly`.
        can_sample: answers whether shard k can serve n samples now.
    """
    candidates = list(shards)
    while True:
        shares = split_evenly(batch_size, candidates, turn)
        refusing = {shard for shard, n in shares.items() if not can_sample(shard, n)}
        if not refusing:
            return shares
        candidates = [shard for shard in candidates if shard not in refusing]


def merge(
    samples: Sequence[tuple[int, ShardSample]], total_size: int, beta: float, memory: FrameMemory = ordinary_memory
) -> Batch:
    """One batch of all samples, with importance weights by the shards' fractions as really drawn.

    Args:
        samples: pairs of a shard's index and what it answered; a shard may come several times.
        total_size: N, transitions in all shards.
        beta: see `importance_weights`.
        memory: where the frames are written.

    Raises:
        ValueError: a frame is corrupt.
    """
    drawn = [sample for _, sample in samples]
    counts = [len(sample.ids) for sample in drawn]
    shard = np.repeat(np.array([index for index, _ in samples], np.int32), counts)  # [B]
    shard_fraction = np.bincount(shard)[shard] / len(shard)  # [B]
    share = np.concatenate([sample.share for sample in drawn])
    states = decode_states(drawn, memory)
    return Batch(
        frames=states.frames,
        s_tm1=states.s_tm1,
        a_tm1=np.concatenate([sample.a_tm1 for sample in drawn]),
        r_t=np.concatenate([sample.r_t for sample in drawn]),
        discount_t=np.concatenate([sample.discount_t for sample in drawn]),
        s_t=states.s_t,
        weight=importance_weights(share, shard_fraction, total_size, beta),
        ids=np.concatenate([sample.ids for sample in drawn]),
        shard=shard,
        weight_version=np.concatenate([sample.weight_version for sample in drawn]),
    )


def priorities_by_shard(
    batch: Batch, td_errors: NDArray[np.float32]
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """New priorities of a batch, as (ids int64 [n], absolute TD errors float32 [n]) by shard.

    Args:
        batch: what was trained on.
        td_errors: float32 [B], of either sign.

    Raises:
        ValueError: a TD error is not finite.
    """
    if not np.isfinite(td_errors).all():
        raise ValueError("TD errors must be finite")
    priorities = np.abs(td_errors).astype(np.float32)
    masks = {int(shard): batch.shard == shard for shard in np.unique(batch.shard)}
    return {shard: (batch.ids[mask], priorities[mask]) for shard, mask in masks.items()}


class LocalReplay:
    """Client of shards in the same process: serial runs and tests.

    Args:
        shards: the shards; an entry of this list may be replaced from outside.
        batch_size: B; each shard's limiter must allow draws of that many.
        beta: see `importance_weights`.
    """

    def __init__(self, shards: list[ReplayShard], batch_size: int, beta: float) -> None:
        self._shards = shards
        self._batch_size = batch_size
        self._beta = beta
        self._next_push = 0
        self._turn = 0

    @property
    def turns(self) -> tuple[int, int]:
        """Whose turn it is to take a chunk, and to serve a batch's remainder; to be set where a run goes on."""
        return self._next_push, self._turn

    @turns.setter
    def turns(self, turns: tuple[int, int]) -> None:
        self._next_push, self._turn = turns

    def push(self, chunk: Chunk) -> bool:
        """Inserts a chunk into the next shard, round-robin, that accepts it; False if none does."""
        for offset in range(len(self._shards)):
            index = (self._next_push + offset) % len(self._shards)
            if self._shards[index].insert(chunk):
                self._next_push = index + 1
                return True
        return False

    def sample_batch(self) -> Batch | None:
        """A batch in equal parts from the shards that can sample, or None if no full one can be had."""
        shares = plan_draws(
            self._batch_size,
            range(len(self._shards)),
            self._turn,
            lambda shard, n: self._shards[shard].can_sample(n),
        )
        answers = [(shard, self._shards[shard].sample(n)) for shard, n in shares.items()]
        samples = [(shard, sample) for shard, sample in answers if sample is not None]
        if not samples:
            return None
        self._turn += 1
        return merge(samples, sum(shard.size for shard in self._shards), self._beta)

    def update_priorities(self, batch: Batch, td_errors: NDArray[np.float32]) -> None:
        """Sends the new TD errors, float32 [B] of either sign, back to the shards."""
        for shard, (ids, priorities) in priorities_by_shard(batch, td_errors).items():
            self._shards[shard].update_priorities(ids, priorities)
