"""The rules on our core are those of gym-super-mario-bros, frame by frame."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nes_py._rom
import numpy as np
import pytest
from gym_super_mario_bros import SuperMarioBrosEnv, actions
from nes_py import NESEnv
from numpy.typing import NDArray

import evaluate
from actors import fceumm
from actors.cores import checked_rom, make_core, resolve_core
from actors.mario import MarioRules
from common.actions import ACTION_SETS
from common.errors import UserError
from tests.cores import needs_fceumm
from tests.launching import ROOT

CORES = ("nes-py", "fceumm")
CORE_CASES = ["nes-py", pytest.param("fceumm", marks=needs_fceumm)]
# In the topmost row, which televisions cut off, nes-py alone draws sprites.
HIDDEN_ROWS = 1
PRESSES = (0b10000000, 0b10000001, 0b10000010, 0b10000011, 0b10000011, 0b01000000, 0b00100000, 0)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helps the original environment over NumPy 2: its header and RAM arithmetic in Python ints."""
    original = NESEnv._ram_buffer
    header = property(lambda rom: rom.raw_data[:16].astype(int))
    monkeypatch.setattr(nes_py._rom.ROM, "header", header)
    monkeypatch.setattr(NESEnv, "_ram_buffer", lambda env: memoryview(original(env)))


def seen(rules: MarioRules) -> NDArray[np.uint8]:
    """The screen without its topmost row."""
    return rules.screen[HIDDEN_ROWS:]


def buttons(seed: int, frames: int) -> Iterator[int]:
    """Random presses, mostly to the right, held for ten frames each."""
    rng = np.random.default_rng(seed)
    for _ in range(frames // 10):
        yield from [int(rng.choice([0b10000010, 0b10000011, 0b10000001, 0b01000000, 0b00000001]))] * 10


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("core", CORE_CASES)
@pytest.mark.parametrize(("target", "seed", "frames"), [((1, 1), 0, 500), ((8, 4), 1, 400), (None, 0, 600)])
def test_every_frame_is_that_of_the_original_environment(
    target: tuple[int, int] | None, seed: int, frames: int, core: str
) -> None:
    original, rules = SuperMarioBrosEnv(target=target), MarioRules(make_core(core), target)
    original.reset()
    rules.reset()
    deaths = 0
    for pressed in buttons(seed, frames):
        screen, *expected = original.step(pressed)
        assert list(rules.play_frame(pressed)) == expected
        np.testing.assert_array_equal(seen(rules), screen[HIDDEN_ROWS:])
        if expected[1] or expected[2]["life"] < 2:
            deaths += 1
            if expected[1]:
                rules.reset()
                np.testing.assert_array_equal(seen(rules), original.reset()[HIDDEN_ROWS:])
    assert deaths > 0
    original.close()
    rules.close()


def play_together(target: tuple[int, int] | None, seed: int, hold: int) -> int:
    """Plays one episode on both cores, which must agree in everything that the rules and a player see; its frames."""
    slow, fast = (MarioRules(make_core(name), target) for name in CORES)
    assert slow.reset() == fast.reset()
    rng = np.random.default_rng(seed)
    frames, done = 0, False
    while not done and frames < 4000:
        pressed = int(rng.choice(PRESSES))
        for _ in range(hold):
            expected, outcome = slow.play_frame(pressed), fast.play_frame(pressed)
            assert outcome == expected, f"after {frames} frames"
            frames += 1
            done = expected[1]
            if done:
                break
        np.testing.assert_array_equal(fast.core.read_frame(pooled=False), slow.core.read_frame(pooled=False))
        np.testing.assert_array_equal(seen(fast), seen(slow))
    slow.close()
    fast.close()
    return frames


@needs_fceumm
@pytest.mark.parametrize(("target", "seed"), [((1, 2), 0), ((7, 4), 3)])
def test_both_cores_play_the_same_game(target: tuple[int, int], seed: int) -> None:
    assert play_together(target, seed, hold=4) > 60


@needs_fceumm
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", [(world, stage) for world in range(1, 9) for stage in range(1, 5)])
def test_both_cores_play_the_same_game_on_every_stage(target: tuple[int, int]) -> None:
    assert sum(play_together(target, seed, hold) for seed in range(4) for hold in (1, 4, 16)) > 1000


@pytest.mark.parametrize("core", CORE_CASES)
def test_the_same_presses_give_the_same_ram_after_every_reset(core: str) -> None:
    rules = MarioRules(make_core(core), (1, 1))
    seen = []
    for _ in range(3):
        rules.reset()
        history = [bytes(rules.ram)]
        for pressed in buttons(seed=3, frames=200):
            _, done, _ = rules.play_frame(pressed)
            history.append(bytes(rules.ram))
            if done:
                break
        seen.append((history, rules.screen.tobytes()))
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0][0])) > 100


