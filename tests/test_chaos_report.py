"""What the chaos script concludes from a run's progress."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos_report import Kill, Report, fallen, largest_burst, lost_updates, recovery, speed_before

ACTORS = 4
GOOD = Report(
    kills=[Kill("actor", 100.0, 50.0, 4.0), Kill("node", 150.0, 50.0, 20.0), Kill("learner", 200.0, 50.0, 9.0)],
    restarts=5,
    told_on_terminal=5,
    told_in_log=5,
    told_on_curves={"actor": 3, "learner": 1, "evaluator": 1},
    began_without_contents=0,
    speed_first=300.0,
    speed_last=290.0,
    samples_per_insert=3.98,
    samples_per_insert_setting=4.0,
    lost_updates=200,
    updates_in_an_interval=600,
    fallen_counters=[],
    memory_mib=[2_000.0, 2_300.0, 2_050.0],
    memory_mib_by_kind={"actor": [2_000.0, 2_300.0, 2_050.0]},
    minutes=3.0,
    env_steps=50_000,
    updates=3_000,
    episodes=100,
    evaluations=[(60.0, 90.0)],
    burst_allowed=7_000.0,
)


def lines(rates: Sequence[float]) -> list[dict[str, Any]]:
    """Progress every five seconds at so many env steps per second."""
    steps, made = 0.0, [{"time_s": 0.0, "env_steps": 0.0, "actors_alive": ACTORS}]
    for i, rate in enumerate(rates, 1):
        steps += 5 * rate
        made.append({"time_s": 5.0 * i, "env_steps": steps, "actors_alive": ACTORS})
    return made


def test_a_recovery_is_the_start_of_the_first_window_with_nine_tenths_of_the_speed() -> None:
    progress = lines([100] * 12 + [100, 0, 20, 85, 95, 100, 100])  # killed within the thirteenth line's time
    assert speed_before(progress, 62.0, []) == 100
    assert recovery(progress, 62.0, 100.0, ACTORS) == pytest.approx(75.0 - 62.0)  # 85 and 95 make 90
    assert recovery(progress[:18], 62.0, 100.0, ACTORS) is None


def test_the_speed_before_is_that_of_windows_which_no_kill_disturbed() -> None:
    progress = lines([100] * 12 + [0, 0, 60, 60, 60, 60] + [92] * 4 + [0, 0])
    kill = Kill("actor", 61.0, 100.0, 29.0)
    assert speed_before(progress, 110.0, []) == 100
    assert speed_before(progress, 110.0, [], newest=8) < 92
    assert speed_before(progress, 110.0, [kill]) == 100
    assert speed_before(progress, 110.0, [kill], newest=3) == 92
    assert speed_before(progress, 110.0, [replace(kill, recovery_s=None)], newest=3) == 100
    assert speed_before(progress, 8.0, []) == 0


def test_a_window_before_a_stall_is_no_recovery() -> None:
    progress = lines([100] * 13 + [100, 100, 0, 0, 0, 95, 95, 95])
    assert recovery(progress, 62.0, 100.0, ACTORS) == pytest.approx(90.0 - 62.0)


def test_a_window_that_began_before_the_kill_does_not_count() -> None:
    assert recovery(lines([100] * 8), 33.0, 100.0, ACTORS) is None


def test_a_speed_with_fewer_actors_than_before_is_no_recovery() -> None:
    progress = lines([100] * 20)
    assert recovery(progress, 62.0, 100.0, ACTORS) == pytest.approx(65.0 - 62.0)
    for line in progress[13:17]:
        line["actors_alive"] = ACTORS - 1
    assert recovery(progress, 62.0, 100.0, ACTORS) == pytest.approx(75.0 - 62.0)
    assert recovery(progress, 62.0, 100.0, ACTORS + 1) is None


def test_a_burst_is_found_though_the_ratio_comes_out_right() -> None:
    even = [{"time_s": 5.0 * i, "env_steps": 500 * i, "samples": 2_000 * i} for i in range(30)]
    assert largest_burst(even, 4.0) == 0
    for line in even[10:20]:
        line["samples"] += 7_000
    assert largest_burst(even, 4.0) == 7_000


def test_counters_that_fall_are_found() -> None:
    progress = [{"updates": 10, "episodes": 3}, {"updates": 6, "episodes": 3}, {"updates": 8, "episodes": 4}]
    assert fallen(progress, ("updates", "episodes")) == ["updates"]


def test_lost_updates_are_what_the_run_said() -> None:
    again = "INFO the new learner goes on from step-10\nINFO {} updates are to be made again\n"
    assert lost_updates("".join(again.format(lost) for lost in ("312", "1,050", "7")), []) == 1_050
    assert lost_updates("INFO the new learner goes on from step-10\n", []) == 0


def test_lost_updates_show_in_the_counter_where_nothing_was_said() -> None:
    assert lost_updates("", [{"updates": 10}, {"updates": 6}, {"updates": 8}]) == 4


def test_a_run_that_kept_every_promise_has_no_misses() -> None:
    assert GOOD.misses() == []
    figures = GOOD.to_json()
    assert (figures["killed"], figures["median_recovery_s"], figures["longest_recovery_s"]) == (3, 9.0, 20.0)
    assert figures["by_kind"]["node"] == {"killed": 1, "median_recovery_s": 20.0, "longest_recovery_s": 20.0}


@pytest.mark.parametrize(
    "broken",
    [
        {"kills": [*GOOD.kills, Kill("actor", 250.0, 50.0, None)]},
        {"kills": [Kill("actor", 100.0, 50.0, 16.0)] * 3},
        {"kills": [*GOOD.kills, Kill("actor", 250.0, 50.0, 46.0)]},
        {"restarts": 0, "told_on_terminal": 0, "told_in_log": 0, "told_on_curves": {}},
        {"told_on_terminal": 4},
        {"told_in_log": 4},
        {"told_on_curves": {"actor": 2, "learner": 1, "evaluator": 1}},
        {"told_on_curves": {"actor": 4, "evaluator": 1}},
        {"largest_burst": 7_001.0},
        {"began_without_contents": 1},
        {"speed_last": 230.0},
        {"resumed": "status 1"},
        {"samples_per_insert": 3.5},
        {"lost_updates": 601},
        {"fallen_counters": ["episodes"]},
        {"memory_mib": [2_000.0, 2_050.0, 2_300.0]},
        {"left_behind": ["/dev/shm/x"]},
        {"exit_status": 1},
    ],
)
def test_each_broken_promise_is_named(broken: dict[str, Any]) -> None:
    assert len(replace(GOOD, **broken).misses()) == 1
