"""Three tabular learners on the 3x3 grid: which one is double Q-learning?

    python examples/gridworld.py

The grid is that of the Paperspace article on double DQN: eight moves, start bottom left, end top right, -1 for every
square landed on and 0 for the end. Its rules have their one owner, `actors.gridworld`, which
`python launch.py --preset gridworld` trains on too.

All three learners move Q(s_tm1, a_tm1) a step towards a target. They differ in the target's bootstrap alone:

Q-learning (Watkins, 1989)
    r_t + discount * max_a Q(s_t, a). The same numbers choose the best move and say what it is worth. Where they are
    noisy, the maximum picks what happens to be too high, so the target is too high on average: maximisation bias.

Q-learning with a copied target table (the tabular form of DQN's target network; Mnih et al., 2015)
    r_t + discount * max_a Q'(s_t, a), Q' being a copy of Q, renewed every so many steps. The target stands still in
    between, which steadies a network that is trained towards its own output. One table still both chooses and
    values, so the bias is that of Q-learning. The article calls this double Q-learning; it is not.

Double Q-learning (van Hasselt, 2010)
    Two tables, A and B, that learn from different steps: a coin decides which. A's target is
    r_t + discount * B(s_t, argmax_a A(s_t, a)), and B's the mirror image: one table chooses, and the other, whose
    errors know nothing of the choice, values. Nothing is too high on average any more; it may be too low. Double DQN
    (van Hasselt et al., 2016) is that thought for networks: the online network chooses, the target network values.

The grid's rewards and moves are certain, so there is no noise to maximise over and all three end with the same values
(double Q-learning last, because each of its tables sees half of the steps): that, rather than the nine squares, is why
the article saw no advantage. `--reward-noise 11 --epsilon 1` shows one: each -1 becomes -12 or +10, evenly, as in the
grid of van Hasselt's paper.

What the article leaves open, and what is chosen here:

- The edge: a move off the grid stays where it is, at -1. All eight moves exist in every square.
- Exploration: epsilon-greedy at a constant epsilon, drawing among equal values. The tables begin at 0, the value of the
  last move and above that of all others, so what was not tried yet looks good and gets its turn early.
- Starts: an episode begins on any square but the end, drawn evenly, so that the best move of each is learned. With
  `--fixed-start` it begins bottom left, as the article's do; the other squares are then seldom seen, and their arrows
  may be wrong, as some of the article's are.
- Episodes: 1,000, as its text and plot have it; its code says 2,000.
- Discount: 0.9, as in its part about Mario. Learning rate, copy period and rolling window are ours.
- The plot's normalisation: a random walk from the same starts gets 0 on average, the optimal policy 1.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from actors.gridworld import END, MOVES, SIZE, START, GridworldEnvironment
from actors.video import check_writable
from common.errors import UserError
from common.streams import prepare_streams

Values = NDArray[np.float64]

NUM_SQUARES: Final = SIZE * SIZE
"""Squares are numbered row * 3 + column, from the top left."""
NUM_MOVES: Final = len(MOVES)
START_SQUARE: Final = START[0] * SIZE + START[1]
END_SQUARE: Final = END[0] * SIZE + END[1]
PLAYABLE: Final = [square for square in range(NUM_SQUARES) if square != END_SQUARE]
"""All squares but the end."""
_ARROWS: Final = dict(zip(MOVES, "↑↓←→↖↗↙↘", strict=True))
_END_MARK: Final = "●"
_TOLERANCE: Final = 1e-9  # values that differ by less are equal
_COIN_KEY: Final = 2  # of double Q-learning's seed; `train` uses 0 and 1


class Learner(Protocol):
    """A tabular learner."""

    @property
    def table(self) -> Values:
        """[squares, moves], the Q-values that it acts on."""

    @property
    def values(self) -> Values:
        """[squares], what it takes each square to be worth where a target needs that."""

    def update(self, s_tm1: int, a_tm1: int, r_t: float, discount_t: float, s_t: int) -> None:
        """Learns from one step; `discount_t` is 0 where it ended the episode."""


class QLearning:
    """One table that chooses and values."""

    def __init__(self, learning_rate: float) -> None:
        self.table = _new_table()
        self._learning_rate = learning_rate

    @property
    def values(self) -> Values:
        """See `Learner`."""
        best: Values = self.table.max(axis=1)
        return best

    def update(self, s_tm1: int, a_tm1: int, r_t: float, discount_t: float, s_t: int) -> None:
        """See `Learner`."""
        target = r_t + discount_t * self.table[s_t].max()
        self.table[s_tm1, a_tm1] += self._learning_rate * (target - self.table[s_tm1, a_tm1])


class TargetTableQLearning:
    """Q-learning whose targets come from a copy of the table, renewed every `copy_period` updates."""

    def __init__(self, learning_rate: float, copy_period: int) -> None:
        self.table = _new_table()
        self._target_table = _new_table()
        self._learning_rate = learning_rate
        self._copy_period = copy_period
        self._updates = 0

    @property
    def values(self) -> Values:
        """See `Learner`."""
        best: Values = self._target_table.max(axis=1)
        return best

    def update(self, s_tm1: int, a_tm1: int, r_t: float, discount_t: float, s_t: int) -> None:
        """See `Learner`."""
        target = r_t + discount_t * self._target_table[s_t].max()
        self.table[s_tm1, a_tm1] += self._learning_rate * (target - self.table[s_tm1, a_tm1])
        self._updates += 1
        if self._updates % self._copy_period == 0:
            self._target_table = self.table.copy()


class DoubleQLearning:
    """Two tables: a coin decides which one learns; it chooses the next square's best move, the other one values it."""

    def __init__(self, learning_rate: float, rng: np.random.Generator) -> None:
        self._tables = (_new_table(), _new_table())
        self._learning_rate = learning_rate
        self._rng = rng

    @property
    def table(self) -> Values:
        """The mean of both."""
        mean: Values = (self._tables[0] + self._tables[1]) / 2
        return mean

    @property
    def values(self) -> Values:
        """See `Learner`: the mean over the coin's two sides."""
        a, b = self._tables
        squares = np.arange(NUM_SQUARES)
        crossed: Values = (b[squares, a.argmax(axis=1)] + a[squares, b.argmax(axis=1)]) / 2
        return crossed

    def update(self, s_tm1: int, a_tm1: int, r_t: float, discount_t: float, s_t: int) -> None:
        """See `Learner`."""
        side = int(self._rng.integers(2))
        learning, other = self._tables[side], self._tables[1 - side]
        target = r_t + discount_t * other[s_t, learning[s_t].argmax()]
        learning[s_tm1, a_tm1] += self._learning_rate * (target - learning[s_tm1, a_tm1])


