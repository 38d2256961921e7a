"""How often each transition is sampled: a pure object that answers and never waits."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def minimum_error_buffer(samples_per_insert: float, max_insert: int, max_sample: int) -> float:
    """The smallest error buffer with which inserting and sampling can never both be refused, in samples.

    A chunk of c = `max_insert` is refused only if d > M + e - c*sigma, a draw of b = `max_sample` only if
    d < M - e + b (see `RateLimiter`). No d satisfies both if M + e - c*sigma >= M - e + b, that is

        e >= (c * sigma + b) / 2.
    """
    exact = (max_insert * Fraction(samples_per_insert) + max_sample) / 2
    rounded = float(exact)
    return rounded if rounded >= exact else math.nextafter(rounded, math.inf)


class RateLimiter:
    """Keeps samples drawn in proportion to transitions inserted, as reverb's `SampleToInsertRatio` does.

    With I transitions inserted and S samples drawn since construction, sigma = `samples_per_insert`,
    e = `error_buffer` and M = sigma * `min_size`, the quantity

        d = sigma * I - S

    is kept within M - e <= d <= M + e:

        can_insert(n)  =  I < min_size  or  sigma * (I + n) - S <= M + e
        can_sample(n)  =  I >= min_size and sigma * I - (S + n) >= M - e

    Inserting is always allowed until `min_size` is reached, so the one chunk that reaches it may overshoot the
    upper bound, to at most M + sigma * (max_insert - 1). The arithmetic is exact, so rounding can't refuse both.

    Args:
        samples_per_insert: sigma > 0, times that a transition is sampled on average.
        min_size: >= 1, transitions inserted before sampling begins.
        error_buffer: e, in samples, at least `minimum_error_buffer(...)`.
        max_insert: >= 1, the longest chunk that will be asked for, transitions.
        max_sample: >= 1, the largest draw that will be asked for, samples.

    Raises:
        ValueError: a setting is out of range, or could bring inserting and sampling to a stop.
    """

    def __init__(
        self, samples_per_insert: float, min_size: int, error_buffer: float, max_insert: int, max_sample: int
    ) -> None:
        if not (math.isfinite(samples_per_insert) and samples_per_insert > 0):
            raise ValueError(f"samples_per_insert must be finite and positive, not {samples_per_insert}")
        for name, value in (("min_size", min_size), ("max_insert", max_insert), ("max_sample", max_sample)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        smallest = minimum_error_buffer(samples_per_insert, max_insert, max_sample)
        if not (math.isfinite(error_buffer) and error_buffer >= smallest):
            raise ValueError(
                f"error_buffer={error_buffer} could refuse inserts and samples at once: it must be at least "
                f"(max_insert * samples_per_insert + max_sample) / 2 = "
                f"({max_insert} * {samples_per_insert} + {max_sample}) / 2 = {smallest}"
            )
        self._sigma = Fraction(samples_per_insert)
        self._min_size = min_size
        self._max_insert = max_insert
        self._max_sample = max_sample
        self._min_difference = self._sigma * min_size - Fraction(error_buffer)
        self._max_difference = self._sigma * min_size + Fraction(error_buffer)
        self._inserts = 0
        self._samples = 0

    @property
    def min_size(self) -> int:
        """Transitions inserted before sampling begins."""
        return self._min_size

    @property
    def max_insert(self) -> int:
        """The longest chunk that may be asked for, transitions."""
        return self._max_insert

    @property
    def inserts(self) -> int:
        """Transitions inserted."""
        return self._inserts

    @property
    def samples(self) -> int:
        """Samples drawn."""
        return self._samples

    @property
    def inserts_while_sampling(self) -> int:
        """Transitions inserted beyond `min_size`; `samples` divided by this is the ratio that was really had."""
        return max(0, self._inserts - self._min_size)

    def can_insert(self, n: int) -> bool:
        """Whether a chunk of n transitions may be inserted now.

        Raises:
            ValueError: n is not in 1 … max_insert, for which alone it is certain that nothing stops.
        """
        if not 1 <= n <= self._max_insert:
            raise ValueError(f"a chunk of {n} transitions is not within 1 … max_insert={self._max_insert}")
        below_min_size = self._inserts < self._min_size
        return below_min_size or self._sigma * (self._inserts + n) - self._samples <= self._max_difference

    def can_sample(self, n: int) -> bool:
        """Whether n samples may be drawn now.

        Raises:
            ValueError: n is not in 1 … max_sample, for which alone it is certain that nothing stops.
        """
        if not 1 <= n <= self._max_sample:
            raise ValueError(f"a draw of {n} samples is not within 1 … max_sample={self._max_sample}")
        reached_min_size = self._inserts >= self._min_size
        return reached_min_size and self._sigma * self._inserts - (self._samples + n) >= self._min_difference

    def state(self) -> dict[str, Any]:
        """The counts, and the settings that they belong to: plain values for `restore`."""
        return {
            "inserts": self._inserts,
            "samples": self._samples,
            "samples_per_insert": float(self._sigma),
            "min_size": self._min_size,
        }

    def restore(self, state: Mapping[str, Any], size: int) -> None:
        """Goes on from what another limiter's `state` returned.

        With other settings than that one's, or counts that no limiter comes to, the ratio is kept from now on: what was
        drawn before is not made up for.

        Args:
            state: see `state`.
            size: transitions that are held now; sampling begins at once if they are `min_size` or more.

        Raises:
            KeyError, TypeError, ValueError: the state is none.
        """
        inserts, samples = int(state["inserts"]), int(state["samples"])
        if inserts < 0 or samples < 0:
            raise ValueError(f"a limiter cannot have counted {inserts} inserts and {samples} samples")
        own = {name: value for name, value in self.state().items() if name not in ("inserts", "samples")}
        same = all(state[name] == value for name, value in own.items()) and self._can_have_counted(inserts, samples)
        if not same or size < self._min_size:
            inserts, samples = min(size, self._min_size), 0
        self._inserts, self._samples = inserts, samples

    def _can_have_counted(self, inserts: int, samples: int) -> bool:
        """Whether the counts are within the bounds; with others, one side would wait for ever."""
        overshot = self._sigma * (self._min_size + self._max_insert - 1)
        most = max(self._max_difference, overshot)
        return inserts >= self._min_size and self._min_difference <= self._sigma * inserts - samples <= most

    def insert(self, n: int) -> None:
        """Takes note of n inserted transitions.

        Raises:
            ValueError: they were not allowed.
        """
        if not self.can_insert(n):
            raise ValueError(f"inserting {n} transitions was not allowed")
        self._inserts += n

    def sample(self, n: int) -> None:
        """Takes note of n drawn samples.

        Raises:
            ValueError: they were not allowed.
        """
        if not self.can_sample(n):
            raise ValueError(f"drawing {n} samples was not allowed")
        self._samples += n
