"""Near-greedy episodes on seeds of their own, to measure a policy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from actors import gridworld
from actors.environment import Environment
from common.statistics import wilson_interval
from common.types import Episode
from common.validation import STAGES, WHOLE_GAME

PolicyFn = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""States, uint8 [B, S, *F], to Q-values, float32 [B, A]."""

# Appended to, never reordered: a stage's place is part of its episodes' seeds.
_STAGE_KEYS: Final = {stage: key for key, stage in enumerate((*STAGES, WHOLE_GAME, gridworld.STAGE))}
# Every forward pass has this many rows, because the last bits of Q-values depend on the number of rows.
_BATCH: Final = 8
_STAGE_MAX_STEPS: Final = 2_000


@dataclass
class _Running:
    """An episode that is being played."""

    stage: str
    index: int
    env: Environment
    rng: np.random.Generator
    state: NDArray[np.uint8]
    info: dict[str, Any]
    x_pos: int
    total: float = 0.0
    actions: list[int] = field(default_factory=list)


class Evaluation:
    """Plays some episodes of each stage, several at a time, one step of all of them per call.

    Each episode has its own random numbers for its start, sticky actions and exploration, by its stage and number:
    the results do not depend on how many environments share the work, nor on the other stages.
    """

    def __init__(
        self,
        envs: Sequence[Environment],
        policy: PolicyFn,
        *,
        stages: Sequence[str],
        episodes: int,
        epsilon: float,
        seed: np.random.SeedSequence,
    ) -> None:
        """
        Args:
            envs: environments to play in, all alike; they can be used again once it is done.
            policy: see `PolicyFn`; actions are the argmax of its Q-values.
            stages: stages to play; "grid" for the gridworld.
            episodes: per stage.
            epsilon: probability of an action drawn evenly instead.
            seed: of all episodes, such as `common.seeding.role_seed(seed, "evaluator")`.
        """
        self._policy = policy
        self._stages = tuple(stages)
        self._num_episodes = episodes
        self._epsilon = epsilon
        self._seed = seed
        self._free = list(reversed(envs))
        self._waiting = [(stage, index) for stage in reversed(stages) for index in reversed(range(episodes))]
        self._running: list[_Running] = []
        self._finished: dict[tuple[str, int], Episode] = {}
        self._actions: dict[tuple[str, int], list[int]] = {}

    def extend(self, episodes: int) -> None:
        """Adds so many episodes of each stage; they are those that a longer evaluation would have had."""
        added = range(self._num_episodes, self._num_episodes + episodes)
        self._waiting[:0] = [(stage, index) for stage in reversed(self._stages) for index in reversed(added)]
        self._num_episodes += episodes

    @property
    def done(self) -> bool:
        """Whether all episodes are over."""
        return not self._waiting and not self._running

    @property
    def episodes(self) -> dict[str, list[Episode]]:
        """The finished episodes of each stage, in the order of their numbers."""
        return {
            stage: [self._finished[stage, i] for i in range(self._num_episodes) if (stage, i) in self._finished]
            for stage in self._stages
        }

    def step(self) -> list[Episode]:
        """One agent step of every environment that has work; returns the episodes that it ended."""
        while self._free and self._waiting:
            self._running.append(self._start(*self._waiting.pop(), self._free.pop()))
        if not self._running:
            return []
        greedy = self._greedy_actions(np.stack([running.state for running in self._running]))
        return [
            episode
            for running, action in zip(list(self._running), greedy, strict=True)
            if (episode := self._advance(running, action)) is not None
        ]

    def run(self, on_episode: Callable[[Episode], None] | None = None) -> dict[str, list[Episode]]:
        """Plays to the end.

        Args:
            on_episode: called with each episode as it ends.
        """
        while not self.done:
            for episode in self.step():
                if on_episode is not None:
                    on_episode(episode)
        return self.episodes

    def best(self, stage: str) -> int:
        """The number of the stage's best finished episode: by stages cleared, then x, then return."""

        def merit(index: int) -> tuple[int, int, float]:
            episode = self._finished[stage, index]
            return episode.stages_cleared, episode.x_pos, episode.episode_return

        return max((i for i in range(self._num_episodes) if (stage, i) in self._finished), key=merit)

    def replay(self, env: Environment, stage: str, index: int) -> Iterator[NDArray[np.uint8]]:
        """A finished episode's screens, by playing its actions once more: one at its start and one per step.

        Args:
            env: a free environment, like the others.
            stage: which stage.
            index: number of the episode.

        Yields:
            RGB, uint8 [H, W, 3].
        """
        env.reset(seed=self._episode_seed(stage, index, 0), options={"stage": stage})
        yield env.render()
        for action in self._actions[stage, index]:
            env.step(action)
            yield env.render()

    def _episode_seed(self, stage: str, index: int, purpose: int) -> np.random.SeedSequence:
        """The seed of an episode's environment (purpose 0) or exploration (1)."""
        key = (*self._seed.spawn_key, _STAGE_KEYS[stage], index, purpose)
        return np.random.SeedSequence(self._seed.entropy, spawn_key=key)

    def _start(self, stage: str, index: int, env: Environment) -> _Running:
        state, info = env.reset(seed=self._episode_seed(stage, index, 0), options={"stage": stage})
        rng = np.random.default_rng(self._episode_seed(stage, index, 1))
        return _Running(stage, index, env, rng, state, info, info["x_pos"])

    def _greedy_actions(self, states: NDArray[np.uint8]) -> list[int]:
        """Actions of the largest Q-values for states [n, S, *F], of which the policy sees `_BATCH` at a time."""
        actions: list[int] = []
        for first in range(0, len(states), _BATCH):
            part = states[first : first + _BATCH]
            batch = np.zeros((_BATCH, *states.shape[1:]), np.uint8)
            batch[: len(part)] = part
            actions += self._policy(batch)[: len(part)].argmax(axis=1).tolist()
        return actions

    def _advance(self, running: _Running, greedy: int) -> Episode | None:
        """Plays one step of one episode; returns it if that was its last."""
        action = greedy
        if running.rng.random() < self._epsilon:
            action = int(running.rng.integers(running.env.environment_spec.num_actions))
        running.state, reward, terminated, truncated, running.info = running.env.step(action)
        running.actions.append(action)
        running.total += reward
        running.x_pos = max(running.x_pos, running.info["x_pos"])
        return self._finish(running, truncated) if terminated or truncated else None

    def _finish(self, running: _Running, truncated: bool) -> Episode:
        self._running.remove(running)
        self._free.append(running.env)
        episode = Episode(
            stage=running.stage,
            episode_return=running.total,
            length=len(running.actions),
            x_pos=running.x_pos,
            final_x=running.info["x_pos"],
            time_left=running.info["time"],
            clear=running.info["clear"],
            stages_cleared=running.info["stages_cleared"],
            truncated=truncated,
            epsilon=self._epsilon,
        )
        self._finished[running.stage, running.index] = episode
        self._actions[running.stage, running.index] = running.actions
        return episode


