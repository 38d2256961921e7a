"""Which stage the next episode plays."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

# A stage's weight in the draw is this plus its failure rate: one that is always cleared keeps a tenth of the chance of
# one that never is.
_LEAST_WEIGHT: Final = 0.1
_EPISODES: Final = 10  # that the mean goes back over, roughly


class StageSampler:
    """Draws stages the more often, the more often one actor's less exploring episodes failed to clear them.

    Args:
        stages: to draw from; all begin as never cleared.
        rng: random numbers of its own.
    """

    def __init__(self, stages: Sequence[str], rng: np.random.Generator) -> None:
        self._stages = tuple(stages)
        self._rng = rng
        self._failures = dict.fromkeys(self._stages, 1.0)

    @property
    def shares(self) -> dict[str, float]:
        """The stages' chances in the next draw."""
        weights = {stage: _LEAST_WEIGHT + failures for stage, failures in self._failures.items()}
        total = sum(weights.values())
        return {stage: weight / total for stage, weight in weights.items()}

    def draw(self) -> str:
        """The next episode's stage."""
        if len(self._stages) == 1:
            return self._stages[0]
        return self._stages[int(self._rng.choice(len(self._stages), p=list(self.shares.values())))]

    def learn(self, stage: str, *, clear: bool) -> None:
        """Takes note of an episode from a stage's start."""
        self._failures[stage] += (float(not clear) - self._failures[stage]) / _EPISODES

    def state_dict(self) -> dict[str, Any]:
        """The random numbers and failure rates."""
        return {"rng": self._rng.bit_generator.state, "failures": dict(self._failures)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the one whose `state_dict` that was.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        self._rng.bit_generator.state = state["rng"]
        failures = {stage: float(state["failures"][stage]) for stage in self._stages}
        if not all(0 <= rate <= 1 for rate in failures.values()):
            raise ValueError(f"failure rates are not within 0 … 1: {failures}")
        self._failures = failures
