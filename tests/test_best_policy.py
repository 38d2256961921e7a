"""`best.pt` is the best evaluated policy so far."""

from pathlib import Path

import numpy as np
import pytest

from actors.environment import environment_spec
from actors.remote import EvaluationReport
from common.config import AgentConfig, Config, EnvConfig, EvalConfig
from common.networks import build_network, flatten
from common.policy import load_policy
from common.types import Episode
from driver.counters import Counters
from driver.evaluations import BestPolicy, Score, describe, evaluation_interval_s
from driver.run_directory import RunDirectory

CONFIG = Config(env=EnvConfig(name="gridworld"), agent=AgentConfig(quantiles=1))
SPEC = environment_spec(name="gridworld")


def _report(clears: list[bool], x: int, seed: int) -> EvaluationReport:
    episodes = [Episode("1-1", 10.0, 5, x, x, 300, clear, int(clear), False, 0.01) for clear in clears]
    weights = flatten(build_network(SPEC, dueling=False, seed=seed))
    return EvaluationReport({"1-1": episodes}, weights, 100 * seed, 1.0, None, (0, 0))


def _best(tmp_path: Path, score: Score | None = None) -> BestPolicy:
    return BestPolicy(CONFIG, SPEC, RunDirectory(tmp_path), score)


def _saved_updates(tmp_path: Path) -> object:
    return load_policy(tmp_path / "best.pt").metadata["updates"]


def test_more_clears_beat_a_larger_x_and_x_decides_among_few_equal_clears(tmp_path: Path) -> None:
    best, counters = _best(tmp_path), Counters(env_steps=7)
    assert best.consider(_report([False, False, False], 3_000, seed=1), counters)
    assert best.consider(_report([True, False, False], 500, seed=2), counters)
    assert not best.consider(_report([False, False, False], 3_100, seed=3), counters)
    assert _saved_updates(tmp_path) == 200
    assert best.consider(_report([True, False, False], 501, seed=4), counters)
    assert not best.consider(_report([True, False, False], 500, seed=5), counters)
    assert _saved_updates(tmp_path) == 400


def test_among_many_equal_clears_the_later_policy_stays_wherever_the_others_ended(tmp_path: Path) -> None:
    best = _best(tmp_path)
    assert best.consider(_report([True, True, False], 3_000, seed=1), Counters())
    assert best.consider(_report([True, True, False], 2_000, seed=2), Counters())
    assert not best.consider(_report([True, False, False], 3_100, seed=3), Counters())
    assert _saved_updates(tmp_path) == 200


def test_with_several_stages_the_episodes_of_all_count_together(tmp_path: Path) -> None:
    def report(clears: dict[str, list[bool]], seed: int) -> EvaluationReport:
        episodes = {stage: _report(of, 500, seed).episodes["1-1"] for stage, of in clears.items()}
        return _report([], 0, seed)._replace(episodes=episodes)

    best = _best(tmp_path)
    assert best.consider(report({"1-1": [True] * 3, "1-2": [False] * 3}, seed=1), Counters())
    assert best.consider(report({"1-1": [True, True, False], "1-2": [True, True, False]}, seed=2), Counters())
    assert not best.consider(report({"1-1": [False] * 3, "1-2": [True] * 3}, seed=3), Counters())


@pytest.mark.parametrize(
    ("trained", "evaluated", "expected"),
    [(("1-1",), (), 200), (("1-1", "1-2"), (), 400), (("1-1",), ("1-1", "1-2", "1-3"), 600)],
)
def test_evaluations_of_several_stages_are_as_many_times_further_apart(
    trained: tuple[str, ...], evaluated: tuple[str, ...], expected: float
) -> None:
    config = Config(env=EnvConfig(stages=trained), eval=EvalConfig(stages=evaluated, interval_s=200.0))
    assert evaluation_interval_s(config) == expected


def test_the_saved_policy_is_the_evaluated_one(tmp_path: Path) -> None:
    _best(tmp_path).consider(_report([True], 10, seed=3), Counters())
    policy = load_policy(tmp_path / "best.pt")
    np.testing.assert_array_equal(flatten(policy.network), flatten(build_network(SPEC, dueling=False, seed=3)))
    assert policy.spec == SPEC


def test_a_resumed_run_keeps_its_best(tmp_path: Path) -> None:
    assert not _best(tmp_path, (0.5, 100.0, 0.0)).consider(_report([False, True], 99, seed=1), Counters())
    assert not (tmp_path / "best.pt").exists()


def test_a_run_that_resumes_from_before_its_best_policy_keeps_that(tmp_path: Path) -> None:
    _best(tmp_path).consider(_report([True, True], 100, seed=1), Counters())
    assert not _best(tmp_path, (0.0, 50.0, 0.0)).consider(_report([True, False], 3_000, seed=2), Counters())
    assert not _best(tmp_path).consider(_report([True, False], 3_000, seed=2), Counters())
    assert _saved_updates(tmp_path) == 100


@pytest.mark.parametrize(("clears", "text"), [([True] * 10, "72-100 %"), ([False] * 10, "0-28 %")])
def test_the_description_gives_wilsons_interval(clears: list[bool], text: str) -> None:
    assert text in describe(_report(clears, 1_234, seed=1))


def test_many_episodes_beat_a_few_that_all_were_clears(tmp_path: Path) -> None:
    best = _best(tmp_path)
    assert best.consider(_report([True] * 16, 3_161, seed=1), Counters())
    assert best.clear_rate == pytest.approx(0.806, abs=1e-3)
    assert best.consider(_report([True] * 90 + [False] * 6, 3_000, seed=2), Counters())
    assert best.clear_rate == pytest.approx(0.870, abs=1e-3)
    assert not best.consider(_report([True] * 16, 3_161, seed=3), Counters())
