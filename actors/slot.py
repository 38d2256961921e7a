"""One environment of an actor and its running episode, which can be told and played again."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from actors.chunks import ChunkBuilder
from actors.environment import Environment, MarioEnvironment
from actors.moments import Moment, moment_of
from actors.n_step import Ending
from actors.saved_starts import Trail
from common.types import Chunk, Episode

_SEEDS = 2**63  # of episodes
_MOST_VALUE = 1e30  # of a Q-value; a priority is the sum of some, and finite as a float32


class Choice(NamedTuple):
    """What an actor knew and did in one state."""

    action: int
    value: float  # max_a Q of the state
    q_tm1: float  # Q-value of the action
    mean_value: float  # mean_a Q of the state
    epsilon: float  # of the policy whose returns are learned, where they are summed by tree backup; else 0
    explores: bool  # whether the action is another than the greedy one
    weight_version: int  # of the weights behind both


class Outcome(NamedTuple):
    """What came of a choice."""

    state: NDArray[np.uint8]  # [S, *F]
    chunk: Chunk | None  # one that was full
    ending: Ending | None


class _Beginning(NamedTuple):
    """With the choices that followed, all that an episode is made of."""

    seed: int  # of the environment's random numbers
    stage: str
    moment: Moment | None


class Slot:
    """Plays one environment's episodes and builds their chunks.

    Args:
        env: the environment.
        builder: of its chunks.
        rng: draws the episodes' seeds.
        flag_reward: added to the reward of a step that clears the stage; not part of an episode's return.
        death_reward: the same for a step that ends the episode otherwise.
        trail: whether the episode's last moments are remembered; only on emulator cores with saved states.
        practice_steps: after which an episode that began at a saved moment is truncated; None: never.
    """

    def __init__(
        self,
        env: Environment,
        builder: ChunkBuilder,
        rng: np.random.Generator,
        *,
        flag_reward: float,
        death_reward: float,
        trail: bool,
        practice_steps: int | None = None,
    ) -> None:
        self.env = env
        self.builder = builder
        self.trail = Trail() if trail else None
        self.first_update = 0
        self.info: dict[str, Any] = {}
        self._rng = rng
        self._practice_steps = practice_steps
        self._replays = False  # a saved state's choices
        self._end_rewards = {True: flag_reward, False: death_reward}  # by whether the stage is cleared
        self._beginning = _Beginning(0, "", None)
        self._choices: list[Choice] = []
        self._return = 0.0
        self._x_pos = 0

    def begin(self, updates: int, stage: str, moment: Moment | None = None) -> NDArray[np.uint8]:
        """Starts an episode, at a saved moment if there is one; its first state, [S, *F].

        Args:
            updates: the learner's behind the present weights.
            stage: which stage.
            moment: where in it to begin; None: at its start.
        """
        self.first_update = updates
        return self._begin(_Beginning(int(self._rng.integers(_SEEDS)), stage, moment))

    def play(self, choice: Choice) -> Outcome:
        """Takes a step; `end` must follow one that ended the episode."""
        chunk = self.builder.bootstrap(choice.value)
        if self.trail:
            self.trail.add(cast(MarioEnvironment, self.env).moment(), explores=choice.explores)
        state, reward, terminated, truncated, info = self.env.step(choice.action)
        self._choices.append(choice)
        self._return += float(reward)
        self.info = info
        self._x_pos = max(self._x_pos, int(info["x_pos"]))
        truncated = truncated or (not terminated and self._has_practised())
        ending: Ending | None = "terminated" if terminated else "truncated" if truncated else None
        self.builder.add(
            action=choice.action,
            q_tm1=choice.q_tm1,
            weight_version=choice.weight_version,
            reward=float(reward) + (self._end_rewards[info["clear"]] if terminated else 0.0),
            frame=state[-1],
            ending=ending,
            explores=choice.explores,
            epsilon=choice.epsilon,
            mean_value=choice.mean_value,
        )
        return Outcome(state, chunk, ending)

    def summary(self, *, truncated: bool, epsilon: float, actor: int, updates: int) -> Episode:
        """The episode, finished after so many learner updates."""
        return Episode(
            stage=str(self.info["stage"]),
            episode_return=self._return,
            length=len(self._choices),
            x_pos=self._x_pos,
            final_x=int(self.info["x_pos"]),
            time_left=int(self.info["time"]),
            clear=bool(self.info["clear"]),
            stages_cleared=int(self.info["stages_cleared"]),
            truncated=truncated,
            epsilon=epsilon,
            actor=actor,
            first_update=self.first_update,
            last_update=updates,
            saved_start=self._beginning.moment is not None,
        )

    def state_dict(self) -> dict[str, Any]:
        """The running episode as its beginning and choices, in plain containers and tensors."""
        seed, stage, moment = self._beginning
        return {
            "rng": self._rng.bit_generator.state,
            "first_update": self.first_update,
            "seed": seed,
            "stage": stage,
            "moment": None if moment is None else moment.state_dict(),
            "choices": [list(choice) for choice in self._choices],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Plays a running episode again; its present state, [S, *F].

        The chunks that were full are the replay's already; what is left in the builder is what was left then.

        Raises:
            KeyError, TypeError, ValueError: the state is not one of this version, stage or action set.
        """
        self._rng.bit_generator.state = state["rng"]
        self.first_update = int(state["first_update"])
        moment = None if state["moment"] is None else moment_of(state["moment"])
        self.builder.clear()
        current = self._begin(_Beginning(int(state["seed"]), str(state["stage"]), moment))
        self._replays = True
        for fields in state["choices"]:
            current = self.play(_choice_of(fields)).state
        self._replays = False
        return current

    def _has_practised(self) -> bool:
        """Whether it is time for another episode; a saved one may be longer than today's settings have it."""
        if self._practice_steps is None or self._beginning.moment is None or self._replays:
            return False
        return len(self._choices) >= self._practice_steps

    def _begin(self, beginning: _Beginning) -> NDArray[np.uint8]:
        moment = beginning.moment
        options: dict[str, Any] = {"stage": beginning.stage} if moment is None else {"moment": moment}
        state: NDArray[np.uint8]
        state, self.info = self.env.reset(seed=beginning.seed, options=options)
        self._beginning, self._choices = beginning, []
        self._return, self._x_pos = 0.0, int(self.info["x_pos"])
        if self.trail:
            self.trail.begin()
        self.builder.begin(state[-1:] if moment is None else state)
        return state


def _choice_of(fields: Sequence[Any]) -> Choice:
    """A choice that was saved.

    Raises:
        TypeError, ValueError: it is none, or holds what no chunk can: its numbers are floats and integers of 32 bits.
    """
    choice = Choice(*fields)
    values = (choice.value, choice.q_tm1, choice.mean_value)
    sound = (
        type(choice.action) is int
        and type(choice.explores) is bool
        and type(choice.weight_version) is int
        and 0 <= choice.weight_version <= np.iinfo(np.int32).max
        and all(type(value) is float and abs(value) <= _MOST_VALUE for value in values)
        and type(choice.epsilon) is float
        and 0 <= choice.epsilon <= 1
    )
    if not sound:
        raise ValueError(f"{choice} is no choice of an actor's")
    return choice
