"""FCEUmm, the NES emulator in stable-retro's wheel, through its libretro C interface.

stable-retro's own `RetroEmulator` allows one emulator per process. Here each core loads a private copy of the
library, so that one process can play several games.
"""

import _ctypes
import ctypes
import os
import weakref
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from actors.preprocessing import SCREEN_ROWS, Canvas, weigh_colours
from common.errors import UserError, first_line

_INSTEAD: Final = "take --env.core nes-py"
NOT_INSTALLED: Final = (
    f"the emulator core fceumm is not installed: pip install 'apex-mario[fast]' brings it; or {_INSTEAD}"
)

_RAM_SIZE = 0x800
_SHAPE = (240, 256)

# Numbers and signatures of libretro.h.
_GET_CAN_DUPE, _SET_PIXEL_FORMAT, _GET_VARIABLE = 3, 10, 15
_PIXEL_FORMAT_RGB565 = 2
_SYSTEM_RAM = 2
_Environment = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint, ctypes.c_void_p)
_VideoRefresh = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t)
_AudioSample = ctypes.CFUNCTYPE(None, ctypes.c_int16, ctypes.c_int16)
_AudioSampleBatch = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)
_InputPoll = ctypes.CFUNCTYPE(None)
_InputState = ctypes.CFUNCTYPE(ctypes.c_int16, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)

# The whole picture, and colours as the console's own numbers instead of somebody's idea of a television.
_OPTIONS: Final = {b"fceumm_overscan": b"disabled", b"fceumm_palette": b"raw"}

# Of libretro's joypad identifiers 0 … 15, the bit in `EmulatorCore.frame_advance`'s byte: B, (Y), select, start, up,
# down, left, right, A. The others stay up.
_BIT_OF_JOYPAD_ID: Final = {8: 0, 0: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7}
_JOYPAD_IDS: Final = 16

# nes-py's colours (LaiNES's `palette.inc`) of the console's 64 colour numbers, red, green, blue: with them both cores
# draw the same picture.
_PALETTE: Final = bytes.fromhex(
    "7C7C7C 0000FC 0000BC 4428BC 940084 A80020 A81000 881400 "
    "503000 007800 006800 005800 004058 000000 000000 000000 "
    "BCBCBC 0078F8 0058F8 6844FC D800CC E40058 F83800 E45C10 "
    "AC7C00 00B800 00A800 00A844 008888 000000 000000 000000 "
    "F8F8F8 3CBCFC 6888FC 9878F8 F878F8 F85898 F87858 FCA044 "
    "F8B800 B8F818 58D854 58F898 00E8D8 787878 000000 000000 "
    "FCFCFC A4E4FC B8B8F8 D8B8F8 F8B8F8 F8A4C0 F0D0B0 FCE0A8 "
    "F8D878 D8F878 B8F8B8 B8F8D8 00FCFC F8D8F8 000000 000000"
)


class _Variable(ctypes.Structure):
    """`retro_variable`"""

    _fields_ = (("key", ctypes.c_char_p), ("value", ctypes.c_char_p))


