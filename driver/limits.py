"""When a run ends by itself."""

from dataclasses import dataclass

from common.config import Config
from driver.counters import Counters

DEFAULT_MINUTES = 30.0  # of a run that was given no limit


@dataclass(frozen=True)
class Limits:
    """The run's ends; the first one that is reached counts."""

    env_steps: int | None
    episodes: int | None
    updates: int | None
    time_s: float | None

    @staticmethod
    def of(config: Config) -> "Limits":
        """The configured limits, or 30 minutes if there is none."""
        minutes = config.max_minutes
        if (config.total_env_steps, config.max_episodes, config.max_updates, minutes) == (None, None, None, None):
            minutes = DEFAULT_MINUTES
        time_s = None if minutes is None else minutes * 60
        return Limits(config.total_env_steps, config.max_episodes, config.max_updates, time_s)

    def reached(self, counters: Counters) -> str | None:
        """What ended the run, in words, or None."""
        for name, value, limit in self._progress(counters):
            if value >= limit:
                amount = f"{limit / 60:g} minutes" if name == "time" else f"{limit:,.0f} {name}"
                return f"the limit of {amount} is reached"
        return None

    def raised(self, counters: Counters) -> str:
        """The option that lets a run that has reached a limit go on for as long again; empty if it has not."""
        if self.time_s is not None and counters.time_s >= self.time_s:
            return f"--max-minutes {2 * self.time_s / 60:g}"
        if self.env_steps is not None and counters.env_steps >= self.env_steps:
            return f"--total-env-steps {2 * self.env_steps}"
        if self.episodes is not None and counters.episodes >= self.episodes:
            return f"--max-episodes {2 * self.episodes}"
        if self.updates is not None and counters.updates >= self.updates:
            return f"--max-updates {2 * self.updates}"
        return ""

    def fraction(self, counters: Counters) -> float:
        """How much of the run is done, 0 … 1, by the limit that is nearest; 0 without any."""
        return min(1.0, max((value / limit for _, value, limit in self._progress(counters)), default=0.0))

    def remaining_env_steps(self, counters: Counters) -> int | None:
        """Agent steps left, None if they are not limited."""
        return None if self.env_steps is None else max(0, self.env_steps - counters.env_steps)

    def remaining_updates(self, counters: Counters) -> int | None:
        """Updates left, None if they are not limited."""
        return None if self.updates is None else max(0, self.updates - counters.updates)

    def _progress(self, counters: Counters) -> list[tuple[str, float, float]]:
        every = [
            ("env steps", counters.env_steps, self.env_steps),
            ("episodes", counters.episodes, self.episodes),
            ("updates", counters.updates, self.updates),
            ("time", counters.time_s, self.time_s),
        ]
        return [(name, float(value), float(limit)) for name, value, limit in every if limit is not None]