def train(
    learner: Learner,
    *,
    episodes: int,
    discount: float,
    epsilon: float,
    seed: int,
    fixed_start: bool = False,
    reward_noise: float = 0.0,
) -> Values:
    """Lets a learner play and learn.

    Args:
        learner: changed in place.
        episodes: how many. One of 100 moves is cut off; its last step bootstraps like any other.
        discount: per move.
        epsilon: probability of a move drawn evenly instead of the best one.
        seed: of starts, exploration and noise.
        fixed_start: begin bottom left each time, else on any square but the end.
        reward_noise: added to or taken from each -1, evenly.

    Returns:
        [episodes], the undiscounted returns without the noise.
    """
    starts, choices = np.random.SeedSequence(seed).spawn(2)
    env = GridworldEnvironment(exploring_starts=not fixed_start, seed=starts)
    rng = np.random.default_rng(choices)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        square, over = _square(env.reset()[0]), False
        while not over:
            move = _choose(learner.table[square], epsilon, rng)
            observation, reward, terminated, truncated, _ = env.step(move)
            noise = 0.0 if terminated else reward_noise * rng.choice((-1, 1))
            next_square, over = _square(observation), terminated or truncated
            learner.update(square, move, reward + noise, 0.0 if terminated else discount, next_square)
            returns[episode] += reward
            square = next_square
    return returns


@dataclass(frozen=True)
class GridModel:
    """What each move does, as the environment itself does it. Moves of the end square do nothing."""

    next_square: NDArray[np.int64]  # [squares, moves]
    reward: Values  # [squares, moves]
    goes_on: Values  # [squares, moves], 0 where the move ends the episode


