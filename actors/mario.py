"""The rules of the game: gym-super-mario-bros 7.4's own, on any emulator core."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from gym_super_mario_bros import SuperMarioBrosEnv
from gym_super_mario_bros._roms import decode_target
from numpy.typing import NDArray

from actors.cores import SCREEN_SHAPE, EmulatorCore

Info = dict[str, Any]

_FLOAT_STATE, _ON_THE_POLE = 0x001D, 3  # RAM map: how Mario is off the ground; sliding down the flag's pole


@lru_cache(maxsize=4096)
def _figure(digits: bytes) -> int:
    """A number on the screen as gym-super-mario-bros reads it from its digits' bytes."""
    return int("".join(map(str, digits)))


class SavedRules(NamedTuple):
    """The game at some moment of an episode."""

    console: bytes  # of `EmulatorCore.save_state`
    time: int  # the clock and Mario's x, to which the next frame's reward compares
    x_position: int
    cleared: frozenset[tuple[int, int]]


class MarioRules(SuperMarioBrosEnv):  # type: ignore[misc]  # the package has no types
    """`SuperMarioBrosEnv` on an `EmulatorCore`.

    Reward, end of episode, info, the RAM map and the RAM hacks that skip cut scenes are the parent's. Only
    what touches nes-py's emulator is replaced: its constructor, which starts one, and `NESEnv`'s calls.

    One rule is added: in the whole game, reaching the axe of 8-4 ends the episode. The original waits there
    for a clock that never ticks again, and hangs.

    Attributes:
        cleared: (world, stage) of the stages whose flag or axe was reached in this episode. Each counts once;
            stages that a warp skips do not.
    """

    def __init__(self, core: EmulatorCore, target: tuple[int, int] | None) -> None:
        """
        Args:
            core: an emulator of its own.
            target: (world, stage), each from 1, to play that stage alone; None for the whole game.
        """
        self.core = core
        self.ram = core.ram
        self.done = True
        self._target_world, self._target_stage, self._target_area = decode_target(target, False)
        self._has_backup = False
        self.cleared: set[tuple[int, int]] = set()
        self.reset()
        self._skip_start_screen()
        self._backup()

    @property
    def stage_number(self) -> tuple[int, int]:
        """(world, stage), each from 1."""
        return self._world, self._stage

    @property
    def screen(self) -> NDArray[np.uint8]:
        """The frame last drawn: RGB, uint8 [240, 256, 3], a copy."""
        screen = np.empty(SCREEN_SHAPE, np.uint8)
        self.core.read_screen(screen)
        return screen

    def reset(self) -> Info:
        """Back to the start of the stage or game; returns the info there."""
        self._will_reset()
        if self._has_backup:
            self.core.restore()
        else:
            self.core.reset()
        self._did_reset()
        self.done = False
        self.cleared = set()
        info: Info = self._get_info() if self._has_backup else {}
        return info

    def save_state(self) -> SavedRules:
        """The game as it is now; only where the core `has_saved_states`."""
        return SavedRules(self.core.save_state(), self._time_last, self._x_position_last, frozenset(self.cleared))

    def load_state(self, saved: SavedRules) -> Info:
        """Goes back to a state of the same stage or game; returns the info there."""
        self.core.load_state(saved.console)
        self._time_last, self._x_position_last = saved.time, saved.x_position
        self.cleared = set(saved.cleared)
        self.done = False
        info: Info = self._get_info()
        return info

    def play_frame(self, buttons: int, want_info: bool = True) -> tuple[float, bool, Info]:
        """One raw frame, as `NESEnv.step` plays it.

        Building the info costs several times the other rules, so that it is left out on frames nobody sees.

        Args:
            buttons: the controller's byte (see `EmulatorCore.frame_advance`).
            want_info: whether to build the info; an episode's last frame always has it.

        Returns:
            Reward in -15 … 15, whether the episode is over, and the info, or {}.

        Raises:
            ValueError: the episode is over already.
        """
        if self.done:
            raise ValueError("the episode is over: call reset first")
        self.core.frame_advance(buttons)
        lowest, highest = self.reward_range
        reward = min(max(float(self._get_reward()), lowest), highest)
        self.done = bool(self._get_done()) or self._is_won
        # Counted before the hacks below run on to the next stage. A single stage is over with its flag.
        if (self.done or not self.is_single_stage_env) and self._flag_get:
            self.cleared.add(self.stage_number)
        info = self._get_info() if want_info or self.done else {}
        self._did_step(self.done)
        return reward, self.done, info

    def close(self) -> None:
        """Frees the emulator."""
        self.core.close()

    def _read_mem_range(self, address: int, length: int) -> int:
        """The parent's, remembered: the clock is read twice in every frame and seldom changes."""
        return _figure(bytes(self.ram[address : address + length]))

    @property
    def _is_stage_over(self) -> bool:
        """The parent's, short-cut: it looks for the flag or Bowser first, which takes longer than all other rules."""
        return self.ram[_FLOAT_STATE] == _ON_THE_POLE and bool(super()._is_stage_over)

    @property
    def _is_won(self) -> bool:
        return self.stage_number == (8, 4) and bool(self._is_world_over)

    def _frame_advance(self, action: int) -> None:
        self.core.frame_advance(action)

    def _backup(self) -> None:
        self.core.backup()
        self._has_backup = True