def evaluation_max_steps(env_name: str, stages: Sequence[str], max_steps: int | None) -> int | None:
    """Agent steps after which an evaluation episode is truncated, in a run and in `evaluate.py` alike.

    Args:
        env_name: "mario" or "gridworld".
        stages: stages to play.
        max_steps: what was asked for, `EvalConfig.max_steps`; None: 2,000 for a stage, the gridworld's own limit
            there, and no limit in the whole game, which ends with its lives.

    Returns:
        None for no limit.
    """
    if max_steps is not None:
        return max_steps
    if env_name == "gridworld":
        return gridworld.DEFAULT_MAX_STEPS
    return None if tuple(stages) == (WHOLE_GAME,) else _STAGE_MAX_STEPS


def may_be_best(clears: int, episodes: int, best: float) -> bool:
    """Whether more episodes may show a policy to be better than the best so far.

    Policies are ranked by the lower end of Wilson's interval of their clear rate, which many episodes raise. That is
    worth the time once half of the episodes are clears, and for as long as the interval reaches beyond `best`.

    Args:
        clears: of the policy's episodes so far.
        episodes: their number, at least 1.
        best: the highest lower end so far, 0 … 1.
    """
    return 2 * clears >= episodes and wilson_interval(clears, episodes)[1] > best


def summarise(episodes: Sequence[Episode]) -> dict[str, Any]:
    """The figures of one stage's episodes, at least one, as the evaluation's JSON has them."""
    clears = sum(episode.clear for episode in episodes)
    return {
        "episodes": len(episodes),
        "clears": clears,
        "clear_rate": clears / len(episodes),
        "clear_rate_ci95": list(wilson_interval(clears, len(episodes))),
        "mean_return": float(np.mean([episode.episode_return for episode in episodes])),
        "mean_x": float(np.mean([episode.x_pos for episode in episodes])),
        "mean_length": float(np.mean([episode.length for episode in episodes])),
        "mean_stages_cleared": float(np.mean([episode.stages_cleared for episode in episodes])),
    }