def grid_model() -> GridModel:
    """The grid's rules as arrays."""
    env = GridworldEnvironment()
    shape = (NUM_SQUARES, NUM_MOVES)
    model = GridModel(np.full(shape, END_SQUARE), np.zeros(shape), np.zeros(shape))
    for square in PLAYABLE:
        for move in range(NUM_MOVES):
            env.reset(options={"square": divmod(square, SIZE)})
            observation, model.reward[square, move], terminated, _, _ = env.step(move)
            model.next_square[square, move] = _square(observation)
            model.goes_on[square, move] = not terminated
    return model


def value_iteration(model: GridModel, discount: float) -> Values:
    """[squares, moves], the optimal Q-values (Sutton and Barto, 2018, section 4.4)."""
    q_values, before = model.reward, np.full_like(model.reward, np.inf)
    while np.abs(q_values - before).max() > _TOLERANCE:
        before = q_values
        q_values = model.reward + discount * model.goes_on * q_values.max(axis=1)[model.next_square]
    return q_values


def random_walk_values(model: GridModel) -> Values:
    """[squares], the mean undiscounted return of moves drawn evenly, by its Bellman equations."""
    transition = np.zeros((NUM_SQUARES, NUM_SQUARES))
    from_square = np.arange(NUM_SQUARES).repeat(NUM_MOVES)
    np.add.at(transition, (from_square, model.next_square.ravel()), model.goes_on.ravel() / NUM_MOVES)
    return np.linalg.solve(np.eye(NUM_SQUARES) - transition, model.reward.mean(axis=1))


def optimal_arrows(table: Values, optimal: Values) -> int:
    """In how many playable squares the table's best move is an optimal one; a square may have several.

    Args:
        table: [squares, moves].
        optimal: [squares, moves], the optimal Q-values.
    """
    chosen = optimal[PLAYABLE, table[PLAYABLE].argmax(axis=1)]
    return int((chosen >= optimal[PLAYABLE].max(axis=1) - _TOLERANCE).sum())


def draw_policy(table: Values) -> str:
    """The best move of each square as an arrow, a line for each row of the grid."""
    arrows = np.array(list(_ARROWS.values()))[table.argmax(axis=1)]
    arrows[END_SQUARE] = _END_MARK
    return "\n".join(" ".join(row) for row in arrows.reshape(SIZE, SIZE))


def path_return(*moves: str) -> float:
    """The undiscounted return of named moves from the start square."""
    env = GridworldEnvironment(exploring_starts=False)
    env.reset()
    return sum(env.step(list(MOVES).index(move))[1] for move in moves)


