"""The actor: several environments stepped together, one batched forward pass, epsilon-greedy actions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from actors.chunks import ChunkBuilder
from actors.environment import Environment, Moment
from actors.n_step import Ending
from actors.saved_starts import SavedStarts, Trail
from actors.stages import StageSampler
from common.networks import QNetwork, to_inputs, unflatten_
from common.schedules import decayed_epsilon
from common.types import Chunk, EnvironmentSpec, Episode, Weights


class ReplayWriter(Protocol):
    """Where an actor's chunks go."""

    def push(self, chunk: Chunk) -> object:
        """Takes a chunk."""


class WeightSource(Protocol):
    """Where an actor's weights come from."""

    def newer_than(self, version: int) -> Weights | None:
        """The newest weights if their version is greater, without waiting."""


@dataclass(frozen=True)
class LadderExploration:
    """A fixed epsilon per environment, in the order of the actor's environments."""

    epsilons: tuple[float, ...]

    def values(self, updates: int) -> NDArray[np.float64]:
        """[E], whatever the number of updates."""
        return np.asarray(self.epsilons)


@dataclass(frozen=True)
class ScheduleExploration:
    """One epsilon for all environments; it decays with the learner's updates, which travel with the weights."""

    start: float
    final: float
    decay: float
    num_envs: int

    def values(self, updates: int) -> NDArray[np.float64]:
        """[E], all equal."""
        return np.full(self.num_envs, decayed_epsilon(updates, self.start, self.final, self.decay))


Exploration = LadderExploration | ScheduleExploration


@dataclass
class _Slot:
    """One environment and its running episode."""

    env: Environment
    builder: ChunkBuilder
    episode_return: float = 0.0
    length: int = 0
    x_pos: int = 0
    first_update: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    saved_start: bool = False
    trail: Trail = field(default_factory=Trail)

    def begin(self, updates: int, stage: str, moment: Moment | None = None) -> NDArray[np.uint8]:
        """Starts an episode, at a saved moment if there is one; its first state, [S, *F].

        Args:
            updates: the learner's behind the present weights.
            stage: which stage.
            moment: where in it to begin; None: at its start.
        """
        state, self.info = self.env.reset(options={"stage": stage} if moment is None else {"moment": moment})
        self.episode_return, self.length, self.x_pos = 0.0, 0, int(self.info["x_pos"])
        self.first_update = updates
        self.saved_start = moment is not None
        self.trail.begin()
        self.builder.begin(state if self.saved_start else state[-1:])
        first: NDArray[np.uint8] = state
        return first

    def count(self, reward: float, info: dict[str, Any]) -> None:
        """Adds a step to the episode's figures."""
        self.episode_return += reward
        self.length += 1
        self.info = info
        self.x_pos = max(self.x_pos, int(info["x_pos"]))

    def summary(self, *, truncated: bool, epsilon: float, actor: int, updates: int) -> Episode:
        """The episode, finished after so many learner updates."""
        return Episode(
            stage=str(self.info["stage"]),
            episode_return=self.episode_return,
            length=self.length,
            x_pos=self.x_pos,
            final_x=int(self.info["x_pos"]),
            time_left=int(self.info["time"]),
            clear=bool(self.info["clear"]),
            stages_cleared=int(self.info["stages_cleared"]),
            truncated=truncated,
            epsilon=epsilon,
            actor=actor,
            first_update=self.first_update,
            last_update=updates,
            saved_start=self.saved_start,
        )


