"""Looks for one way through a stage, by saved states: phase 1 of Go-Explore.

Ecoffet et al. (2021), "First return, then explore", Nature 590. Nothing is learned: the console goes back to a place
that was reached before, the rarer chosen the likelier, plays held random actions from there, and remembers each place
that it has not seen, or not reached in so few steps.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from actors.cores import make_core
from actors.environment import controller_byte
from actors.mario import MarioRules, SavedRules
from common.actions import ACTION_SETS, ActionSet

FRAME_SKIP: Final = 4
"""Raw frames that an action is held for, as in the default preset."""
_PIXELS: Final = 16
_BURST: Final = 60
_HOLD: Final = 0.9
"""Probability that an action goes on for another step."""

# RAM map (Data Crystal, "Super Mario Bros./RAM map"; areas and loops: doppelganger's disassembly). The area's pointer
# at 0x0750 changes when a pipe to another area comes into sight; its kind and number change when Mario is there.
_PAGE, _X, _SCREEN, _Y = 0x006D, 0x0086, 0x00B5, 0x03B8
_AREA_KIND, _AREA_NUMBER, _LOOP_TURNS, _LOOP_RIGHT_TURNS = 0x074E, 0x074F, 0x06DA, 0x06D9
_MOST_TURNS: Final = 8
_MOST_AREAS: Final = 64


class Place(NamedTuple):
    """Where Mario is, in tiles of 16 pixels; in a maze also how many of its turns he took, and how many rightly."""

    area: int
    loop: int
    x: int
    y: int


@dataclass
class _Visit:
    """How a place was reached."""

    saved: SavedRules | None
    parent: int
    actions: bytes  # since the parent
    depth: int  # steps since the stage's start


@dataclass(frozen=True)
class Route:
    """What a search came to.

    Attributes:
        clear: whether the stage was cleared.
        actions: from the stage's start, indices into the action set: the clear's, or to the furthest place.
        tried: agent steps played altogether.
        furthest: x of the furthest place seen, pixels, its left edge; without meaning where a pipe led elsewhere.
    """

    clear: bool
    actions: list[int]
    tried: int
    furthest: int


@dataclass
class _Archive:
    """The places seen so far."""

    visits: list[_Visit] = field(default_factory=list)
    newest: dict[Place, int] = field(default_factory=dict)
    _places: list[Place] = field(default_factory=list)
    _chosen: list[int] = field(default_factory=list)
    _number: dict[Place, int] = field(default_factory=dict)

    def is_news(self, place: Place, depth: int) -> bool:
        """Whether the place has not been reached in so few steps."""
        return place not in self.newest or depth < self.visits[self.newest[place]].depth

    def add(self, place: Place, visit: _Visit) -> int:
        """Remembers a visit; returns its index."""
        if place in self.newest:
            self.visits[self.newest[place]].saved = None  # nobody returns there; its children still need its actions
            self._chosen[self._number[place]] = 0
        else:
            self._number[place] = len(self._places)
            self._places.append(place)
            self._chosen.append(0)
        self.newest[place] = len(self.visits)
        self.visits.append(visit)
        return self.newest[place]

    def draw(self, rng: np.random.Generator) -> int:
        """The index of a place's best visit, the likelier the more seldom it was drawn (the paper's weights)."""
        weights = 1 / np.sqrt(np.asarray(self._chosen) + 1)
        number = int(rng.choice(len(weights), p=weights / weights.sum()))
        self._chosen[number] += 1
        return self.newest[self._places[number]]

    def actions(self, index: int) -> list[int]:
        """From the stage's start to a visit."""
        parts: list[bytes] = []
        while index >= 0:
            parts.append(self.visits[index].actions)
            index = self.visits[index].parent
        return list(b"".join(reversed(parts)))


class RouteSearch:
    """Looks for a way through one stage, without no-op frames at its start.

    Args:
        stage: "1-1" … "8-4".
        actions: what may be pressed.
        seed: of all random numbers.
    """

    def __init__(self, stage: str, actions: ActionSet, seed: int) -> None:
        self._rules = MarioRules(make_core("fceumm"), (int(stage[0]), int(stage[2])))
        self._buttons = [controller_byte(action) for action in ACTION_SETS[actions]]
        self._rng = np.random.default_rng(seed)
        self._archive = _Archive()
        self._rules.reset()
        self._archive.add(self._place(), _Visit(self._rules.save_state(), -1, b"", 0))

    def search(self, steps: int) -> Route:
        """Plays until the stage is cleared, or for at least so many agent steps."""
        tried = 0
        while tried < steps:
            played, clear = self._burst(self._archive.draw(self._rng))
            tried += played
            if clear is not None:
                return Route(True, clear, tried, self._furthest().x * _PIXELS)
        furthest = self._furthest()
        return Route(False, self._archive.actions(self._archive.newest[furthest]), tried, furthest.x * _PIXELS)

    def close(self) -> None:
        """Frees the emulator."""
        self._rules.close()

    def _furthest(self) -> Place:
        return max(self._archive.newest, key=lambda place: place.x)

    def _burst(self, start: int) -> tuple[int, list[int] | None]:
        """Explores from a visit: steps played, and the actions of a clear."""
        saved, depth = self._archive.visits[start].saved, self._archive.visits[start].depth
        assert saved is not None
        self._rules.load_state(saved)
        parent, since, action = start, bytearray(), self._draw_action()
        for played in range(1, _BURST + 1):
            action = action if self._rng.random() < _HOLD else self._draw_action()
            since.append(action)
            depth += 1
            if self._step(action):
                cleared = bool(self._rules.cleared)
                return played, [*self._archive.actions(parent), *since] if cleared else None
            place = self._place()
            if self._archive.is_news(place, depth):
                visit = _Visit(self._rules.save_state(), parent, bytes(since), depth)
                parent, since = self._archive.add(place, visit), bytearray()
        return _BURST, None

    def _draw_action(self) -> int:
        return int(self._rng.integers(len(self._buttons)))

    def _step(self, action: int) -> bool:
        """Whether the episode is over."""
        return any(self._rules.play_frame(self._buttons[action], want_info=False)[1] for _ in range(FRAME_SKIP))

    def _place(self) -> Place:
        ram = self._rules.ram
        x, y = ram[_PAGE] * 256 + ram[_X], ram[_SCREEN] * 256 + ram[_Y]
        area = ram[_AREA_KIND] * _MOST_AREAS + ram[_AREA_NUMBER]
        loop = ram[_LOOP_TURNS] * _MOST_TURNS + ram[_LOOP_RIGHT_TURNS]
        return Place(area, loop, x // _PIXELS, y // _PIXELS)