def rolling_mean(values: Values, window: int) -> Values:
    """The means of every `window` values in a row; the first belongs to value number `window`."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def normalise(returns: Values, *, fixed_start: bool) -> Values:
    """Returns on the scale where a random walk gets 0 and the optimal policy 1, on average over the same starts.

    The random walk is one without a limit of moves, which few walks reach.
    """
    model = grid_model()
    starts = [START_SQUARE] if fixed_start else PLAYABLE
    random = random_walk_values(model)[starts].mean()
    optimal = value_iteration(model, discount=1.0).max(axis=1)[starts].mean()
    normalised: Values = (returns - random) / (optimal - random)
    return normalised


def save_plot(path: Path, returns: Mapping[str, Values], *, window: int, fixed_start: bool) -> None:
    """Draws each learner's rolling normalised reward over the episodes.

    Args:
        path: the file, by whose suffix the format goes.
        returns: [episodes] by the learner's name.
        window: episodes of the rolling mean, at most as many as there are.
        fixed_start: where the episodes began.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in returns.items():
        normalised = normalise(rolling_mean(values, window), fixed_start=fixed_start)
        axes.plot(np.arange(window, len(values) + 1), normalised, label=name, linewidth=1.2)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":", label="optimal policy")
    axes.set_xlabel("episode")
    axes.set_ylabel("reward (0: random walk, 1: optimal policy)")
    axes.set_title(f"3x3 grid: normalised reward, rolling mean over {window} episodes")
    axes.legend(loc="lower right")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake of the user's, which is said in one line."""
    prepare_streams()
    try:
        _run(_parser().parse_args(argv))
    except UserError as error:
        print(f"gridworld.py: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(options: argparse.Namespace) -> None:
    _check(options)
    optimal = value_iteration(grid_model(), options.discount)
    returns = {}
    for name, learner in _learners(options).items():
        returns[name] = train(
            learner,
            episodes=options.episodes,
            discount=options.discount,
            epsilon=options.epsilon,
            seed=options.seed,
            fixed_start=options.fixed_start,
            reward_noise=options.reward_noise,
        )
        print(f"{name}\n{_describe(learner, optimal)}\n")
    for path in (("up+right", "up+right"), ("right", "right", "up", "up")):
        print(f"From the start, {', '.join(path)} returns {path_return(*path):g}.")
    save_plot(options.out, returns, window=options.window, fixed_start=options.fixed_start)
    print(f"The plot is {options.out}.")


def _describe(learner: Learner, optimal: Values) -> str:
    """The policy, and how far it and the values are from value iteration's."""
    excess = (learner.values - optimal.max(axis=1))[PLAYABLE].mean()
    arrows = optimal_arrows(learner.table, optimal)
    text = f"{draw_policy(learner.table)}\n{arrows} of {len(PLAYABLE)} arrows are optimal; "
    return textwrap.indent(f"{text}values minus optimal values: {excess:+.2f} on average", "    ")


def _learners(options: argparse.Namespace) -> dict[str, Learner]:
    """The three by their names."""
    coin = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(_COIN_KEY,)))
    return {
        "Q-learning": QLearning(options.learning_rate),
        "Q-learning with a copied target table": TargetTableQLearning(options.learning_rate, options.copy_period),
        "double Q-learning": DoubleQLearning(options.learning_rate, coin),
    }


def _check(options: argparse.Namespace) -> None:
    """Refuses what would fail only after the training."""
    if options.window > options.episodes:
        raise UserError(f"--window {options.window} is more than the {options.episodes} episodes; give fewer")
    if options.out.suffix.removeprefix(".") not in Figure().canvas.get_supported_filetypes():
        raise UserError(f"--out {options.out}: give a file name that ends in .png, .svg or .pdf")
    check_writable(options.out)


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is a `UserError`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def _parser() -> argparse.ArgumentParser:
    about = "Tabular Q-learning, the same with a copied target table, and double Q-learning on the 3x3 grid."
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = _Parser(prog="gridworld.py", description=about, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add("--episodes", type=_at_least(1), default=1000, metavar="N", help="of each learner")
    add("--seed", type=_at_least(0), default=0, metavar="N", help="of all randomness")
    add("--learning-rate", type=_between(1e-6, 1), default=0.2, metavar="X", help="share of the way to the target")
    add("--discount", type=_between(0, 0.999), default=0.9, metavar="X", help="per move")
    add("--epsilon", type=_between(0, 1), default=0.2, metavar="P", help="probability of a move drawn evenly")
    add("--copy-period", type=_at_least(1), default=50, metavar="N", help="moves between copies of the target table")
    text = "begin each episode bottom left, as the article does, instead of anywhere"
    add("--fixed-start", action="store_true", help=text)
    text = "added to or taken from each -1, evenly; 11 as in van Hasselt's paper"
    add("--reward-noise", type=_between(0, 1e6), default=0.0, metavar="X", help=text)
    add("--window", type=_at_least(1), default=20, metavar="N", help="episodes of the plot's rolling mean")
    add("--out", type=Path, default=Path("gridworld-rolling-reward.png"), metavar="FILE", help="where the plot goes")
    return parser


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return number

    return whole_number


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def _new_table() -> Values:
    return np.zeros((NUM_SQUARES, NUM_MOVES))


def _choose(q_values: Values, epsilon: float, rng: np.random.Generator) -> int:
    """Epsilon-greedy; of several best moves each is as likely."""
    if rng.random() < epsilon:
        return int(rng.integers(NUM_MOVES))
    return int(rng.choice(np.flatnonzero(q_values == q_values.max())))


def _square(observation: NDArray[np.uint8]) -> int:
    """The number of the square that an observation, uint8 [1, 9], shows."""
    return int(observation.argmax())


if __name__ == "__main__":
    sys.exit(main())