class Actor:
    """Plays E environments in step and pushes chunks of n-step transitions; knows nothing of Ray.

    `step` is one agent step in each environment. The caller decides when to step: an actor whose replay
    refuses chunks must be left alone until it accepts them again.
    """

    def __init__(
        self,
        *,
        envs: Sequence[Environment],
        builders: Sequence[ChunkBuilder],
        network: QNetwork,
        bfloat16: bool,
        spec: EnvironmentSpec,
        exploration: Exploration,
        writer: ReplayWriter,
        weights: WeightSource,
        seed: np.random.SeedSequence,
        index: int,
        flag_reward: float,
        death_reward: float = 0.0,
        stages: StageSampler,
        saved_starts: SavedStarts | None,
    ) -> None:
        """Resets every environment.

        Args:
            envs: E environments that return states of `spec.state_shape`.
            builders: one per environment.
            network: this actor's own copy; its parameters are overwritten by newer weights.
            bfloat16: whether all layers but the last compute in bfloat16; else in float32.
            exploration: epsilon per environment.
            writer: takes the chunks.
            weights: asked for newer weights before every step.
            seed: of the epsilon-greedy draws.
            index: the actor's index, written into chunks and episodes.
            flag_reward: added to the reward of a step that clears the stage; not part of an episode's return.
            death_reward: the same for a step that ends the episode otherwise.
            stages: chooses each episode's.
            saved_starts: where episodes may begin beside a stage's start; None: nowhere else.
        """
        self._network = network.eval()
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._cast_network()
        self._exploration = exploration
        self._writer = writer
        self._weights = weights
        self._rng = np.random.default_rng(seed)
        self._index = index
        self._end_rewards = {True: flag_reward, False: death_reward}  # by whether the stage is cleared
        self._stages = stages
        self._saved_starts = saved_starts
        self._num_actions = spec.num_actions
        self._slots = [_Slot(env, builder) for env, builder in zip(envs, builders, strict=True)]
        self._states = np.zeros((len(self._slots), *spec.state_shape), np.uint8)  # [E, S, *F]
        self.weight_version = 0
        self.updates = 0
        for i, slot in enumerate(self._slots):
            self._states[i] = slot.begin(self.updates, stages.draw())

    @property
    def epsilons(self) -> NDArray[np.float64]:
        """[E], the exploration rates now."""
        return self._exploration.values(self.updates)

    @property
    def num_envs(self) -> int:
        """E, which is also the agent steps per call of `step`."""
        return len(self._slots)

    def step(self) -> list[Episode]:
        """One agent step in each environment; returns the episodes that it finished."""
        self._poll_weights()
        q_values = self._q_values(self._states)  # [E, A]
        epsilons = self._exploration.values(self.updates)
        actions, explores = self._choose(q_values, epsilons)
        finished = []
        for i, slot in enumerate(self._slots):
            chunk = slot.builder.bootstrap(float(q_values[i].max()))
            if chunk is not None:
                self._writer.push(chunk)
            if self._saved_starts:
                self._saved_starts.before_step(slot.trail, slot.env, explores=bool(explores[i]))
            q_tm1 = float(q_values[i, actions[i]])
            episode = self._step_slot(i, slot, int(actions[i]), q_tm1, float(epsilons[i]), bool(explores[i]))
            if episode is not None:
                finished.append(episode)
        return finished

    def close(self) -> None:
        """Closes the environments."""
        for slot in self._slots:
            slot.env.close()

    def _step_slot(
        self, i: int, slot: _Slot, action: int, q_tm1: float, epsilon: float, explores: bool
    ) -> Episode | None:
        state, reward, terminated, truncated, info = slot.env.step(action)
        slot.count(float(reward), info)
        bonus = self._end_rewards[info["clear"]] if terminated else 0.0
        ending: Ending | None = "terminated" if terminated else "truncated" if truncated else None
        slot.builder.add(
            action=action,
            q_tm1=q_tm1,
            weight_version=self.weight_version,
            reward=float(reward) + bonus,
            frame=state[-1],
            ending=ending,
            explores=explores,
        )
        self._states[i] = state
        if ending is None:
            return None
        final_value = 0.0 if terminated else float(self._q_values(state[None]).max())
        self._writer.push(slot.builder.end(final_value))
        episode = slot.summary(truncated=not terminated, epsilon=epsilon, actor=self._index, updates=self.updates)
        if not episode.saved_start:
            self._stages.learn(episode.stage, clear=episode.clear)
        if self._saved_starts and terminated:
            self._saved_starts.after_end(slot.trail, slot.info)
        stage = self._stages.draw()
        moment = self._saved_starts.draw(stage) if self._saved_starts else None
        self._states[i] = slot.begin(self.updates, stage, moment)
        return episode

    def _choose(
        self, q_values: NDArray[np.float32], epsilons: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Epsilon-greedy actions, int64 [E], and which of them are others than the greedy ones, bool [E]."""
        explore = self._rng.random(len(epsilons)) < epsilons
        random_actions = self._rng.integers(self._num_actions, size=len(epsilons))
        greedy = q_values.argmax(axis=1)
        actions = np.where(explore, random_actions, greedy)
        return actions, actions != greedy

    def _q_values(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            inputs = to_inputs(torch.from_numpy(states), self._dtype)
            q_values: NDArray[np.float32] = self._network.values(inputs, self._cast).numpy()
        return q_values

    def _cast_network(self) -> None:
        """Once per new weights, not once per step."""
        with torch.inference_mode():
            self._cast = self._network.cast(self._dtype)

    def _poll_weights(self) -> None:
        newer = self._weights.newer_than(self.weight_version)
        if newer is not None:
            unflatten_(self._network, newer.flat)
            self._cast_network()
            if self.weight_version == 0 and newer.version > 1:
                self._join(newer.updates)
            self.weight_version, self.updates = newer.version, newer.updates

    def _join(self, updates: int) -> None:
        """Counts the running episodes' updates from here, for a learner may have been under way when they began."""
        for slot in self._slots:
            slot.first_update = updates
