"""The run's counters: over its whole life, resumes included, and owned by the driver."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from common.errors import UserError
from common.types import ShardStats

_MOST: Final = 2**62
_MOST_VERSIONS: Final = 2**30  # transitions have them in 32 bits; as many again may come
MOST_SESSIONS: Final = 8_000
"""Resumes of a run: each takes a thousand of the numbers by which the ids of replay shards' transitions differ."""


@dataclass
class Counters:
    """Totals that a checkpoint carries."""

    time_s: float = 0.0  # of running, wall clock
    env_steps: int = 0  # agent decisions
    episodes: int = 0
    updates: int = 0
    samples: int = 0  # transitions that the learner trained on
    replay_samples: int = 0  # transitions drawn from the shards, prefetched ones included
    replay_inserts: int = 0  # transitions inserted since sampling began
    weight_version: int = 0
    sessions: int = 0  # resumes so far
    restarts: dict[str, int] = field(default_factory=dict)  # by role

    def samples_per_insert(self) -> float:
        """Samples over inserts since sampling began; 0 before."""
        return self.replay_samples / self.replay_inserts if self.replay_inserts else 0.0

    def restarts_total(self) -> int:
        """Processes replaced, of all roles."""
        return sum(self.restarts.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Counters":
        """The opposite of `to_json`; UserError where it is not that."""
        names = {entry.name for entry in fields(Counters)}
        if set(values) != names:
            raise UserError(f"the checkpoint's counters are not of this version: {sorted(names ^ set(values))}")
        counts = {name: value for name, value in values.items() if name not in ("time_s", "restarts")}
        restarts = values["restarts"]
        if not isinstance(restarts, dict):
            raise UserError(f"the checkpoint's counters are damaged: restarts is {restarts!r}")
        for name, value in {**counts, **restarts}.items():
            if type(value) is not int or not 0 <= value < _MOST:
                raise UserError(f"the checkpoint's counters are damaged: {name} is {value!r}")
        if type(values["time_s"]) not in (int, float) or not 0 <= values["time_s"] < _MOST:
            raise UserError(f"the checkpoint's counters are damaged: time_s is {values['time_s']!r}")
        if counts["weight_version"] >= _MOST_VERSIONS:
            raise UserError(f"the checkpoint's counters are damaged: weight_version is {counts['weight_version']}")
        if counts["sessions"] > MOST_SESSIONS:
            raise UserError(f"the run was resumed {MOST_SESSIONS:,} times; start a new one")
        return Counters(**values)


class ShardTotals:
    """Sums of the shards' counters on top of what earlier sessions counted."""

    def __init__(self, counters: Counters) -> None:
        self._samples_before = counters.replay_samples
        self._inserts_before = counters.replay_inserts
        self._damaged_before = 0
        self._latest: dict[int, ShardStats] = {}

    def take(self, shard: int, stats: ShardStats, counters: Counters) -> None:
        """Keeps a shard's newest figures and brings the run's counters up to date."""
        self._latest[shard] = stats
        counters.replay_samples = self._samples_before + sum(s.samples for s in self._latest.values())
        counters.replay_inserts = self._inserts_before + sum(s.inserts_while_sampling for s in self._latest.values())

    def replaced(self, shard: int) -> None:
        """Another process takes a shard's place and counts from zero; what this one counted stays."""
        if (stats := self._latest.pop(shard, None)) is not None:
            self._samples_before += stats.samples
            self._inserts_before += stats.inserts_while_sampling
            self._damaged_before += stats.damaged_chunks

    @property
    def size(self) -> int:
        """Transitions held."""
        return sum(stats.size for stats in self._latest.values())

    @property
    def bytes(self) -> int:
        """Memory of all shards' contents."""
        return sum(stats.bytes for stats in self._latest.values())

    @property
    def stale_priority_updates(self) -> int:
        """Priority updates that came too late."""
        return sum(stats.stale_priority_updates for stats in self._latest.values())

    @property
    def damaged_chunks(self) -> int:
        """Chunks that shards left out in this session because a checksum was wrong."""
        return self._damaged_before + sum(stats.damaged_chunks for stats in self._latest.values())
