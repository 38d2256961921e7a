"""Episodes that begin within a stage, so that the policy meets its later parts, and what kills it, more often."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import numpy as np

from actors.cores import has_saved_states, resolve_core
from actors.moments import Moment, moment_of
from common.config import EnvConfig
from common.errors import UserError

_AUTO_SHARE: Final = 0.75
_DEATHS_SHARE: Final = 0.5  # of the saved starts
# Of steps between a start and the death that it comes from, drawn evenly; 5 to 40 steps are 1/3 to 2 2/3 seconds.
_CLOSEST_STEPS: Final = 5
_FARTHEST_STEPS: Final = 40
# A death counts as the policy's own, not exploration's, after so many greedy steps.
_GREEDY_STEPS: Final = 8
# A death sooner after an exploratory action is that action's if it was the only one in so many steps.
_SINGLE_SLIP_STEPS: Final = 20
_BEFORE_SLIP_SHARE: Final = 0.5
# The choice that made that action fatal lies up to so many steps before it: a second and a third.
_STEPS_BEFORE_SLIP: Final = 20
# When the clock has run out it is too late to do better.
_LEAST_TIME: Final = 10
_KEPT_DEATHS: Final = 64
# Along a stage, the last few moments of each such part that an episode survived for so many steps more.
_CELL_PIXELS: Final = 64
_CELLS_PER_HEIGHT: Final = 1024  # more than a stage is long
_KEPT_PER_CELL: Final = 8
_SURVIVED_STEPS: Final = 8
_ARCHIVE_PERIOD: Final = 4

_Item = TypeVar("_Item")


def resolve_saved_starts(share: float | Literal["auto"], env: EnvConfig) -> float:
    """The share of episodes that a setting means.

    "auto" is three quarters where the emulator core has saved states, else none.

    Raises:
        UserError: a share above 0 where there are no saved states.
    """
    if env.name != "mario":
        possible, who = False, f"the {env.name} environment"
    else:
        core = resolve_core(env.core)
        possible, who = has_saved_states(core), f"the emulator core {core}"
    if share == "auto":
        return _AUTO_SHARE if possible else 0.0
    if share > 0 and not possible:
        raise UserError(f"--actors.saved-starts {share:g}: {who} cannot save its state; take 0 or auto")
    return share


class Trail:
    """The last moments of one environment's running episode, each before a step."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=_FARTHEST_STEPS)
        self._greedy_steps = 0
        self._greedy_steps_before = 0  # the last exploratory action, since the one before it

    def begin(self) -> None:
        """Another episode."""
        self._moments.clear()
        self._greedy_steps = self._greedy_steps_before = 0

    def add(self, moment: Moment, *, explores: bool) -> None:
        """`explores`: whether the action that follows is another than the greedy one."""
        self._moments.append(moment)
        if explores:
            self._greedy_steps_before, self._greedy_steps = self._greedy_steps, 0
        else:
            self._greedy_steps += 1

    def survived(self) -> Moment | None:
        """Now and then a moment that was not the beginning of the end: some steps back."""
        known = len(self._moments)
        if known <= _SURVIVED_STEPS or self._moments[-1].steps % _ARCHIVE_PERIOD:
            return None
        return self._moments[-1 - _SURVIVED_STEPS]

    def before_death(self, info: dict[str, Any], rng: np.random.Generator) -> Moment | None:
        """A moment to begin with, if the episode ended in a death that can be helped.

        That of a death which is the policy's own lies some steps before it. Where one exploratory action led to it, the
        moment is as often the one after that action, since a policy that is to survive accidents must learn to make the
        best of them, as one some steps before it, since it must learn not to get where they are fatal.
        """
        known = len(self._moments)
        if info["clear"] or info["time"] < _LEAST_TIME:
            return None
        if self._greedy_steps >= _GREEDY_STEPS:
            return self._moments[-int(rng.integers(_CLOSEST_STEPS, known + 1))]
        single = self._greedy_steps_before + self._greedy_steps >= _SINGLE_SLIP_STEPS
        if not (single and 0 < self._greedy_steps < known):
            return None
        back = int(rng.integers(1, _STEPS_BEFORE_SLIP + 1)) if rng.random() < _BEFORE_SLIP_SHARE else 0
        return self._moments[-min(known, self._greedy_steps + back)]


class SavedStarts:
    """The starts that one actor's environments share: half of them before deaths, half anywhere along the stages.

    Beginning episodes within a stage is the idea of Salimans & Chen, "Learning Montezuma's Revenge from a Single
    Demonstration" (2018); keeping states by where they are is that of Go-Explore (Ecoffet et al., 2021). Here no
    demonstration is needed: the states are those that the actor's own episodes came through.

    Args:
        share: of episodes that begin at one of them, 0 … 1.
        rng: random numbers of its own.
        heights: whether parts of a stage are told apart by height too.
    """

    def __init__(self, share: float, rng: np.random.Generator, heights: bool = False) -> None:
        self._share = share
        self._heights = heights
        self._rng = rng
        self._before_deaths: dict[str, deque[Moment]] = {}  # by stage
        self._along: dict[str, dict[int, deque[Moment]]] = {}  # by stage and part of it

    def draw(self, stage: str) -> Moment | None:
        """Where the next episode of a stage begins; None: at its start."""
        deaths, parts = self._before_deaths.get(stage), self._along.get(stage)
        if self._rng.random() >= self._share or not (deaths or parts):
            return None
        if deaths and (not parts or self._rng.random() < _DEATHS_SHARE):
            return self._one_of(deaths)
        return self._one_of(self._one_of(list((parts or {}).values())))

    def after_step(self, trail: Trail) -> None:
        """To be called once after each step of each environment, with its trail."""
        moment = trail.survived()
        if moment is not None:
            parts = self._along.setdefault(moment.stage, {})
            parts.setdefault(self._part(moment), deque(maxlen=_KEPT_PER_CELL)).append(moment)

    def after_end(self, trail: Trail, info: dict[str, Any]) -> None:
        """To be called when an episode terminated, with its last info."""
        moment = trail.before_death(info, self._rng)
        if moment is not None:
            self._before_deaths.setdefault(moment.stage, deque(maxlen=_KEPT_DEATHS)).append(moment)

    def state_dict(self) -> dict[str, Any]:
        """All starts, in plain containers and tensors."""
        return {
            "rng": self._rng.bit_generator.state,
            "before_deaths": {stage: _states(moments) for stage, moments in self._before_deaths.items()},
            "along": {
                stage: {part: _states(moments) for part, moments in parts.items()}
                for stage, parts in self._along.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the one whose `state_dict` that was.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        self._rng.bit_generator.state = state["rng"]
        self._before_deaths = {
            str(stage): deque(map(moment_of, moments), _KEPT_DEATHS)
            for stage, moments in state["before_deaths"].items()
        }
        self._along = {
            str(stage): {int(part): deque(map(moment_of, moments), _KEPT_PER_CELL) for part, moments in parts.items()}
            for stage, parts in state["along"].items()
        }

    def _part(self, moment: Moment) -> int:
        height = moment.y_pos // _CELL_PIXELS if self._heights else 0
        return moment.x_pos // _CELL_PIXELS + height * _CELLS_PER_HEIGHT

    def _one_of(self, items: Sequence[_Item]) -> _Item:
        return items[int(self._rng.integers(len(items)))]


def _states(moments: Iterable[Moment]) -> list[dict[str, Any]]:
    return [moment.state_dict() for moment in moments]