@needs_fceumm
def test_cores_of_one_process_do_not_touch_each_other() -> None:
    alone, beside = (MarioRules(make_core("fceumm"), (1, 1)) for _ in range(2))
    alone.reset()
    beside.reset()
    for pressed in buttons(seed=0, frames=100):
        beside.play_frame(pressed)
    other = MarioRules(make_core("fceumm"), (8, 1))
    assert alone.play_frame(0)[2]["x_pos"] == 40
    beside.close()
    assert alone.play_frame(0)[2]["x_pos"] == 40
    assert other.stage_number == (8, 1)


def test_info_is_left_out_only_where_nobody_wants_it() -> None:
    rules = MarioRules(make_core("nes-py"), (1, 1))
    rules.reset()
    assert rules.play_frame(0, want_info=False) == (0.0, False, {})
    while not (outcome := rules.play_frame(0b10000010, want_info=False))[1]:
        assert outcome[2] == {}
    assert outcome[2]["x_pos"] > 40
    with pytest.raises(ValueError, match="call reset"):
        rules.play_frame(0)


@pytest.mark.parametrize("name", CORE_CASES)
def test_ram_is_live_and_in_python_ints(name: str) -> None:
    core = make_core(name)
    assert (len(core.ram), core.ram.readonly, core.has_saved_states) == (2048, False, name == "fceumm")
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


@needs_fceumm
def test_auto_is_the_fast_core_where_it_is_installed_else_nes_py(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (resolve_core("auto"), resolve_core("nes-py"), resolve_core("fceumm")) == ("fceumm", "nes-py", "fceumm")
    monkeypatch.setattr(fceumm, "_library_path", lambda: None)
    assert resolve_core("auto") == resolve_core("nes-py") == "nes-py"
    with pytest.raises(UserError, match=r"fceumm is not installed: pip install 'apex-mario\[fast\]' brings it"):
        resolve_core("fceumm")


def test_an_unknown_core_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="unknown emulator core 'snes9x'; choose one of: auto, fceumm, nes-py"):
        resolve_core("snes9x")


def test_a_library_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "fceumm_libretro.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(fceumm, "_library_path", lambda: broken)
    with pytest.raises(UserError, match=r"fceumm_libretro.so cannot be loaded .*; take --env.core nes-py") as error:
        make_core("fceumm")
    assert "\n" not in str(error.value)


def test_nes_py_plays_alone_where_the_other_core_is_not_installed() -> None:
    program = """
import sys
sys.modules["stable_retro"] = None
from actors.cores import resolve_core
from actors.environment import make_environment
env = make_environment(seed=1)
env.reset()
print(resolve_core("auto"), env.step(1)[4]["x_pos"] >= 40)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert (run.stdout, run.stderr) == ("nes-py True\n", "")


@needs_fceumm
def test_a_trained_policy_plays_the_same_episodes_on_both_cores(tmp_path: Path) -> None:
    results = []
    for core in ("nes-py", "fceumm"):
        out = tmp_path / f"{core}.json"
        policy = str(ROOT / "pretrained" / "1-1.pt")
        assert evaluate.main([policy, "--episodes", "3", "--core", core, "--json", str(out)]) == 0
        results.append(json.loads(out.read_text())["stages"])
    assert results[0] == results[1]
    assert results[0]["1-1"]["clears"] > 0
