"""The rate limiter's equation, and that it never stops both sides."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.rate_limiter import RateLimiter, minimum_error_buffer

sigmas = st.one_of(st.floats(0.01, 64), st.sampled_from([0.1, 0.3, 1 / 3, 1.0, 4.1, 8.0]))


@st.composite
def limiters(draw: st.DrawFn) -> tuple[RateLimiter, float, int, float, int, int]:
    sigma, max_insert, max_sample = draw(sigmas), draw(st.integers(1, 100)), draw(st.integers(1, 300))
    slack = draw(st.sampled_from([1.0, 1.0, 1.001, 2.0]))
    error_buffer = minimum_error_buffer(sigma, max_insert, max_sample) * slack
    min_size = draw(st.integers(1, 300))
    limiter = RateLimiter(sigma, min_size, error_buffer, max_insert, max_sample)
    return limiter, sigma, min_size, error_buffer, max_insert, max_sample


@settings(deadline=None)
@given(limiters(), st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=300))
def test_bounds_hold_and_one_side_can_always_go_on(
    case: tuple[RateLimiter, float, int, float, int, int], actions: list[tuple[bool, float]]
) -> None:
    limiter, sigma, min_size, error_buffer, max_insert, max_sample = case
    middle = Fraction(sigma) * min_size
    upper = middle + max(Fraction(error_buffer), Fraction(sigma) * (max_insert - 1))
    for wants_insert, size in actions:
        assert limiter.can_insert(max_insert) or limiter.can_sample(max_sample)
        if wants_insert and limiter.can_insert(n := 1 + int(size * (max_insert - 1))):
            limiter.insert(n)
            difference = Fraction(sigma) * limiter.inserts - limiter.samples
            assert difference <= upper
        elif not wants_insert and limiter.can_sample(n := 1 + int(size * (max_sample - 1))):
            assert limiter.inserts >= min_size
            limiter.sample(n)
            assert Fraction(sigma) * limiter.inserts - limiter.samples >= middle - Fraction(error_buffer)


@settings(deadline=None)
@given(limiters(), st.booleans())
def test_greedy_sides_reach_the_ratio(
    case: tuple[RateLimiter, float, int, float, int, int], insert_first: bool
) -> None:
    """Either side may go as far as it can before the other moves: the ratio comes out all the same."""
    limiter, sigma, _, error_buffer, max_insert, max_sample = case
    for _ in range(15):
        for inserting in (insert_first, not insert_first):
            if inserting:
                while limiter.can_insert(max_insert) and limiter.inserts < 2000:
                    limiter.insert(max_insert)
            else:
                while limiter.can_sample(max_sample):
                    limiter.sample(max_sample)
    slack = max(error_buffer, sigma * max_insert)
    assert abs(limiter.samples - sigma * limiter.inserts_while_sampling) <= slack * (1 + 1e-9)


def test_the_equation_by_hand() -> None:
    limiter = RateLimiter(samples_per_insert=2.0, min_size=10, error_buffer=8.0, max_insert=4, max_sample=8)
    for _ in range(2):
        limiter.insert(4)
        assert not limiter.can_sample(1)
    limiter.insert(4)  # I = 12, d = 24 in 12 … 28
    assert limiter.inserts_while_sampling == 2
    assert limiter.can_insert(2)
    assert not limiter.can_insert(3)
    limiter.sample(8)  # d = 16
    assert limiter.can_sample(4)
    assert not limiter.can_sample(5)
    assert limiter.can_insert(4)
    limiter.sample(4)  # d = 12
    assert not limiter.can_sample(1)
    assert (limiter.inserts, limiter.samples) == (12, 12)


def test_inserting_is_allowed_until_min_size() -> None:
    limiter = RateLimiter(samples_per_insert=8.0, min_size=100, error_buffer=360.0, max_insert=80, max_sample=32)
    limiter.insert(80)
    limiter.insert(19)
    assert limiter.can_insert(80)
    limiter.insert(1)
    assert not limiter.can_insert(80)


def test_the_smallest_error_buffer_is_the_smallest() -> None:
    """One ulp less is refused, and less by a sample would really bring both to a stop."""
    smallest = minimum_error_buffer(2.0, 4, 6)
    assert smallest == 7.0
    with pytest.raises(ValueError, match=r"error_buffer=6\.999.*= 7\.0"):
        RateLimiter(2.0, 10, math.nextafter(smallest, 0), 4, 6)

    def stops(error_buffer: float) -> bool:
        differences = range(-50, 100)
        middle = 2.0 * 10
        return any(d + 2.0 * 4 > middle + error_buffer and d - 6 < middle - error_buffer for d in differences)

    assert stops(smallest - 1)
    assert not stops(smallest)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples_per_insert": 0.0}, "samples_per_insert must be .* not 0.0"),
        ({"samples_per_insert": math.nan}, "samples_per_insert"),
        ({"samples_per_insert": math.inf}, "samples_per_insert"),
        ({"min_size": 0}, "min_size must be .* not 0"),
        ({"max_insert": 0}, "max_insert"),
        ({"max_sample": 0}, "max_sample"),
        ({"error_buffer": math.inf}, "error_buffer"),
        ({"error_buffer": math.nan}, "error_buffer"),
        ({"error_buffer": 1.0}, r"error_buffer=1\.0 .* \(4 \* 2\.0 \+ 8\) / 2 = 8\.0"),
    ],
)
def test_impossible_settings_are_refused_with_their_values(changed: dict[str, float], message: str) -> None:
    settings = {"samples_per_insert": 2.0, "min_size": 10, "error_buffer": 8.0, "max_insert": 4, "max_sample": 8}
    with pytest.raises(ValueError, match=message):
        RateLimiter(**(settings | changed))  # type: ignore[arg-type]


def test_larger_requests_than_announced_are_refused() -> None:
    limiter = RateLimiter(2.0, 10, 8.0, 4, 8)
    for n in (0, 5):
        with pytest.raises(ValueError, match="max_insert=4"):
            limiter.can_insert(n)
    for n in (0, 9):
        with pytest.raises(ValueError, match="max_sample=8"):
            limiter.can_sample(n)


def test_what_was_not_allowed_cannot_be_told() -> None:
    limiter = RateLimiter(2.0, 10, 8.0, 4, 8)
    with pytest.raises(ValueError, match="not allowed"):
        limiter.sample(1)
    for _ in range(3):
        limiter.insert(4)
    with pytest.raises(ValueError, match="not allowed"):
        limiter.insert(4)
    assert (limiter.inserts, limiter.samples) == (12, 0)


def test_rounding_cannot_refuse_both_at_the_smallest_error_buffer() -> None:
    """In float64 arithmetic this walk along the upper bound stops at 81 inserts and 7 samples."""
    chunk, draw = 2, 2
    limiter = RateLimiter(0.1, 2, minimum_error_buffer(0.1, chunk, draw), chunk, draw)
    while limiter.inserts < 2000:
        while not limiter.can_insert(1):
            limiter.sample(1)
        limiter.insert(1)
        assert limiter.can_insert(chunk) or limiter.can_sample(draw)


@settings(deadline=None)
@given(limiters(), st.lists(st.booleans(), max_size=100))
def test_what_a_limiter_counted_another_goes_on_from(
    case: tuple[RateLimiter, float, int, float, int, int], actions: list[bool]
) -> None:
    limiter, sigma, min_size, error_buffer, max_insert, max_sample = case
    for wants_insert in actions:
        if wants_insert and limiter.can_insert(limiter.max_insert):
            limiter.insert(limiter.max_insert)
        elif not wants_insert and limiter.can_sample(1):
            limiter.sample(1)
    other = RateLimiter(sigma, min_size, error_buffer, max_insert, max_sample)
    other.restore(limiter.state(), limiter.inserts)
    assert (other.inserts, other.samples) == (limiter.inserts, limiter.samples)


@pytest.mark.parametrize("counts", [{"samples": 2**62}, {"inserts": 2**62}, {"inserts": 1}])
def test_counts_that_no_limiter_comes_to_make_nobody_wait_for_ever(counts: dict[str, int]) -> None:
    limiter = RateLimiter(4.0, 100, 400.0, 20, 32)
    limiter.restore({**limiter.state(), "inserts": 500, "samples": 1600, **counts}, 200)
    assert (limiter.inserts, limiter.samples) == (100, 0)
