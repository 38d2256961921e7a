"""What happened since the last line of progress."""

import math
from dataclasses import dataclass, field
from statistics import fmean

from actors.remote import ActorReport
from common.types import Episode
from learner.remote import LearnerReport


@dataclass
class Window:
    """Sums from one line of progress to the next, which starts a new window."""

    seconds: float = 0.0
    env_steps: int = 0
    updates: int = 0
    samples: int = 0
    learner_seconds: float = 0.0
    learner_waited_s: float = 0.0
    learning_rate: float = math.nan  # the newest
    lost_priority_updates: int = 0  # since the run's processes were started
    actor_seconds: float = 0.0
    actor_waited_s: float = 0.0
    episodes: list[Episode] = field(default_factory=list)  # from a stage's start
    saved_starts: list[Episode] = field(default_factory=list)
    _stage_shares: dict[int, dict[str, float]] = field(default_factory=dict)  # the newest, by actor
    _learner_sums: dict[str, float] = field(default_factory=dict)

    def take_actor(self, report: ActorReport) -> None:
        """Adds an actor's slice."""
        self.env_steps += report.env_steps
        self.actor_seconds += report.seconds
        self.actor_waited_s += report.waited_s
        self.episodes.extend(report.episodes)
        self.saved_starts.extend(report.saved_starts)
        self._stage_shares[report.actor] = report.stage_shares

    def take_learner(self, report: LearnerReport) -> None:
        """Adds a slice of the learner."""
        self.updates += report.updates
        self.samples += report.samples
        self.learner_seconds += report.seconds
        self.learner_waited_s += report.waited_s
        self.learning_rate = report.learning_rate
        self.lost_priority_updates = report.lost_priority_updates
        if report.updates:
            for name in ("loss", "td_error", "q_mean", "grad_norm", "policy_lag"):
                total = self._learner_sums.get(name, 0.0) + getattr(report, name) * report.updates
                self._learner_sums[name] = total

    @property
    def stage_shares(self) -> dict[str, float]:
        """The stages' chances in the actors' next draws, mean over the actors; empty before their first report."""
        actors = list(self._stage_shares.values())
        return {stage: fmean(shares[stage] for shares in actors) for stage in (actors[0] if actors else ())}

    def learner_mean(self, name: str) -> float:
        """Mean over the window's updates, NaN without one."""
        return self._learner_sums[name] / self.updates if self.updates else math.nan

    def per_second(self, amount: float) -> float:
        """A rate over the window."""
        return amount / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_fraction(self) -> float:
        """Share of the learner's time spent waiting for batches."""
        return self.learner_waited_s / self.learner_seconds if self.learner_seconds > 0 else 0.0

    @property
    def actor_wait_fraction(self) -> float:
        """Share of the actors' time spent waiting for the replay."""
        return self.actor_waited_s / self.actor_seconds if self.actor_seconds > 0 else 0.0
