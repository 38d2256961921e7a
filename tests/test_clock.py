"""Time without pauses."""

from driver.clock import RunningClock


def test_a_pause_counts_as_a_moment_and_ordinary_time_as_it_is() -> None:
    now = 50.0
    clock = RunningClock(lambda: now)
    start = clock()
    now += 1.5
    assert clock() - start == 1.5
    now += 1_000.0
    assert clock() - start == 3.5
    now += 0.25
    assert clock() - start == 3.75
