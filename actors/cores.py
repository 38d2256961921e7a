"""The seam between the game's rules and an NES emulator.

`actors.mario` knows an emulator by `EmulatorCore` alone; a further core is one more class here and one more
line in `_CORES`. The two that there are play the same game to the pixel (docs/performance.md); a further one must
prove that, or never be mixed with them within one result.
"""

import ctypes
import hashlib
import weakref
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from gym_super_mario_bros._roms import rom_path
from nes_py.nes_env import _LIB
from numpy.typing import NDArray

from actors import fceumm
from actors.fceumm import FceummCore
from actors.preprocessing import Canvas, pool, preprocess
from common.errors import UserError

CoreName = Literal["fceumm", "nes-py"]

SCREEN_SHAPE = (240, 256, 3)
RAM_SIZE = 0x800
_ROM_SHA256 = "ec299b990e8bfee8ba46e3f61d63b2e1ae5b8a2e431de84e2e4bbd692dc53586"

# One emulator per core of the machine is the point; OpenCV's own threads only get in its way.
cv2.setNumThreads(1)


class EmulatorCore(Protocol):
    """An NES with Super Mario Bros. in it.

    Attributes:
        name: as in the setting `env.core`.
        has_saved_states: whether `save_state` and `load_state` work. Every core has the one backup in memory that
            `restore` goes back to.
        ram: the console's 2,048 bytes of work RAM, live and writable. A memoryview yields Python ints, which
            do not overflow as NumPy's bytes do, and is faster to index than an array.
    """

    name: CoreName
    has_saved_states: bool
    ram: memoryview

    def reset(self) -> None:
        """Presses the console's reset button (a power-up the first time, with the RAM all zero)."""

    def frame_advance(self, buttons: int) -> None:
        """Runs one frame, 1/60 s, with these buttons down on the first controller.

        Args:
            buttons: bits from the highest: right, left, down, up, start, select, B, A.
        """

    def read_screen(self, out: NDArray[np.uint8]) -> None:
        """Writes the frame last drawn into `out`: RGB, uint8 [240, 256, 3], contiguous."""

    def keep_screen(self) -> None:
        """Keeps a copy of the frame last drawn, for `read_frame`."""

    def read_frame(self, *, pooled: bool) -> NDArray[np.uint8]:
        """The frame last drawn as the network sees it, see `actors.preprocessing`.

        Args:
            pooled: whether it is the maximum, per colour channel, of this frame and the one kept.

        Returns:
            Grey, uint8 [84, 84], a new array.
        """

    def backup(self) -> None:
        """Keeps the console's present state for `restore`."""

    def restore(self) -> None:
        """Goes back to the state of the last `backup`, screen included."""

    def save_state(self) -> bytes:
        """The console's present state; only where `has_saved_states`."""

    def load_state(self, state: bytes) -> None:
        """Goes back to a state of `save_state`, of this emulator or another of the same core and ROM.

        The frame last drawn is not part of it: the screen is the old one until the next frame.
        """

    def close(self) -> None:
        """Frees the emulator, which must not be used any more. Closing twice does no harm."""


class NesPyCore:
    """nes-py's emulator (LaiNES), driven through its C interface.

    Its Python class is left out because it reads the ROM's header in NumPy bytes, which NumPy 2 does not
    widen any more: 8 x 32 KB of program becomes 0.
    """

    name: CoreName = "nes-py"
    has_saved_states = False

    def __init__(self, rom: Path) -> None:
        self._handle = _LIB.Initialize(str(rom))
        self._free = weakref.finalize(self, _LIB.Close, self._handle)
        self.ram = _bytes_at(_LIB.Memory(self._handle), RAM_SIZE)
        self._controller = _bytes_at(_LIB.Controller(self._handle, 0), 1)
        screen = _bytes_at(_LIB.Screen(self._handle), 240 * 256 * 4)
        self._screen = np.frombuffer(screen, np.uint8).reshape(240, 256, 4)  # B, G, R, unused
        self._kept, self._newest = (np.zeros(SCREEN_SHAPE, np.uint8) for _ in range(2))
        self._canvas = Canvas()

    def reset(self) -> None:
        """See `EmulatorCore`."""
        _LIB.Reset(self._handle)

    def frame_advance(self, buttons: int) -> None:
        """See `EmulatorCore`."""
        self._controller[0] = buttons
        _LIB.Step(self._handle)

    def read_screen(self, out: NDArray[np.uint8]) -> None:
        """See `EmulatorCore`."""
        cv2.cvtColor(self._screen, cv2.COLOR_BGRA2RGB, dst=out)

    def keep_screen(self) -> None:
        """See `EmulatorCore`."""
        self.read_screen(self._kept)

    def read_frame(self, *, pooled: bool) -> NDArray[np.uint8]:
        """See `EmulatorCore`."""
        self.read_screen(self._newest)
        return preprocess(pool(self._kept, self._newest) if pooled else self._newest, self._canvas)

    def backup(self) -> None:
        """See `EmulatorCore`."""
        _LIB.Backup(self._handle)

    def restore(self) -> None:
        """See `EmulatorCore`."""
        _LIB.Restore(self._handle)

    def save_state(self) -> bytes:
        """nes-py keeps one state, in the emulator itself."""
        raise NotImplementedError("nes-py cannot hand its state out")

    def load_state(self, state: bytes) -> None:
        """See `save_state`."""
        raise NotImplementedError("nes-py cannot take a state in")

    def close(self) -> None:
        """See `EmulatorCore`."""
        self._free()


_CORES: dict[CoreName, type[FceummCore] | type[NesPyCore]] = {"fceumm": FceummCore, "nes-py": NesPyCore}


def resolve_core(name: str) -> CoreName:
    """The core that a setting means: "auto" is FCEUmm where it is installed, else nes-py.

    Raises:
        UserError: there is no such core, or it is not installed.
    """
    if name == "auto":
        return FceummCore.name if fceumm.is_installed() else NesPyCore.name
    known = next((core for core in _CORES if core == name), None)
    if known is None:
        raise UserError(f"unknown emulator core {name!r}; choose one of: auto, {', '.join(_CORES)}")
    if known == FceummCore.name and not fceumm.is_installed():
        raise UserError(fceumm.NOT_INSTALLED)
    return known


def has_saved_states(core: CoreName) -> bool:
    """See `EmulatorCore`."""
    return _CORES[core].has_saved_states


def make_core(name: str) -> EmulatorCore:
    """A core with Super Mario Bros. inserted, not reset yet.

    Raises:
        UserError: no such core, or the ROM is missing or damaged.
    """
    return _CORES[resolve_core(name)](checked_rom(Path(rom_path(False, "vanilla"))))


def checked_rom(path: Path) -> Path:
    """`path`, once it is known to hold the ROM of Super Mario Bros. that gym-super-mario-bros 7.4 carries.

    Raises:
        UserError: the file is missing, unreadable or other than it should be.
    """
    mend = "install gym-super-mario-bros 7.4.0 again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the ROM {path} cannot be read ({error.strerror}); {mend}") from error
    if hashlib.sha256(data).hexdigest() != _ROM_SHA256:
        raise UserError(f"the ROM {path} is damaged or another one; {mend}")
    return path


def _bytes_at(address: int, size: int) -> memoryview:
    """A live, writable view of `size` bytes of the emulator's memory."""
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
