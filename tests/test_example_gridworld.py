"""The tabular learners of `examples/gridworld.py`, against value iteration."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from actors.gridworld import END, MOVES, SIZE
from examples import gridworld
from examples.gridworld import (
    END_SQUARE,
    PLAYABLE,
    START_SQUARE,
    DoubleQLearning,
    Learner,
    QLearning,
    TargetTableQLearning,
    grid_model,
    optimal_arrows,
    train,
    value_iteration,
)

PROGRAM = Path(gridworld.__file__)
DISCOUNT = 0.9
LEARNERS: dict[str, Callable[[], Learner]] = {
    "q-learning": lambda: QLearning(0.2),
    "target-table": lambda: TargetTableQLearning(0.2, copy_period=50),
    "double": lambda: DoubleQLearning(0.2, np.random.default_rng(1)),
}
each_learner = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, in a folder of its own."""
    command = [sys.executable, "-W", "error", str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_value_iteration_gives_the_discounted_number_of_moves() -> None:
    q_values = value_iteration(grid_model(), DISCOUNT)
    for square in PLAYABLE:
        row, column = divmod(square, SIZE)
        moves = max(abs(row - END[0]), abs(column - END[1]))  # with diagonals
        assert q_values[square].max() == pytest.approx(-sum(DISCOUNT**i for i in range(moves - 1)))
    assert q_values[START_SQUARE, list(MOVES).index("down")] == pytest.approx(-1 - DISCOUNT)  # off the edge
    assert not q_values[END_SQUARE].any()


@pytest.mark.parametrize(("moves", "expected"), [("up+right up+right", -1), ("right right up up", -3)])
def test_the_articles_paths_have_the_articles_returns(moves: str, expected: int) -> None:
    assert gridworld.path_return(*moves.split()) == expected


@each_learner
@pytest.mark.parametrize("seed", range(3))
def test_each_learner_finds_an_optimal_move_of_every_square(make: Callable[[], Learner], seed: int) -> None:
    learner = make()
    train(learner, episodes=1_000, discount=DISCOUNT, epsilon=0.2, seed=seed)
    assert optimal_arrows(learner.table, value_iteration(grid_model(), DISCOUNT)) == len(PLAYABLE)


@each_learner
def test_each_learners_tables_become_the_optimal_q_values(make: Callable[[], Learner]) -> None:
    learner, optimal = make(), value_iteration(grid_model(), DISCOUNT)
    train(learner, episodes=400, discount=DISCOUNT, epsilon=1.0, seed=0)
    np.testing.assert_allclose(learner.table, optimal, atol=1e-3)
    np.testing.assert_allclose(learner.values, optimal.max(axis=1), atol=1e-3)


def test_q_learning_bootstraps_from_its_own_maximum() -> None:
    learner = QLearning(0.5)
    learner.table[4] = [-3, -1, -2, -4, -5, -6, -7, -8]
    learner.update(6, 5, -1.0, 0.9, 4)
    assert learner.table[6, 5] == pytest.approx(0.5 * (-1 + 0.9 * -1))
    learner.update(6, 5, 0.0, 0.0, 4)
    assert learner.table[6, 5] == pytest.approx(0.25 * (-1 + 0.9 * -1))


def test_a_target_table_stands_still_between_copies() -> None:
    learner = TargetTableQLearning(1.0, copy_period=2)
    learner.table[4] = -5.0
    learner.update(6, 0, -1.0, 0.9, 4)
    assert learner.table[6, 0] == -1.0  # the copy still says 0
    learner.update(7, 0, -1.0, 0.9, 4)
    assert learner.values[4] == -5.0
    learner.table[4] = -6.0
    learner.update(6, 0, -1.0, 0.9, 4)
    assert learner.table[6, 0] == -1.0 + 0.9 * -5.0


class _Coin:
    """Shows the same side each time."""

    def __init__(self, side: int) -> None:
        self._side = side

    def integers(self, high: int) -> int:
        return self._side


@pytest.mark.parametrize("side", [0, 1])
def test_in_double_q_learning_one_table_chooses_and_the_other_values(side: int) -> None:
    learner = DoubleQLearning(1.0, _Coin(side))  # type: ignore[arg-type]  # a coin is all that it needs
    learning, other = learner._tables[side], learner._tables[1 - side]
    learning[4] = [-9, -1, -9, -9, -9, -9, -9, -9]
    other[4] = [-2, -7, -2, -2, -2, -2, -2, -2]
    learner.update(6, 3, -1.0, 0.9, 4)
    assert learning[6, 3] == -1 + 0.9 * -7
    assert not other[6].any()
    assert learner.table[6, 3] == learning[6, 3] / 2
    assert learner.values[4] == (-7 - 9) / 2  # the other's first best move is move 0


def test_noise_makes_one_table_overestimate_and_two_not() -> None:
    optimal = value_iteration(grid_model(), DISCOUNT).max(axis=1)
    excess = {}
    for name, make in LEARNERS.items():
        learner = make()
        train(learner, episodes=300, discount=DISCOUNT, epsilon=1.0, seed=0, reward_noise=11)
        excess[name] = (learner.values - optimal)[PLAYABLE].mean()
    assert excess["q-learning"] > 15
    assert excess["target-table"] > 15
    assert abs(excess["double"]) < 8


class _Recorder(QLearning):
    """Notes the squares and discounts of its steps, and learns nothing."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.squares: list[int] = []
        self.discounts: list[tuple[bool, float]] = []  # whether it was the end, and the discount

    def update(self, s_tm1: int, a_tm1: int, r_t: float, discount_t: float, s_t: int) -> None:
        self.squares.append(s_tm1)
        self.discounts.append((s_t == END_SQUARE, discount_t))


@pytest.mark.parametrize(("fixed_start", "starts"), [(True, {START_SQUARE}), (False, set(PLAYABLE))])
def test_episodes_begin_bottom_left_or_on_every_square(fixed_start: bool, starts: set[int]) -> None:
    seen = set()
    for seed in range(60):
        learner = _Recorder()
        train(learner, episodes=1, discount=DISCOUNT, epsilon=1.0, seed=seed, fixed_start=fixed_start)
        seen.add(learner.squares[0])
    assert seen == starts


def test_the_end_and_nothing_else_has_the_discount_0() -> None:
    learner = _Recorder()
    returns = train(learner, episodes=300, discount=DISCOUNT, epsilon=0.0, seed=0)
    assert set(learner.discounts) == {(True, 0.0), (False, DISCOUNT)}
    assert returns.min() == -100  # one was cut off


def test_the_normalised_scale_runs_from_a_random_walk_to_the_optimal_policy() -> None:
    walk = train(QLearning(0.1), episodes=2_000, discount=DISCOUNT, epsilon=1.0, seed=1)
    assert gridworld.normalise(walk, fixed_start=False).mean() == pytest.approx(0, abs=0.1)
    best = value_iteration(grid_model(), 1.0).max(axis=1)[PLAYABLE]
    assert gridworld.normalise(best, fixed_start=False).mean() == pytest.approx(1)
    assert gridworld.normalise(np.array([-1.0]), fixed_start=True) == pytest.approx(1)


def test_a_rolling_mean_covers_the_last_values() -> None:
    np.testing.assert_allclose(gridworld.rolling_mean(np.array([1.0, 3.0, 5.0, 10.0]), 2), [2, 4, 7.5])


def test_arrows_point_where_the_moves_go() -> None:
    table = np.zeros((9, 8))
    for square, move in enumerate(["up", "down", "up", "left", "right", "up+left", "up+right", "down+left", "up"]):
        table[square, list(MOVES).index(move)] = 1
    table[8, list(MOVES).index("down+right")] = 2
    assert gridworld.draw_policy(table) == "↑ ↓ ●\n← → ↖\n↗ ↙ ↘"


def test_the_program_prints_three_optimal_policies_and_saves_the_plot(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith((" ", "From", "The"))] == [
        "Q-learning",
        "Q-learning with a copied target table",
        "double Q-learning",
    ]
    assert done.stdout.count("8 of 8 arrows are optimal") == 3
    assert "From the start, up+right, up+right returns -1." in lines
    assert "From the start, right, right, up, up returns -3." in lines
    image = matplotlib.image.imread(tmp_path / "gridworld-rolling-reward.png")
    assert image.shape[:2] == (540, 960)
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 50  # curves, not an empty page


def test_a_seed_repeats_the_output_and_another_one_changes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for seed in ("3", "3", "4"):
        options = ["--episodes", "40", "--reward-noise", "5", "--out", str(tmp_path / "plot.svg"), "--seed", seed]
        assert gridworld.main(options) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--episodes", "0"], "argument --episodes: 0 is less than 1"),
        (["--episodes", "many"], "argument --episodes"),
        (["--epsilon", "nan"], "argument --epsilon: nan is not between 0 and 1"),
        (["--discount", "1"], "argument --discount"),
        (["--window", "30", "--episodes", "20"], "--window 30 is more than the 20 episodes"),
        (["--out", "plot.txt"], "ends in .png"),
        (["--out", "missing/plot.png"], "does not exist"),
        (["--sed", "1"], "unrecognized arguments: --sed 1"),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gridworld.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gridworld.py: error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert list(tmp_path.iterdir()) == []
