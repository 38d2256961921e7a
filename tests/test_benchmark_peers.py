"""The comparison with other libraries: its arithmetic on synthetic data, and its parts on the real game."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import peers_launch
from benchmarks.peers import available, main
from benchmarks.peers_meter import Meter, Speed
from benchmarks.peers_notebook import FloatNetwork, NotebookLoop, Transition, td_loss
from benchmarks.peers_process import MeasurementFailedError, measure
from benchmarks.peers_results import Measured, describe, markdown_table, rows
from benchmarks.peers_systems import SYSTEMS, System
from benchmarks.performance_tables import main as tables_main
from benchmarks.performance_tables import read_rows, table
from common.errors import UserError
from common.networks import QNetwork
from common.presets import PRESETS
from learner.loss import double_dqn_target, huber
from tests.launching import descendants

SYSTEM = System("a system", "peers_notebook", (), "nes-py", None, ({"threads": 1},))


# The window


def test_the_window_opens_after_the_warm_up_and_its_rates_are_over_its_own_time() -> None:
    meter = Meter(warm_up_s=10, seconds=20)
    assert meter.read(0.0, 500, 0)  # filling: not training yet
    assert meter.read(100.0, 1_000, 8)  # training since here
    assert meter.read(109.0, 1_500, 1_000)
    assert meter.read(112.0, 2_000, 4_000)  # opens
    assert meter.read(131.0, 9_000, 9_000)
    assert not meter.read(137.0, 2_250, 6_000)  # closes
    assert not meter.read(200.0, 9_999, 9_999)
    assert meter.speed() == Speed(transitions=250, samples=2_000, seconds=25.0)
    assert (meter.speed().transitions_per_s, meter.speed().samples_per_s) == (10.0, 80.0)


def test_a_system_that_ends_early_has_no_speed() -> None:
    meter = Meter(warm_up_s=0, seconds=20)
    meter.read(0.0, 0, 8)
    meter.read(1.0, 10, 80)
    with pytest.raises(RuntimeError, match="before its window"):
        meter.speed()


# The figures


def measured(title: str, *speeds: tuple[int, int], goal: float | None = None, core: str = "nes-py") -> Measured:
    """A system with rounds of so many transitions and samples in ten seconds each."""
    system = replace(SYSTEM, title=title, goal=goal, core=core)
    return Measured(system, {"threads": 1}, runs=[Speed(*speed, seconds=10.0) for speed in speeds])


def test_a_rate_is_the_median_over_the_rounds() -> None:
    entry = measured("a", (100, 800), (500, 4_000), (200, 1_600))
    assert (entry.rate("transitions"), entry.rate("samples")) == (20.0, 160.0)
    assert entry.samples_per_transition == 8.0


def test_ratios_are_to_the_best_peer_of_each_figure_and_to_the_best_with_the_same_work() -> None:
    found = rows(
        {
            "loop": measured("loop", (240, 7_680)),
            "fast": measured("fast", (600, 4_800)),
            "slow": measured("slow", (300, 2_400)),
            "ours": measured("ours", (1_500, 12_000), goal=2.5),
        }
    )
    assert [(row["unit"], row["figure"], row["peer"], row["peer_figure"], row["ratio"]) for row in found] == [
        ("transitions/s", 150.0, "fast, nes-py", 60.0, 2.5),
        ("samples/s", 1_200.0, "loop, nes-py", 768.0, 1.56),
        ("samples/s", 1_200.0, "fast, nes-py", 480.0, 2.5),
    ]
    assert {row["goal"] for row in found} == {2.5}


def test_on_another_core_the_goal_is_over_nes_py_and_the_peer_on_that_core_is_shown_beside() -> None:
    found = rows(
        {
            "peer": measured("peer", (600, 4_800)),
            "peer-fast": measured("peer", (900, 7_200), core="fceumm"),
            "ours-fast": measured("ours", (2_700, 21_600), goal=4.5, core="fceumm"),
        }
    )
    assert [(row["unit"], row["peer"], row["ratio"], row.get("goal")) for row in found] == [
        ("transitions/s", "peer, nes-py", 4.5, 4.5),
        ("transitions/s", "peer, fceumm", 3.0, None),
        ("samples/s", "peer, nes-py", 4.5, 4.5),
        ("samples/s", "peer, fceumm", 3.0, None),
    ]


def test_without_a_peer_there_is_no_ratio() -> None:
    assert rows({"ours": measured("ours", (1_500, 12_000), goal=2.5)}) == []


def test_the_table_has_the_medians_and_their_range() -> None:
    entry = measured("a", (100, 800), (500, 4_000), (200, 1_600))
    assert markdown_table([entry]).splitlines()[-1] == (
        "| a | nes-py | 20.0 (10.0 to 50.0) | 160.0 (80.0 to 400.0) | 8.0 | threads 1 |"
    )


def test_settings_are_described_in_a_line() -> None:
    assert describe({"envs": 4, "threads": None}) == "envs 4, threads PyTorch's"
    assert describe({"options": ["--learner.precision", "float32"]}) == "options --learner.precision float32"


# All benchmarks' tables


ROW: dict[str, Any] = {"name": "n", "figure": 1234.5, "unit": "1/s", "peer": "p", "peer_figure": 500, "ratio": 2.469}


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (ROW, "| n | 1,234 1/s | p: 500 | 2.47 |  |"),
        (ROW | {"goal": 2.5}, "| n | 1,234 1/s | p: 500 | 2.47 | ≥ 2.5: missed |"),
        (ROW | {"goal": 2.4}, "| n | 1,234 1/s | p: 500 | 2.47 | ≥ 2.4: met |"),
        (
            {"name": "n", "figure": 0.5, "unit": "s", "ceiling": 1.0, "ratio": None, "goal": "none"},
            "| n | 0.5 s | 1 | \N{EN DASH} | none |",
        ),
    ],
)
def test_a_row_says_what_it_is_held_against(row: dict[str, Any], cells: str) -> None:
    assert table([row]).splitlines()[-1] == cells


@pytest.mark.parametrize("content", [[ROW], {"rows": [ROW], "machine": {}}])
def test_a_result_is_a_list_of_rows_or_has_one(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "actor.json"
    path.write_text(json.dumps(content))
    assert tables_main([str(path)]) == 0
    assert capsys.readouterr().out == f"### actor\n\n{table([ROW])}\n\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"figures": []}', "holds no list of rows"),
        ('[{"name": "n", "figure": 1, "unit": "s", "peer": 1}]', "a row lacks ratio"),
        ('[{"name": "n", "figure": 1, "unit": "s", "ratio": 1}]', "a row lacks ceiling or peer"),
    ],
)
def test_a_result_of_another_form_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "actor.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(path)
    assert tables_main([str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# The systems


def test_what_is_not_installed_is_refused_or_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no-such-library is not installed: make bench-peers"):
        available({"a": replace(SYSTEM, packages=("no-such-library",))})
    assert available({"a": SYSTEM, "b": replace(SYSTEM, core="no-such-core")}) == {"a": SYSTEM}
    assert capsys.readouterr().out.startswith("b is left out: unknown emulator core 'no-such-core'")
    with pytest.raises(UserError, match="nothing to measure"):
        available({"b": replace(SYSTEM, core="no-such-core")})


@pytest.mark.parametrize("option", [["--rounds", "0"], ["--seconds", "0.5"], ["--only", "acme"]])
def test_a_mistake_is_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(option)


def test_every_system_has_a_measurement_and_ours_alone_have_goals() -> None:
    modules = Path(peers_launch.__file__).parent
    assert [system.module for system in SYSTEMS.values() if not (modules / f"{system.module}.py").exists()] == []
    assert {name for name, system in SYSTEMS.items() if system.goal} == {"ours", "ours-float32", "ours-fast"}


@pytest.mark.parametrize(("steps_per_update", "samples_per_transition"), [(1, 32), (4, 8)])
def test_the_notebooks_loop_learns_as_often_as_it_should(steps_per_update: int, samples_per_transition: int) -> None:
    loop = NotebookLoop("nes-py", steps_per_update)
    for _ in range(32):
        loop.step()
    before = loop.samples
    for _ in range(8):
        loop.step()
    assert loop.transitions == 40
    assert loop.samples - before == 8 * samples_per_transition


def test_the_notebooks_network_is_ours_with_scaled_states() -> None:
    ours = QNetwork((4, 84, 84), 5)
    theirs = FloatNetwork((4, 84, 84), 5)
    theirs.load_state_dict(ours.state_dict())
    states = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(theirs(states / 255), ours(states))


def test_the_notebooks_update_is_double_dqn() -> None:
    generator = torch.Generator().manual_seed(0)
    online, target = (FloatNetwork((4, 84, 84), 5) for _ in range(2))
    states, next_states = torch.rand((2, 6, 4, 84, 84), generator=generator)
    done = torch.tensor([0.0, 1, 0, 0, 1, 0])
    batch = Transition(states, torch.arange(6) % 5, torch.linspace(-15, 15, 6), next_states, done)
    gamma = PRESETS["peers"].agent.gamma
    with torch.no_grad():
        wanted = double_dqn_target(batch.reward, gamma * (1 - done), online(next_states), target(next_states))
        error = wanted - online(states)[torch.arange(6), batch.action]
        expected = huber(error, 1.0).mean()
    torch.testing.assert_close(td_loss(online, target, batch).detach(), expected)


def test_a_process_is_measured_and_a_failure_says_why() -> None:
    settings = {"steps_per_update": 4, "threads": 1}
    speed = measure(SYSTEM, settings, warm_up_s=0.1, seconds=1.0)
    assert speed.seconds >= 1.0
    assert abs(speed.samples - 8 * speed.transitions) <= 32
    with pytest.raises(MeasurementFailedError, match="KeyError"):
        measure(SYSTEM, {"threads": 1}, warm_up_s=0.1, seconds=1.0)


SMALL = [
    *("--env.name", "gridworld", "--replay.min-size", "200", "--ray.object-store-mb", "100"),
    *("--actors.chunk-length", "8", "--actors.envs-per-actor", "2"),
]


@pytest.mark.slow
def test_our_own_run_is_measured_and_ended() -> None:
    speed = peers_launch.measure("nes-py", {"options": SMALL}, Meter(warm_up_s=1.0, seconds=5.0))
    assert speed.seconds >= 5.0
    assert speed.transitions > 0
    assert speed.samples % PRESETS["peers"].learner.batch_size == 0
    assert 4 < speed.samples / speed.transitions < 16  # 8, however the machine's load moves the counters
    assert "launch.py" not in " ".join(descendants(os.getpid()).values())


def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended by itself, with exit status 2"):
        peers_launch.measure("nes-py", {"options": ["--agent.gamma", "7"]}, Meter(1.0, 5.0))


# What needs the group `peers`


@pytest.mark.filterwarnings("ignore")
def test_other_libraries_see_the_same_game() -> None:
    pytest.importorskip("gymnasium")
    from benchmarks.peers_gymnasium import GymnasiumTask
    from benchmarks.peers_task import make_task

    ours, theirs = make_task("nes-py", 3), GymnasiumTask("nes-py", 3)
    last = GymnasiumTask("nes-py", 3, channels_last=True)
    states = [env.reset()[0] for env in (ours, theirs, last)]
    for action in [1, 2, 4, 4, 1, 3, 3, 4]:
        np.testing.assert_array_equal(states[0], states[1])
        np.testing.assert_array_equal(np.moveaxis(states[2], -1, 0), states[0])
        assert theirs.observation_space.contains(states[1])
        assert last.observation_space.contains(states[2])
        steps = [env.step(action) for env in (ours, theirs, last)]
        assert steps[0][1:4] == steps[1][1:4] == steps[2][1:4]
        states = [step[0] for step in steps]
    for env in (ours, theirs, last):
        env.close()
