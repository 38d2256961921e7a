"""The actor: several environments stepped together, one batched forward pass, epsilon-greedy actions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from actors.saved_starts import SavedStarts
from actors.slot import Choice, Outcome, Slot
from actors.stages import StageSampler
from common.networks import QNetwork, flatten, to_inputs, unflatten_
from common.schedules import decayed_epsilon
from common.types import Chunk, EnvironmentSpec, Episode, Weights

# A second and a bit at four raw frames a step: longer than any jump takes.
_LONGEST_STEPS: Final = 16


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


class Durations:
    """How many steps an exploratory action is held for: a zeta distribution, P(n) ~ n**-mu, up to `_LONGEST_STEPS`.

    Temporally extended epsilon-greedy exploration, Dabney et al., 2021.
    """

    def __init__(self, mu: float) -> None:
        weights = np.arange(1, _LONGEST_STEPS + 1) ** -mu
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """[size], each from 1 on."""
        drawn = 1 + np.searchsorted(self._cumulative[:-1], rng.random(size), side="right")
        return drawn.astype(np.int64)


class Actor:
    """Plays E environments in step and pushes chunks of n-step transitions; knows nothing of Ray.

    `step` is one agent step in each environment. The caller decides when to step: an actor whose replay
    refuses chunks must be left alone until it accepts them again.
    """

    def __init__(
        self,
        *,
        slots: Sequence[Slot],
        network: QNetwork,
        bfloat16: bool,
        spec: EnvironmentSpec,
        exploration: Exploration,
        durations: Durations | None,
        practice_opening: int,
        backup_epsilon: float,
        writer: ReplayWriter,
        weights: WeightSource,
        seed: np.random.SeedSequence,
        index: int,
        stages: StageSampler,
        saved_starts: SavedStarts | None,
    ) -> None:
        """Resets every environment.

        Args:
            slots: E environments that return states of `spec.state_shape`.
            network: this actor's own copy; its parameters are overwritten by newer weights.
            bfloat16: whether all layers but the last compute in bfloat16; else in float32.
            exploration: epsilon per environment.
            durations: steps that exploratory actions are held for; None: one each.
            practice_opening: an episode that begins at a saved start begins with one action for up to so many steps.
            backup_epsilon: as in `Weights`, until there are newer ones.
            writer: takes the chunks.
            weights: asked for newer weights before every step.
            seed: of the epsilon-greedy draws.
            index: the actor's index, written into chunks and episodes.
            stages: chooses each episode's.
            saved_starts: where episodes may begin beside a stage's start; None: nowhere else.
        """
        self._network = network.eval()
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._cast_network()
        self.exploration = exploration
        self._durations = durations
        self._practice_opening = practice_opening
        self._backup_epsilon = backup_epsilon
        self._writer = writer
        self._weights = weights
        self._rng = np.random.default_rng(seed)
        self.index = index
        self._stages = stages
        self._saved_starts = saved_starts
        self._num_actions = spec.num_actions
        self._slots = list(slots)
        self._states = np.zeros((len(self._slots), *spec.state_shape), np.uint8)  # [E, S, *F]
        self._held = np.zeros(len(self._slots), np.int64)  # [E], the exploratory actions that are held
        self._left = np.zeros(len(self._slots), np.int64)  # [E], for so many steps more
        self.weight_version = 0
        self.updates = 0
        for i, slot in enumerate(self._slots):
            self._states[i] = slot.begin(self.updates, stages.draw())

    @property
    def epsilons(self) -> NDArray[np.float64]:
        """[E], the exploration rates now."""
        return self.exploration.values(self.updates)

    @property
    def num_envs(self) -> int:
        """E, which is also the agent steps per call of `step`."""
        return len(self._slots)

    @property
    def stage_shares(self) -> dict[str, float]:
        """Each stage's chance to be that of the next episode."""
        return self._stages.shares

    def step(self) -> list[Episode]:
        """One agent step in each environment; returns the episodes that it finished."""
        self._poll_weights()
        q_values = self._q_values(self._states)  # [E, A]
        epsilons = self.exploration.values(self.updates)
        actions, explores = self._choose(q_values, epsilons)
        mean_values = q_values.mean(axis=1)
        finished = []
        for i, slot in enumerate(self._slots):
            choice = Choice(
                action=int(actions[i]),
                value=float(q_values[i].max()),
                q_tm1=float(q_values[i, actions[i]]),
                mean_value=float(mean_values[i]),
                epsilon=self._backup_epsilon,
                explores=bool(explores[i]),
                weight_version=self.weight_version,
            )
            outcome = self._play(i, slot, choice)
            if outcome.ending is not None:
                finished.append(self._end(i, slot, outcome, epsilons))
        return finished

    def state_dict(self, *, whole: bool) -> dict[str, Any]:
        """What a continuation needs, in plain containers and tensors.

        Args:
            whole: all that an exact one needs; else without the weights, which a learner has, and without the saved
                starts, which are many megabytes and soon found anew.
        """
        state: dict[str, Any] = {
            "rng": self._rng.bit_generator.state,
            "stages": self._stages.state_dict(),
            "held": self._held.tolist(),
            "left": self._left.tolist(),
            "slots": [slot.state_dict() for slot in self._slots],
        }
        if whole:
            state["weights"] = torch.from_numpy(flatten(self._network))
            state["weight_version"], state["updates"] = self.weight_version, self.updates
            state["backup_epsilon"] = self._backup_epsilon
            state["saved_starts"] = self._saved_starts and self._saved_starts.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the actor whose `state_dict` that was, playing its running episodes up to where they were.

        Raises:
            ValueError: it is of another actor, such as one with another number of environments, or damaged.
        """
        try:
            self._rng.bit_generator.state = state["rng"]
            self._stages.load_state_dict(state["stages"])
            self._held[:], self._left[:] = state["held"], state["left"]
            if ((self._held < 0) | (self._held >= self._num_actions)).any():
                raise ValueError(f"there are no such actions: {self._held}")
            for i, (slot, episode) in enumerate(zip(self._slots, state["slots"], strict=True)):
                self._states[i] = slot.load_state_dict(episode)
            if "weights" in state:
                unflatten_(self._network, state["weights"].numpy())
                self._cast_network()
                self.weight_version, self.updates = int(state["weight_version"]), int(state["updates"])
                self._backup_epsilon = float(state["backup_epsilon"])
            if self._saved_starts and state.get("saved_starts"):
                self._saved_starts.load_state_dict(state["saved_starts"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
            raise ValueError(f"the actor's state is damaged or of another version ({error!r})") from error

    def close(self) -> None:
        """Closes the environments."""
        for slot in self._slots:
            slot.env.close()

    def _play(self, i: int, slot: Slot, choice: Choice) -> Outcome:
        outcome = slot.play(choice)
        if outcome.chunk is not None:
            self._writer.push(outcome.chunk)
        if self._saved_starts and slot.trail:
            self._saved_starts.after_step(slot.trail)
        self._states[i] = outcome.state
        return outcome

    def _end(self, i: int, slot: Slot, outcome: Outcome, epsilons: NDArray[np.float64]) -> Episode:
        """Pushes what is left of an episode that ended and begins the next one."""
        terminated = outcome.ending == "terminated"
        final_value = 0.0 if terminated else float(self._q_values(outcome.state[None]).max())
        self._writer.push(slot.builder.end(final_value))
        epsilon = float(epsilons[i])
        episode = slot.summary(truncated=not terminated, epsilon=epsilon, actor=self.index, updates=self.updates)
        # Whoever explores much fails everywhere, whatever the policy knows.
        if not episode.saved_start and epsilon <= np.median(epsilons):
            self._stages.learn(episode.stage, clear=episode.clear)
        if self._saved_starts and slot.trail and terminated:
            self._saved_starts.after_end(slot.trail, slot.info)
        stage = self._stages.draw()
        moment = self._saved_starts.draw(stage) if self._saved_starts else None
        self._states[i] = slot.begin(self.updates, stage, moment)
        self._left[i] = 0
        if moment is not None and self._practice_opening:
            self._held[i] = self._rng.integers(self._num_actions)
            self._left[i] = self._rng.integers(self._practice_opening + 1)
        return episode

    def _choose(
        self, q_values: NDArray[np.float32], epsilons: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Epsilon-greedy actions, int64 [E], and which of them are others than the greedy ones, bool [E]."""
        explore = self._rng.random(len(epsilons)) < epsilons
        random_actions = self._rng.integers(self._num_actions, size=len(epsilons))
        greedy = q_values.argmax(axis=1)
        if self._durations is not None or self._practice_opening:
            explore &= self._left == 0
            self._held = np.where(explore, random_actions, self._held)
            steps = 1 if self._durations is None else self._durations.draw(self._rng, len(epsilons))
            self._left = np.where(explore, steps, self._left)
            explore, random_actions = self._left > 0, self._held
            self._left = np.maximum(self._left - 1, 0)
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
            self._backup_epsilon = newer.backup_epsilon

    def _join(self, updates: int) -> None:
        """Counts the running episodes' updates from here, for a learner may have been under way when they began."""
        for slot in self._slots:
            slot.first_update = updates