class _GameInfo(ctypes.Structure):
    """`retro_game_info`"""

    _fields_ = (
        ("path", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("meta", ctypes.c_char_p),
    )


class FceummCore:
    """FCEUmm; see `EmulatorCore`.

    Two things make it run in step with nes-py. nes-py ends its frames where the console has read the controller but
    not yet acted on it: here buttons take effect one frame late. And nes-py's power-up takes one frame more.

    Raises:
        UserError: the library is not installed, or does not load.
    """

    name: Literal["fceumm", "nes-py"] = "fceumm"
    has_saved_states = True

    def __init__(self, rom: Path) -> None:
        self._library, descriptor = _load_private_copy()
        self._pressed = [0] * _JOYPAD_IDS  # by joypad identifier
        self._down = 0  # the buttons in `_pressed`
        self._next = 0  # the buttons of the frame to come
        self._address = 0
        self._pixels: NDArray[np.uint16] = np.zeros(_SHAPE, np.uint16)  # the frame last drawn, live
        self._kept = np.zeros_like(self._pixels[SCREEN_ROWS])
        self._free = weakref.finalize(self, _shut_down, self._library, descriptor)
        self._callbacks = self._connect()
        self._rom = _insert(self._library, rom)
        address = self._library.retro_get_memory_data(_SYSTEM_RAM)
        self.ram = memoryview((ctypes.c_ubyte * _RAM_SIZE).from_address(address)).cast("B")
        self._powered = False
        self._room = ctypes.create_string_buffer(self._library.retro_serialize_size())
        self._backup = (b"", np.zeros(_SHAPE, np.uint16))

    def reset(self) -> None:
        """See `EmulatorCore`."""
        self._library.retro_reset()
        self._next = 0
        if not self._powered:
            self._powered = True
            self.ram[:] = bytes(_RAM_SIZE)
            self.frame_advance(0)
            if not self._address:  # an error in a callback would be swallowed: it is looked for here
                raise UserError(f"the emulator core fceumm draws no picture of {_SHAPE[::-1]} pixels; {_INSTEAD}")

    def frame_advance(self, buttons: int) -> None:
        """See `EmulatorCore`."""
        if self._next != self._down:
            self._down = self._next
            for joypad_id, bit in _BIT_OF_JOYPAD_ID.items():
                self._pressed[joypad_id] = self._down >> bit & 1
        self._next = buttons
        self._library.retro_run()

    def read_screen(self, out: NDArray[np.uint8]) -> None:
        """See `EmulatorCore`."""
        np.take(_tables().rgb, self._pixels, axis=0, out=out, mode="clip")

    def keep_screen(self) -> None:
        """See `EmulatorCore`."""
        np.copyto(self._kept, self._pixels[SCREEN_ROWS])

    def read_frame(self, *, pooled: bool) -> NDArray[np.uint8]:
        """See `EmulatorCore`."""
        newest = self._pixels[SCREEN_ROWS]
        previous = self._kept if pooled else newest
        pairs, upper, canvas = _room()
        np.right_shift(previous, 8, out=pairs)
        np.bitwise_and(newest, 0xFF00, out=upper)
        np.bitwise_or(pairs, upper, out=pairs)
        cv2.LUT(pairs, _tables().grey_of_pair, dst=canvas.rows)
        return canvas.shrink()

    def backup(self) -> None:
        """See `EmulatorCore`."""
        self._backup = (self.save_state(), self._pixels.copy())

    def restore(self) -> None:
        """See `EmulatorCore`."""
        state, picture = self._backup
        self.load_state(state)
        np.copyto(self._pixels, picture)

    def save_state(self) -> bytes:
        """See `EmulatorCore`."""
        if not self._library.retro_serialize(self._room, len(self._room)):
            raise RuntimeError("FCEUmm could not save its state")
        return bytes((self._next,)) + self._room.raw

    def load_state(self, state: bytes) -> None:
        """See `EmulatorCore`."""
        if not self._library.retro_unserialize(state[1:], len(state) - 1):
            raise RuntimeError("FCEUmm could not go back to a saved state")
        self._next = state[0]

    def close(self) -> None:
        """See `EmulatorCore`."""
        self._pixels = self._kept
        self._free()

    def _connect(self) -> list[Any]:
        """Tells the library whom to call; the callbacks, which must live as long as it."""
        pressed = self._pressed

        def take_picture(address: int | None, width: int, height: int, pitch: int) -> None:
            if address and address != self._address and (height, width, pitch) == (*_SHAPE, 2 * _SHAPE[1]):
                self._pixels = _pixels_at(address)
                self._address = address

        def button(port: int, device: int, index: int, joypad_id: int) -> int:
            return pressed[joypad_id] if port == 0 else 0

        callbacks = [
            _Environment(_answer),
            _VideoRefresh(take_picture),
            _AudioSample(lambda left, right: None),
            _AudioSampleBatch(lambda samples, count: count),
            _InputPoll(lambda: None),
            _InputState(button),
        ]
        setters = ("environment", "video_refresh", "audio_sample", "audio_sample_batch", "input_poll", "input_state")
        for setter, callback in zip(setters, callbacks, strict=True):
            getattr(self._library, f"retro_set_{setter}")(callback)
        self._library.retro_init()
        return callbacks


class _Tables(NamedTuple):
    """What a pixel's upper byte means. It identifies the colour alone; the lower one holds no more of it."""

    rgb: NDArray[np.uint8]  # [65536, 3], by pixel
    grey_of_pair: NDArray[np.float32]  # [1, 65536], grey of the maximum per channel of two colours, by both upper bytes


@cache
def _tables() -> _Tables:
    by_byte = np.zeros((256, 3), np.uint8)
    for number, colour in enumerate(np.frombuffer(_PALETTE, np.uint8).reshape(64, 3)):
        # FCEUmm's "raw" palette: red from the number's lower four bits, green from the upper two; in 5 and 6 bits.
        red, green = (number & 15) * 255 // 15 >> 3, (number >> 4) * 255 // 3 >> 2
        by_byte[red << 3 | green >> 3] = colour
    maximum = np.maximum(by_byte[:, None], by_byte[None])
    grey = np.empty(maximum.shape[:2], np.float32)
    weigh_colours(maximum, grey)
    return _Tables(by_byte.repeat(256, axis=0), grey.reshape(1, -1))


@cache
def _room() -> tuple[NDArray[np.uint16], NDArray[np.uint16], Canvas]:
    """What `read_frame` works in: one for all consoles of the process, so that it stays in the processor's cache."""
    shape = (SCREEN_ROWS.stop - SCREEN_ROWS.start, _SHAPE[1])
    return np.zeros(shape, np.uint16), np.zeros(shape, np.uint16), Canvas()


def is_installed() -> bool:
    """Whether stable-retro's wheel, with the library in it, is there."""
    return _library_path() is not None


def _library_path() -> Path | None:
    spec = find_spec("stable_retro")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "cores" / "fceumm_libretro.so"
    return path if path.is_file() else None


def _load_private_copy() -> tuple[ctypes.CDLL, int]:
    """The library, loaded from a file in memory that nobody else has open, and that file's descriptor.

    The loader shares what it knows by name or by file, so the descriptor, which is in the name, must stay open as long
    as the library is in use.
    """
    path = _library_path()
    if path is None:
        raise UserError(NOT_INSTALLED)
    descriptor = os.memfd_create("fceumm")
    try:
        os.write(descriptor, path.read_bytes())
        library = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        os.close(descriptor)
        reason = first_line(error)
        raise UserError(f"the emulator core {path} cannot be loaded ({reason}); {_INSTEAD}") from error
    library.retro_get_memory_data.restype = ctypes.c_void_p
    library.retro_serialize_size.restype = ctypes.c_size_t
    for name in ("retro_serialize", "retro_unserialize"):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_bool
    library.retro_load_game.argtypes, library.retro_load_game.restype = [ctypes.c_void_p], ctypes.c_bool
    return library, descriptor


def _insert(library: ctypes.CDLL, rom: Path) -> Any:
    """Gives the library the ROM; what must live as long as it."""
    data = rom.read_bytes()
    buffer = ctypes.create_string_buffer(data, len(data))
    game = _GameInfo(b"game.nes", ctypes.addressof(buffer), len(data), None)
    if not library.retro_load_game(ctypes.byref(game)):
        raise UserError(f"the emulator core fceumm does not take the ROM {rom}; {_INSTEAD}")
    return buffer


def _answer(command: int, data: int) -> bool:
    """libretro's questions about its surroundings; False: it must do without."""
    if command == _GET_CAN_DUPE:
        ctypes.c_bool.from_address(data).value = True
        return True
    if command == _SET_PIXEL_FORMAT:
        return ctypes.c_int.from_address(data).value == _PIXEL_FORMAT_RGB565
    if command == _GET_VARIABLE:
        variable = _Variable.from_address(data)
        if variable.key in _OPTIONS:
            variable.value = _OPTIONS[variable.key]
            return True
    return False


def _pixels_at(address: int) -> NDArray[np.uint16]:
    """The library's picture, a live view."""
    picture = memoryview((ctypes.c_uint16 * (_SHAPE[0] * _SHAPE[1])).from_address(address))
    return np.frombuffer(picture, np.uint16).reshape(_SHAPE)


def _shut_down(library: ctypes.CDLL, descriptor: int) -> None:
    library.retro_unload_game()
    library.retro_deinit()
    _ctypes.dlclose(library._handle)
    os.close(descriptor)
