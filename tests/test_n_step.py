"""The table of trajectories and their transitions is the accumulator's specification."""

import pytest

from actors.n_step import Ending, NStepAccumulator, Window

G = 0.5  # discount; powers of two keep the sums exact

# name: (n, rewards, ending after the last reward, expected windows: start, steps, r_t, discount_t)
CASES: dict[str, tuple[int, list[float], Ending | None, list[tuple[int, int, float, float]]]] = {
    "one step, running": (1, [1, 2], None, [(0, 1, 1.0, G), (1, 1, 2.0, G)]),
    "one step, terminated": (1, [1, 2], "terminated", [(0, 1, 1.0, G), (1, 1, 2.0, 0.0)]),
    "one step, truncated": (1, [1, 2], "truncated", [(0, 1, 1.0, G), (1, 1, 2.0, G)]),
    "window not full yet": (3, [1, 2], None, []),
    "window just full": (3, [1, 2, 4], None, [(0, 3, 1 + G * 2 + G**2 * 4, G**3)]),
    "window slides": (2, [1, 2, 4], None, [(0, 2, 1 + G * 2, G**2), (1, 2, 2 + G * 4, G**2)]),
    "tails at termination never bootstrap": (
        3,
        [1, 2, 4, 8],
        "terminated",
        [
            (0, 3, 1 + G * 2 + G**2 * 4, G**3),
            (1, 3, 2 + G * 4 + G**2 * 8, 0.0),
            (2, 2, 4 + G * 8, 0.0),
            (3, 1, 8.0, 0.0),
        ],
    ),
    "tails at truncation bootstrap by their own length": (
        3,
        [1, 2, 4, 8],
        "truncated",
        [
            (0, 3, 1 + G * 2 + G**2 * 4, G**3),
            (1, 3, 2 + G * 4 + G**2 * 8, G**3),
            (2, 2, 4 + G * 8, G**2),
            (3, 1, 8.0, G),
        ],
    ),
    "episode shorter than n, terminated": (5, [1, 2], "terminated", [(0, 2, 1 + G * 2, 0.0), (1, 1, 2.0, 0.0)]),
    "episode shorter than n, truncated": (5, [1, 2], "truncated", [(0, 2, 1 + G * 2, G**2), (1, 1, 2.0, G)]),
    "episode of one step": (3, [7], "terminated", [(0, 1, 7.0, 0.0)]),
}


def _feed(accumulator: NStepAccumulator, rewards: list[float], ending: Ending | None) -> list[Window]:
    windows = []
    for i, reward in enumerate(rewards):
        windows += accumulator.add(reward, ending if i == len(rewards) - 1 else None)
    return windows


@pytest.mark.parametrize("name", CASES)
def test_trajectory_gives_the_tables_transitions(name: str) -> None:
    n, rewards, ending, expected = CASES[name]
    assert _feed(NStepAccumulator(n, G), rewards, ending) == [Window(*window) for window in expected]


def test_the_next_episode_starts_afresh() -> None:
    accumulator = NStepAccumulator(3, G)
    _feed(accumulator, [9, 9], "terminated")
    assert _feed(accumulator, [1, 2, 4], None) == [Window(0, 3, 1 + G * 2 + G**2 * 4, G**3)]


def test_every_step_starts_exactly_one_window() -> None:
    windows = _feed(NStepAccumulator(5, 0.97), [1.0] * 23, "terminated")
    assert [window.start for window in windows] == list(range(23))


@pytest.mark.parametrize(("n", "gamma"), [(0, 0.9), (-1, 0.9), (1, -0.1), (1, 1.1)])
def test_impossible_settings_are_refused(n: int, gamma: float) -> None:
    with pytest.raises(ValueError, match="must"):
        NStepAccumulator(n, gamma)


def test_a_cut_completes_the_open_windows_and_the_episode_goes_on() -> None:
    accumulator = NStepAccumulator(3, G)
    assert _feed(accumulator, [1, 2], None) == []
    assert accumulator.cut() == [Window(0, 2, 1 + G * 2, G**2), Window(1, 1, 2.0, G)]
    assert accumulator.cut() == []
    assert _feed(accumulator, [4, 8, 16], None) == [Window(2, 3, 4 + G * 8 + G**2 * 16, G**3)]


def test_tree_backup_is_the_recursion_of_sutton_and_barto() -> None:
    """G_k = r_k+1 + gamma * ((1 - epsilon) * G_k+1 + epsilon * mean_a Q(s_k+1, a)), by its own definition."""
    rewards, means, gamma, epsilon, last_value = [1.0, -2.0, 3.0, 0.5], [9.0, 4.0, -1.0, 2.0], 0.9, 0.1, 7.0
    accumulator = NStepAccumulator(4, gamma)
    windows = []
    for reward, mean in zip(rewards, means, strict=True):
        windows += accumulator.add(reward, epsilon=epsilon, mean_value=mean)
    expected = last_value
    for k in reversed(range(4)):
        if k < 3:
            expected = (1 - epsilon) * expected + epsilon * means[k + 1]
        expected = rewards[k] + gamma * expected
    assert len(windows) == 1
    assert windows[0].r_t + windows[0].discount_t * last_value == pytest.approx(expected)


def test_tree_backup_reaches_into_windows_that_end_with_the_episode() -> None:
    accumulator = NStepAccumulator(3, G)
    accumulator.add(1.0, epsilon=0.25, mean_value=100.0)  # of the first state: of no matter
    windows = accumulator.add(2.0, "terminated", epsilon=0.25, mean_value=8.0)
    assert windows == [Window(0, 2, 1 + G * (0.25 * 8 + 0.75 * 2), 0.0), Window(1, 1, 2.0, 0.0)]
