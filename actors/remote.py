"""The Ray shells of actor and evaluator: they only translate calls."""

import functools
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError

from actors.actor import ReplayWriter
from actors.environment import environment_spec, make_environment
from actors.evaluation import Evaluation, evaluation_max_steps, may_be_best
from actors.factory import build_actor, build_exploration
from actors.gridworld import STAGE as GRID
from actors.video import encode_gif
from common.config import ActorsConfig, AgentConfig, EnvConfig, EvalConfig
from common.networks import build_network, unflatten_
from common.policy import Policy
from common.process import tune_process
from common.seeding import role_seed
from common.types import Episode, Weights

EVALUATION_ENVS = 8
"""Environments of an evaluator, at most."""

_BLOCKED_POLL_S = 0.1
_ANSWER_S = 1.0  # for an answer that is waited for
_FRAMES_PER_GIF_FRAME = 2  # an evaluation's animation is kept small: it goes into TensorBoard's file


class RemoteWriter(ReplayWriter, Protocol):
    """A replay writer whose calls are answered later."""

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether the actor may go on, waiting at most so long."""

    def set_shards(self, shards: Sequence[Any]) -> None:
        """Sends to other shards from now on."""


class ActorReport(NamedTuple):
    """What an actor did in one slice."""

    env_steps: int
    episodes: list[Episode]  # from a stage's start
    saved_starts: list[Episode]
    seconds: float
    waited_s: float  # because replay refused
    weight_version: int
    epsilon_low: float
    epsilon_high: float
    actor: int
    stage_shares: dict[str, float]  # each stage's chance in the next draw


class RemoteWeights:
    """Asks the learner's process for newer weights, one call in flight.

    Args:
        learner: the learner's Ray actor.
        poll_s: seconds between calls, whose answers are not waited for. 0: before every step, and waited for,
            as the tutorials' presets have it, where each step is taken with the weights of the newest update.
        waits_first: whether the first weights are waited for as well, because the initial ones are outdated.
    """

    def __init__(self, learner: Any, poll_s: float, *, waits_first: bool = False) -> None:
        self._learner = learner
        self._waits_first = waits_first
        self._is_new = False  # whether its versions may have begun anew
        self._poll_s = poll_s
        self._next_poll = 0.0
        self._pending: Any = None

    def newer_than(self, version: int) -> Weights | None:
        """See `WeightSource`; a learner that died is asked again later, its last weights stay in use."""
        waits = self._poll_s == 0 or (self._waits_first and version == 0)
        asked_before = self._pending is not None
        if not asked_before:
            self._request(version)
        if self._pending is None or not (asked_before or waits):
            return None
        ready, _ = ray.wait([self._pending], timeout=_ANSWER_S if waits else 0)
        if not ready:
            return None
        try:
            answer = ray.get(self._pending)
            if answer is None:
                return None
            version, updates, backup_epsilon, (flat,) = answer
            weights = Weights(version, updates, backup_epsilon, ray.get(flat))
            self._is_new = False
            return weights
        except RayError:
            return None
        finally:
            self._pending = None

    def set_learner(self, learner: Any) -> None:
        """Asks another learner from now on, whose weights are taken whatever their version."""
        self._learner, self._is_new = learner, True
        self._pending, self._next_poll = None, 0.0

    def _request(self, version: int) -> None:
        now = time.monotonic()
        if now >= self._next_poll:
            self._next_poll = now + self._poll_s
            self._pending = self._learner.weights.remote(-1 if self._is_new else version)


class RemoteActor:
    """An actor process; the driver runs it a slice at a time."""

    def __init__(
        self,
        *,
        env: EnvConfig,
        agent: AgentConfig,
        actors: ActorsConfig,
        index: int,
        count: int,
        seed: int,
        incarnation: int,
        writer: RemoteWriter,
        learner: Any,
        state: dict[str, Any] | None,
    ) -> None:
        torch.set_num_threads(1)
        tune_process()
        self._writer = writer
        self._exploration = functools.partial(build_exploration, actors, index=index)
        self._weights = RemoteWeights(learner, actors.weights_poll_s, waits_first=incarnation > 0)
        self._actor = build_actor(
            env=env,
            agent=agent,
            actors=actors,
            index=index,
            count=count,
            seed=seed,
            incarnation=incarnation,
            writer=writer,
            weights=self._weights,
        )
        self._taken_over = 0
        if state is not None:
            self._actor.load_state_dict(state)
            self._taken_over = self._actor.num_envs

    def episodes_taken_over(self) -> int:
        """Running episodes that it has gone on with, of the state that it was given."""
        return self._taken_over

    def state(self) -> dict[str, Any]:
        """What a later actor of this index can go on from; see `Actor.state_dict`."""
        return self._actor.state_dict(whole=False)

    def set_count(self, count: int) -> None:
        """Takes its place in a ladder of exploration over so many actors."""
        self._actor.exploration = self._exploration(count=count)

    def set_shards(self, shards: Sequence[Any]) -> None:
        """Sends to other replay shards: one of them was replaced."""
        self._writer.set_shards(shards)

    def set_learner(self, learner: Any) -> None:
        """Takes weights from another learner: it was replaced."""
        self._weights.set_learner(learner)

    def run(self, seconds: float, max_env_steps: int | None = None) -> ActorReport:
        """Plays for so long or so many agent steps; waits while the replay refuses chunks."""
        start = time.monotonic()
        env_steps, waited_s, episodes = 0, 0.0, []
        while time.monotonic() - start < seconds and (max_env_steps is None or env_steps < max_env_steps):
            before = time.monotonic()
            ready = self._writer.wait_ready(_BLOCKED_POLL_S)
            waited_s += time.monotonic() - before
            if ready:
                episodes.extend(self._actor.step())
                env_steps += self._actor.num_envs
        epsilons = self._actor.epsilons
        return ActorReport(
            env_steps=env_steps,
            episodes=[episode for episode in episodes if not episode.saved_start],
            saved_starts=[episode for episode in episodes if episode.saved_start],
            seconds=time.monotonic() - start,
            waited_s=waited_s,
            weight_version=self._actor.weight_version,
            epsilon_low=float(epsilons.min()),
            epsilon_high=float(epsilons.max()),
            actor=self._actor.index,
            stage_shares=self._actor.stage_shares,
        )


class EvaluationReport(NamedTuple):
    """A finished evaluation."""

    episodes: dict[str, list[Episode]]  # by stage
    weights: NDArray[np.float32]  # [P], the evaluated network
    updates: int  # behind those weights
    seconds: float  # that the evaluator worked for it
    gif: bytes | None  # the first stage's best episode
    gif_shape: tuple[int, int]  # height and width


class RemoteEvaluator:
    """The evaluator's process; the driver gives it weights and then runs it a slice at a time."""

    def __init__(self, *, env: EnvConfig, agent: AgentConfig, evaluation: EvalConfig, seed: int) -> None:
        torch.set_num_threads(1)
        self._settings = evaluation
        stages = evaluation.stages or env.stages
        self._stages = (GRID,) if env.name == "gridworld" else stages
        self._seed = role_seed(seed, "evaluator")
        spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
        max_steps = evaluation_max_steps(env.name, stages, evaluation.max_steps)
        settings = replace(env, noop_max=evaluation.noop_max, max_steps=max_steps, stages=stages)
        count = min(EVALUATION_ENVS, evaluation.episodes * len(self._stages))
        self._envs = [make_environment(**asdict(settings), seed=self._seed) for _ in range(count)]
        self._policy = Policy(
            build_network(spec, agent.dueling, 0, agent.network, agent.layer_norm, agent.quantiles), spec, {}
        )
        self._evaluation: Evaluation | None = None
        self._updates = 0
        self._worked_s = 0.0
        self._best = 0.0
        self._weights = np.zeros(0, np.float32)

    def begin(self, weights: list[Any], updates: int, best: float) -> None:
        """Starts an evaluation.

        Args:
            weights: one reference to the flat parameters, float32 [P].
            updates: the learner's updates behind them.
            best: the best policy's clear rate so far, the lower end of its interval.
        """
        self.begin_with(np.array(ray.get(weights[0])), updates, best)

    def begin_with(self, weights: NDArray[np.float32], updates: int, best: float) -> None:
        """As `begin`, with the parameters themselves."""
        self._best = best
        self._weights = weights
        unflatten_(self._policy.network, self._weights)
        self._updates = updates
        self._worked_s = 0.0
        # The same seeds every time: evaluations of one run differ by the policy alone.
        self._evaluation = Evaluation(
            self._envs,
            self._policy.q_values,
            stages=self._stages,
            episodes=self._settings.episodes,
            epsilon=self._settings.epsilon,
            seed=self._seed,
        )

    def run(self, seconds: float) -> EvaluationReport | None:
        """Plays for so long; the report when the evaluation is complete."""
        if self._evaluation is None:
            raise RuntimeError("no evaluation was begun")
        start = time.monotonic()
        goes_on = True
        while goes_on and time.monotonic() - start < seconds:
            self._evaluation.step()
            goes_on = not self._evaluation.done or self._goes_on(self._evaluation)
        report = None if goes_on else self._report(self._evaluation)
        self._worked_s += time.monotonic() - start
        return report and report._replace(seconds=self._worked_s)

    def _goes_on(self, evaluation: Evaluation) -> bool:
        """Whether there are to be more episodes; if so, they are added."""
        played = len(evaluation.episodes[self._stages[0]])
        more = min(self._settings.episodes, self._settings.max_episodes - played)
        episodes = [episode for each in evaluation.episodes.values() for episode in each]
        clears = sum(episode.clear for episode in episodes)
        if more <= 0 or not may_be_best(clears, len(episodes), self._best):
            return False
        evaluation.extend(more)
        return True

    def _report(self, evaluation: Evaluation) -> EvaluationReport:
        gif, shape = self._animate(evaluation) if self._settings.video else (None, (0, 0))
        return EvaluationReport(evaluation.episodes, self._weights, self._updates, 0.0, gif, shape)

    def _animate(self, evaluation: Evaluation) -> tuple[bytes, tuple[int, int]]:
        stage = self._stages[0]
        screens = list(evaluation.replay(self._envs[0], stage, evaluation.best(stage)))[::_FRAMES_PER_GIF_FRAME]
        return encode_gif(screens), (screens[0].shape[0], screens[0].shape[1])
