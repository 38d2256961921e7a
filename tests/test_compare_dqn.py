"""The comparison of DQN with double DQN: its arithmetic on synthetic data, and a small one through real training."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.gridworld import END, MOVES, SIZE, STAGE, GridworldEnvironment
from benchmarks.compare_dqn import main
from benchmarks.dqn_curves import Curve, band, common_grid, curve_of, load_curve, rolling_mean, thin, write_curve
from benchmarks.dqn_results import RunResult, load_results, markdown_table, save_result, spread, summarise
from benchmarks.dqn_runs import METHODS, Method, RunPlan, make_plans, read_state, train, work_left
from benchmarks.overestimation import (
    MeasuredEpisode,
    estimate,
    known_states,
    measure_episode,
    play_episode,
    returns_to_go,
)
from common.errors import UserError
from driver.options import parse_options
from tests.launching import GRID, ROOT, wait_for

NAN = math.nan
COMMAND = "python launch.py --seed 0"
WANTED: dict[str, Any] = {"command": COMMAND, "evaluation": {"episodes": 20, "epsilon": 0.01, "seed": 0}}


# Overestimation


def test_a_return_to_go_is_the_discounted_sum_of_what_follows() -> None:
    assert returns_to_go(np.array([1.0, 2.0, 4.0]), 0.5).tolist() == [1 + 1 + 1, 2 + 2, 4]
    assert returns_to_go(np.array([3.0, 5.0]), 0.0).tolist() == [3, 5]
    assert returns_to_go(np.array([]), 0.9).tolist() == []


@pytest.mark.parametrize(
    ("length", "truncated", "gamma", "known"),
    [
        (200, False, 0.97, 200),  # what ended is known to its last state
        (200, True, 0.97, 49),  # 0.97**152 < 0.01 < 0.97**151
        (100, True, 0.97, 0),
        (200, True, 0.0, 200),
        (200, True, 1.0, 0),
        (0, False, 0.97, 0),
    ],
)
def test_states_of_a_truncated_episode_count_while_little_of_their_return_is_missing(
    length: int, truncated: bool, gamma: float, known: int
) -> None:
    assert known_states(length, truncated, gamma) == known
    if truncated and known and gamma:
        assert gamma ** (length - (known - 1)) <= 0.01 < gamma ** (length - known)


def test_an_episode_is_measured_in_the_scaled_rewards_of_its_run() -> None:
    episode = measure_episode(
        np.array([3.0, 5.0]),
        np.array([15.0, 30.0]),
        reward_scale=1 / 15,
        gamma=0.5,
        x_pos=7,
        clear=True,
        truncated=False,
    )
    assert episode == MeasuredEpisode(45.0, 2, 7, True, False, 2, predicted=4.0, obtained=2.0)


def test_an_episode_cut_off_at_once_has_no_estimate() -> None:
    episode = measured(truncated=True, length=3)
    assert (episode.states, math.isnan(episode.predicted), math.isnan(episode.obtained)) == (0, True, True)
    assert math.isnan(estimate([episode]).overestimation)


def test_an_estimate_weighs_every_visited_state_alike() -> None:
    one = MeasuredEpisode(0, 1, 0, False, False, states=1, predicted=9.0, obtained=1.0)
    three = MeasuredEpisode(0, 3, 0, False, False, states=3, predicted=1.0, obtained=1.0)
    cut_off = MeasuredEpisode(0, 3, 0, False, True, states=0, predicted=NAN, obtained=NAN)
    assert estimate([one, three, cut_off]) == (3.0, 1.0)
    assert estimate([one, three, cut_off]).overestimation == 2.0


def test_a_perfect_critic_of_a_perfect_policy_overestimates_nothing() -> None:
    episode = play_on_grid(bias=0.0)
    assert episode.predicted == pytest.approx(episode.obtained)
    assert (episode.clear, episode.truncated, episode.length) == (True, False, 2)
    assert episode.episode_return == -1


def test_a_constant_bias_of_the_critic_is_what_is_measured() -> None:
    assert estimate([play_on_grid(bias=0.5)]).overestimation == pytest.approx(0.5)


def test_an_evaluation_episode_is_repeatable() -> None:
    assert play_on_grid(bias=0.0, epsilon=0.7) == play_on_grid(bias=0.0, epsilon=0.7)
    assert play_on_grid(bias=0.0, epsilon=0.7) != play_on_grid(bias=0.0)


# Curves


def test_series_with_different_steps_make_one_table() -> None:
    curve = curve_of({"episode_return": {10: 1.0, 30: 3.0}, "clear_rate": {20: 0.5}, "q_mean": {}})
    assert curve.steps.tolist() == [10, 20, 30]
    np.testing.assert_equal(curve.columns["episode_return"], [1, NAN, 3])
    np.testing.assert_equal(curve.columns["clear_rate"], [NAN, 0.5, NAN])
    np.testing.assert_equal(curve.columns["q_mean"], [NAN] * 3)


def test_a_thinned_curve_keeps_means_and_leaves_gaps_out() -> None:
    thinned = thin(Curve(np.arange(6.0), {"q_mean": np.array([1, 3, NAN, 5, NAN, NAN])}), 3)
    assert thinned.steps.tolist() == [0.5, 2.5, 4.5]
    np.testing.assert_equal(thinned.columns["q_mean"], [2, 5, NAN])


def test_a_short_curve_is_not_thinned() -> None:
    curve = Curve(np.arange(3.0), {"q_mean": np.arange(3.0)})
    assert thin(curve, 3) is curve
    with pytest.raises(ValueError, match="0 rows"):
        thin(curve, 0)


def test_a_rolling_mean_covers_the_window_before_each_step() -> None:
    steps, values = np.array([1.0, 2, 3, 4]), np.array([10.0, NAN, 30, 50])
    means = rolling_mean(steps, values, np.array([0.0, 1, 2, 3, 4, 9]), window=2)
    np.testing.assert_equal(means, [NAN, 10, 10, 30, 40, NAN])


def test_runs_are_compared_up_to_the_end_of_the_shortest() -> None:
    curves = [Curve(np.array([1.0, end]), {}) for end in (100, 80, 120)]
    assert common_grid(curves, 5).tolist() == [0, 20, 40, 60, 80]


def test_a_band_is_mean_and_range_where_every_run_has_a_figure() -> None:
    mean, low, high = band([np.array([1.0, NAN, 3]), np.array([3.0, 2, 9])])
    np.testing.assert_equal(mean, [2, NAN, 6])
    np.testing.assert_equal(low, [1, NAN, 3])
    np.testing.assert_equal(high, [3, NAN, 9])
    assert spread([1.0, 3.0, 8.0]) == (4.0, 1.0, 8.0)
    assert math.isnan(spread([1.0, NAN]).mean)


def test_a_curve_survives_its_csv(tmp_path: Path) -> None:
    curve = curve_of({"episode_return": {10: 1.25, 30: -3.0}, "clear_rate": {20: 0.5}, "q_mean": {30: 7.0}})
    write_curve(tmp_path / "curve.csv", curve)
    assert (tmp_path / "curve.csv").read_text().splitlines()[:2] == [
        "env_steps,episode_return,clear_rate,q_mean",
        "10,1.25,,",
    ]
    read = load_curve(tmp_path / "curve.csv")
    np.testing.assert_equal([read.steps, *read.columns.values()], [curve.steps, *curve.columns.values()])


# Which runs there are, and what is left to do


def test_the_runs_differ_by_method_and_seed_alone(tmp_path: Path) -> None:
    plans = make_plans([4, 5], tmp_path, preset="default", env_steps=700, minutes=2.5, extra=["--agent.n-step", "1"])
    assert [plan.name for plan in plans] == ["double-dqn-seed4", "dqn-seed4", "double-dqn-seed5", "dqn-seed5"]
    configs = [parse_options(plan.arguments).config for plan in plans]
    assert [(config.agent.double, config.seed) for config in configs] == [(True, 4), (False, 4), (True, 5), (False, 5)]
    assert {(config.total_env_steps, config.max_minutes, config.agent.n_step) for config in configs} == {(700, 2.5, 1)}
    assert not any(config.agent.munchausen for config in configs)  # its targets would be the same for both
    assert not any(config.agent.target_epsilon or config.agent.target_epsilon_late for config in configs)
    same = [
        dataclasses.replace(config, seed=0, agent=dataclasses.replace(config.agent, double=True)) for config in configs
    ]
    assert all(config == same[0] for config in same)
    assert len({plan.folder for plan in plans}) == 4


def test_options_that_the_comparison_gives_itself_are_refused(tmp_path: Path) -> None:
    for option in ("--seed", "--agent.no-double", "--total-env-steps=5", "--agent.no_double", "--max_minutes"):
        with pytest.raises(UserError, match="given by the comparison itself"):
            make_plans([0], tmp_path, preset="default", env_steps=1, minutes=1, extra=[option])
    with pytest.raises(UserError, match="named twice"):
        make_plans([0, 0], tmp_path, preset="default", env_steps=1, minutes=1, extra=[])


@pytest.mark.parametrize(
    ("recorded", "state", "work"),
    [
        (None, None, "train"),
        (None, {"command": COMMAND, "finished": False}, "train"),
        (None, {"command": "python launch.py", "finished": False}, "train"),
        (None, {}, "train"),
        (None, {"command": COMMAND, "finished": True}, "evaluate"),
        (WANTED, None, "nothing"),
        (WANTED, {"command": COMMAND, "finished": True}, "nothing"),
    ],
)
def test_a_finished_run_is_kept_and_an_interrupted_one_redone(
    recorded: dict[str, Any] | None, state: dict[str, Any] | None, work: str
) -> None:
    assert work_left(WANTED, recorded, state) == work


def test_results_and_runs_of_other_settings_are_not_mixed_in() -> None:
    with pytest.raises(UserError, match="another command"):
        work_left(WANTED, WANTED | {"command": "python launch.py"}, None)
    with pytest.raises(UserError, match="another evaluation"):
        work_left(WANTED, WANTED | {"evaluation": {"episodes": 5}}, None)
    with pytest.raises(UserError, match="finished run of another command"):
        work_left(WANTED, None, {"command": "python launch.py", "finished": True})


def test_a_folder_of_other_origin_is_not_touched(tmp_path: Path) -> None:
    plan = RunPlan("dqn", 0, tmp_path / "dqn-seed0", ())
    assert read_state(plan) is None
    plan.folder.mkdir()
    with pytest.raises(UserError, match="did not make"):
        read_state(plan)


def test_a_refusal_of_launch_leaves_no_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (plan, _) = make_plans([0], tmp_path, preset="default", env_steps=1, minutes=1, extra=["--agent.gamma", "7"])
    with pytest.raises(UserError, match="refused the options"):
        train(plan)
    assert "--agent.gamma 7 is out of range" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Results


def test_results_survive_their_files(tmp_path: Path) -> None:
    results = [result(method, seed) for method in METHODS for seed in (0, 1, 2)]
    for each in results:
        save_result(tmp_path, each)
    loaded = load_results(tmp_path)
    assert [each.record for each in loaded] == [each.record for each in results]
    assert [each.episodes[:-1] for each in loaded] == [each.episodes[:-1] for each in results]
    assert math.isnan(loaded[0].episodes[-1].predicted)  # NaN, the cut-off episode's, equals nothing


def test_a_method_without_a_run_cannot_be_compared(tmp_path: Path) -> None:
    save_result(tmp_path, result("dqn", 0))
    with pytest.raises(UserError, match="no finished run of double-dqn"):
        load_results(tmp_path)


@pytest.mark.parametrize("suffix", [".json", "-curve.csv", "-episodes.csv"])
def test_a_damaged_result_is_named(suffix: str, tmp_path: Path) -> None:
    for method in METHODS:
        save_result(tmp_path, result(method, 0))
    (tmp_path / f"dqn-seed0{suffix}").write_text("}\n1,2\n")
    with pytest.raises(UserError, match=f"dqn-seed0{suffix}"):
        load_results(tmp_path)


def test_a_summary_has_mean_and_range_over_seeds() -> None:
    summary = summarise([result(method, seed) for method in METHODS for seed in (0, 1, 2)])
    dqn = summary["methods"]["dqn"]
    assert dqn["predicted"] == {"mean": 4.0, "low": 3.0, "high": 5.0}
    assert dqn["obtained"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert dqn["overestimation"] == {"mean": 3.0, "low": 2.0, "high": 4.0}
    assert summary["methods"]["double-dqn"]["overestimation"]["mean"] == 1.0
    assert (dqn["evaluation_clears"], dqn["evaluation_episodes"]) == (3, 6)
    assert summary["compared_at_env_steps"] == 1000
    assert dqn["training_return"]["mean"] == 956  # the steps 910 … 1000, plus the seed
    json.dumps(summary, allow_nan=False)


def test_the_table_has_a_row_per_run_and_one_per_method() -> None:
    lines = markdown_table([result(method, seed) for method in METHODS for seed in (0, 1)]).splitlines()
    assert len(lines) == 2 + 2 * (2 + 1)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].startswith("| **dqn**, mean (range) |")
    assert "2/4 (95 % CI 15 to 85 %)" in lines[-1]
    assert lines[-1].endswith("| 3.50 (3.00 … 4.00) | 1.00 (1.00 … 1.00) | 2.50 (2.00 … 3.00) |")


def test_figures_are_drawn_again_from_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in METHODS:
        for seed in (0, 1, 2):
            save_result(tmp_path / "data", result(method, seed))
    assert main(["--plot-only", "--out", str(tmp_path)]) == 0
    assert "| double-dqn-seed2 |" in capsys.readouterr().out
    for name in ("learning.png", "overestimation.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size < 200_000
    assert json.loads((tmp_path / "summary.json").read_text())["runs"]["dqn-seed1"]["command"] == COMMAND


def test_nothing_to_plot_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plot-only", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("compare_dqn: error: ")


# The whole, on the gridworld


@pytest.mark.slow
def test_a_comparison_trains_measures_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.compare_dqn", "--seeds", "0", "--env-steps", "1500", "--episodes", "3"]
    command += ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--", *GRID]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    progress = tmp_path / "runs" / "dqn-seed0" / "progress.jsonl"
    wait_for(lambda: progress.exists() and progress.read_text() != "", first)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert (first.returncode, err.count("\n")) == (130, 1), err
    assert "interrupted" in err
    data = tmp_path / "out" / "data"
    assert sorted(path.name for path in data.glob("*.json")) == ["double-dqn-seed0.json"]
    record = (data / "double-dqn-seed0.json").read_bytes()

    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (second.returncode, second.stderr) == (0, "")
    assert "double-dqn-seed0: done already" in second.stdout
    assert "dqn-seed0: training, then evaluation" in second.stdout
    assert (data / "double-dqn-seed0.json").read_bytes() == record
    for loaded in load_results(data):
        assert loaded.record["env_steps"] >= 1500
        assert loaded.record["settings"]["agent.double"] == (loaded.method == "double-dqn")
        assert len(loaded.episodes) == 3
        assert len(loaded.curve.steps) > 0
        assert not np.isnan(loaded.curve.columns["q_mean"]).all()
    assert (tmp_path / "out" / "learning.png").exists()


def play_on_grid(bias: float, epsilon: float = 0.0) -> MeasuredEpisode:
    """An episode from any square by the optimal values at gamma 0.5, all of them too large by `bias`."""

    def policy(states: NDArray[np.uint8]) -> NDArray[np.float32]:
        square = divmod(int(states[0, -1].argmax()), SIZE)
        return np.array([[move_value(square, move) + bias for move in MOVES.values()]], np.float32)

    env = GridworldEnvironment(exploring_starts=False)
    seed = np.random.SeedSequence(3)
    return play_episode(env, policy, stage=STAGE, epsilon=epsilon, reward_scale=1.0, gamma=0.5, seed=seed)


def move_value(square: tuple[int, int], move: tuple[int, int]) -> float:
    """The optimal value of a move: the return of the shortest way on, -1 a step but 0 for the last one."""
    after = (square[0] + move[0], square[1] + move[1])
    if not (0 <= after[0] < SIZE and 0 <= after[1] < SIZE):
        after = square
    moves_left = max(abs(after[0] - END[0]), abs(after[1] - END[1]))
    return -sum(0.5**k for k in range(moves_left))


def measured(*, truncated: bool, length: int) -> MeasuredEpisode:
    """An episode at gamma 0.97."""
    return measure_episode(
        np.zeros(length), np.ones(length), reward_scale=1, gamma=0.97, x_pos=0, clear=False, truncated=truncated
    )


def result(method: Method, seed: int) -> RunResult:
    """A made-up run: predicted Q-values are 2 for double DQN and 3 + seed for DQN, what is obtained is 1."""
    steps = np.arange(10.0, 1001 + seed, 10)
    curve = Curve(
        steps,
        {
            "episode_return": steps + seed,
            "clear_rate": np.full(len(steps), 0.1),
            "q_mean": np.where(steps > 100, 1.0, NAN),
        },
    )
    predicted = 2.0 if method == "double-dqn" else 3.0 + seed
    episodes = [
        MeasuredEpisode(2000.0, 400, 3161, True, False, 400, predicted, 1.0),
        MeasuredEpisode(30.0, 100, 314, False, True, 0, NAN, NAN),
    ]
    record = {
        "method": method,
        "seed": seed,
        "ended_by": "the limit of 1,000 env steps is reached",
        "env_steps": 1000,
        "updates": 125,
        "minutes": 1.5,
        **WANTED,
    }
    return RunResult(record, curve, episodes)
