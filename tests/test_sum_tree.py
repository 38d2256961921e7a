"""The sum tree against running sums, which say the same more slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from replay.sum_tree import SumTree


def naive_sample(values: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(np.cumsum(values), u, side="right").astype(np.int64)


def assert_valid(tree: SumTree) -> None:
    ok, reason = tree.check_valid()
    assert ok, reason


@st.composite
def updates(draw: st.DrawFn) -> tuple[int, list[list[tuple[int, float]]]]:
    """A capacity and several batches of (index, whole number): sums of whole numbers are exact in any order."""
    capacity = draw(st.integers(1, 70))
    pair = st.tuples(st.integers(0, capacity - 1), st.integers(0, 1000).map(float))
    return capacity, draw(st.lists(st.lists(pair, max_size=20), min_size=1, max_size=8))


@settings(deadline=None)
@given(updates())
def test_agrees_with_running_sums_after_every_update(case: tuple[int, list[list[tuple[int, float]]]]) -> None:
    capacity, batches = case
    tree = SumTree(capacity)
    naive = np.zeros(capacity)
    for batch in batches:
        for index, value in batch:
            naive[index] = value
        tree.set([index for index, _ in batch], [value for _, value in batch])
        assert_valid(tree)
        assert tree.total == naive.sum()
        np.testing.assert_array_equal(tree.get(np.arange(capacity)), naive)
        if naive.sum() > 0:
            u = np.arange(0, naive.sum(), 0.5 * max(1, naive.sum() // 500))
            np.testing.assert_array_equal(tree.sample(u), naive_sample(naive, u))


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=100),
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
)
def test_never_draws_a_zero_whatever_the_rounding(values: list[float], fractions: list[float]) -> None:
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), values)
    if tree.total == 0:
        return
    edges = np.cumsum(values)
    u = np.concatenate([np.array(fractions) * tree.total, edges, np.nextafter(edges, 0), np.nextafter(edges, np.inf)])
    drawn = tree.sample(np.clip(u, 0, tree.total))
    assert (tree.get(drawn) > 0).all()


def test_draws_in_proportion_to_the_values() -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(size=37)
    tree = SumTree(37)
    tree.set(np.arange(37), values)
    n = 200_000
    counts = np.bincount(tree.sample(rng.random(n) * tree.total), minlength=37)
    expected = n * values / values.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 67.985  # 99.9 % point for 36 degrees of freedom


def test_sums_do_not_drift() -> None:
    rng = np.random.default_rng(2)
    tree = SumTree(1000)
    for _ in range(2000):
        tree.set(rng.integers(0, 1000, 64), 10.0 ** rng.uniform(-12, 12, 64))
    tree.set(np.arange(1000), np.full(1000, 0.1))
    assert tree.total == pytest.approx(100, rel=1e-12)
    tree.set(np.arange(1000), np.zeros(1000))
    assert tree.total == 0


def test_the_last_of_equal_indices_stays() -> None:
    tree = SumTree(5)
    tree.set([3, 1, 3, 3], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(tree.get([1, 3]), [2.0, 4.0])
    assert tree.total == 6
    assert_valid(tree)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_values_are_refused_and_change_nothing(value: float) -> None:
    tree = SumTree(4)
    tree.set([0, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        tree.set([0, 1], [5.0, value])
    np.testing.assert_array_equal(tree.get(np.arange(4)), [1, 2, 0, 0])
    assert_valid(tree)


@pytest.mark.parametrize("index", [-1, 5, 8])
def test_indices_out_of_range_are_refused(index: int) -> None:
    tree = SumTree(5)
    with pytest.raises(IndexError):
        tree.set([index], [1.0])
    with pytest.raises(IndexError):
        tree.get([index])


def test_an_empty_tree_and_a_position_outside_are_refused() -> None:
    tree = SumTree(5)
    with pytest.raises(ValueError, match="nothing to sample"):
        tree.sample([0.0])
    tree.set([2], [1.0])
    for u in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="u must be"):
            tree.sample([u])


def test_check_valid_finds_damage() -> None:
    tree = SumTree(4)
    tree.set([0, 1, 2], [1.0, 2.0, 3.0])
    tree._nodes[1] += 1
    assert not tree.check_valid()[0]


def test_check_valid_finds_a_sum_that_overflows() -> None:
    tree = SumTree(2)
    tree._nodes[1:] = [np.inf, 1e308, 1e308]
    assert tree.check_valid() == (False, "the sum of the values is not finite")
