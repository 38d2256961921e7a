"""The rules on our core are those of gym-super-mario-bros, frame by frame."""

from collections.abc import Iterator
from pathlib import Path

import nes_py._rom
import numpy as np
import pytest
from gym_super_mario_bros import SuperMarioBrosEnv, actions
from nes_py import NESEnv

from actors.cores import NesPyCore, checked_rom, make_core, resolve_core
from actors.mario import MarioRules
from common.actions import ACTION_SETS
from common.errors import UserError


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helps the original environment over NumPy 2: its header and RAM arithmetic in Python ints."""
    original = NESEnv._ram_buffer
    header = property(lambda rom: rom.raw_data[:16].astype(int))
    monkeypatch.setattr(nes_py._rom.ROM, "header", header)
    monkeypatch.setattr(NESEnv, "_ram_buffer", lambda env: memoryview(original(env)))


def buttons(seed: int, frames: int) -> Iterator[int]:
    """Random presses, mostly to the right, held for ten frames each."""
    rng = np.random.default_rng(seed)
    for _ in range(frames // 10):
        yield from [int(rng.choice([0b10000010, 0b10000011, 0b10000001, 0b01000000, 0b00000001]))] * 10


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("target", "seed", "frames"), [((1, 1), 0, 500), ((8, 4), 1, 400), (None, 0, 600)])
def test_every_frame_is_that_of_the_original_environment(
    target: tuple[int, int] | None, seed: int, frames: int
) -> None:
    original, rules = SuperMarioBrosEnv(target=target), MarioRules(make_core("nes-py"), target)
    original.reset()
    rules.reset()
    deaths = 0
    for pressed in buttons(seed, frames):
        screen, *expected = original.step(pressed)
        assert list(rules.play_frame(pressed)) == expected
        np.testing.assert_array_equal(rules.screen, screen)
        if expected[1] or expected[2]["life"] < 2:
            deaths += 1
            if expected[1]:
                np.testing.assert_array_equal(original.reset(), (rules.reset(), rules.screen)[1])
    assert deaths > 0
    original.close()
    rules.close()


def test_info_is_left_out_only_where_nobody_wants_it() -> None:
    rules = MarioRules(make_core("nes-py"), (1, 1))
    rules.reset()
    assert rules.play_frame(0, want_info=False) == (0.0, False, {})
    while not (outcome := rules.play_frame(0b10000010, want_info=False))[1]:
        assert outcome[2] == {}
    assert outcome[2]["x_pos"] > 40
    with pytest.raises(ValueError, match="call reset"):
        rules.play_frame(0)


def test_ram_is_live_and_in_python_ints() -> None:
    core = make_core("nes-py")
    assert (len(core.ram), core.ram.readonly, core.has_saved_states) == (2048, False, False)
    core.ram[0x75F] = 255
    assert core.ram[0x75F] * 256 == 65280
    core.close()
    core.close()


def test_action_sets_are_those_of_gym_super_mario_bros() -> None:
    originals = {
        "right_only": actions.RIGHT_ONLY,
        "simple": actions.SIMPLE_MOVEMENT,
        "complex": actions.COMPLEX_MOVEMENT,
    }
    assert dict(ACTION_SETS) == {
        name: tuple("+".join(action) for action in original) for name, original in originals.items()
    }


def test_a_missing_or_damaged_rom_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); install") as error:
        checked_rom(tmp_path / "absent.nes")
    assert "\n" not in str(error.value)
    (tmp_path / "short.nes").write_bytes(b"NES\x1a" + bytes(100))
    with pytest.raises(UserError, match="damaged or another one; install"):
        checked_rom(tmp_path / "short.nes")


def test_core_names() -> None:
    assert resolve_core("auto") == resolve_core("nes-py") == NesPyCore.name
    with pytest.raises(UserError, match="unknown emulator core 'snes9x'; choose one of: auto, nes-py"):
        resolve_core("snes9x")
