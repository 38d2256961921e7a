"""`make_environment`: the API, episodes, options and counters, on the real emulator."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gym
import numpy as np
import pytest
from numpy.typing import NDArray

from actors.cores import make_core
from actors.environment import MarioEnvironment, environment_spec, make_environment
from actors.mario import MarioRules
from actors.preprocessing import pool, preprocess
from common.actions import ACTION_SETS
from common.errors import UserError
from common.validation import STAGES
from tests.cores import needs_fceumm

RIGHT, RUN = 1, 3
# The game's clock starts at 300 there, elsewhere at 400.
SHORT_STAGES = [
    "1-3",
    "1-4",
    "2-3",
    "2-4",
    "3-2",
    "3-3",
    "3-4",
    "4-3",
    "5-1",
    "5-3",
    "5-4",
    "6-3",
    "6-4",
    "7-3",
    "8-1",
    "8-3",
]
Make = Callable[..., MarioEnvironment]


@pytest.fixture(params=["nes-py", pytest.param("fceumm", marks=needs_fceumm)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes environments that are closed at the end of the test, on each emulator core."""
    made: list[MarioEnvironment] = []

    def make_one(**settings: Any) -> MarioEnvironment:
        defaults: dict[str, Any] = {"core": request.param, "noop_max": 0}
        env = make_environment(**(defaults | settings))
        assert isinstance(env, MarioEnvironment)
        made.append(env)
        return env

    yield make_one
    for env in made:
        env.close()


def trace(env: MarioEnvironment, steps: int, seed: int | None = None) -> list[Any]:
    """Everything that one episode shows under fixed random actions."""
    state, info = env.reset(seed=seed)
    shown: list[Any] = [(state.tobytes(), info)]
    for action in np.random.default_rng(7).integers(5, size=steps):
        state, reward, terminated, truncated, info = env.step(int(action))
        shown.append((state.tobytes(), reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return shown


def fly(env: MarioEnvironment, until: Callable[[dict[str, Any]], bool]) -> tuple[bool, dict[str, Any]]:
    """Runs to the right, held at the top of the screen and invincible by RAM."""
    for _ in range(1000):
        ram = env._rules().ram
        ram[0xB5], ram[0xCE], ram[0x9F], ram[0x79F] = 1, 32, 0, 0x20
        _, _, terminated, _, info = env.step(RUN)
        if until(info):
            return terminated, info
    raise AssertionError(f"did not get there: {info}")


def test_api_and_spaces(make: Make) -> None:
    env = make(actions="simple", frame_stack=3)
    state, info = env.reset()
    assert env.environment_spec == environment_spec(actions="simple", frame_stack=3)
    assert env.action_space == gym.spaces.Discrete(7)
    assert env.environment_spec.num_actions == 7
    assert env.observation_space == gym.spaces.Box(0, 255, (3, 84, 84), np.uint8)
    assert env.observation_space.contains(state)
    assert info | {"time": 0, "status": ""} == {
        "stage": "1-1", "world": 1, "level": 1, "x_pos": 40, "y_pos": 79, "time": 0, "score": 0, "coins": 0, "life": 2,
        "flag_get": False, "status": "", "clear": False, "stages_cleared": 0, "raw_frames": 0,
    }  # fmt: skip
    state, reward, terminated, truncated, info = env.step(RIGHT)
    assert env.observation_space.contains(state)
    assert (type(reward), terminated, truncated, info["raw_frames"]) == (float, False, False, 4)
    screen = env.render()
    assert screen.shape == (240, 256, 3)
    assert screen.dtype == np.uint8
    screen[:] = 0
    assert env.render().any()


def test_states_are_padded_with_zeros_then_shifted(make: Make) -> None:
    env = make()
    first, _ = env.reset()
    assert not first[:3].any()
    assert first[3].any()
    previous = first
    for _ in range(6):
        state, *_ = env.step(RUN)
        np.testing.assert_array_equal(state[:3], previous[1:])
        previous = state
    again, _ = env.reset()
    np.testing.assert_array_equal(again, first)


def test_states_never_alias(make: Make) -> None:
    env, twin = make(), make()
    states = [env.reset()[0]]
    twin.reset()
    for _ in range(6):
        states[-1][:] = 255
        state, *_ = env.step(RUN)
        np.testing.assert_array_equal(state, twin.step(RUN)[0])
        assert not any(np.shares_memory(state, other) for other in states)
        states.append(state)


def test_a_step_sums_the_rules_rewards_and_pools_its_last_two_frames(make: Make) -> None:
    env = make()
    rules = MarioRules(make_core("nes-py"), (1, 1))
    env.reset()
    rules.reset()
    for _ in range(20):
        screens, rewards = [], []
        for _ in range(4):
            reward, _, info = rules.play_frame(0b10000010)
            rewards.append(reward)
            screens.append(rules.screen)
        state, total, _, _, shown = env.step(RUN)
        assert total == sum(rewards)
        assert shown["x_pos"] == info["x_pos"]
        np.testing.assert_array_equal(state[-1], preprocess(pool(*screens[2:])))
    rules.close()


def test_an_episode_that_ends_on_a_steps_first_frame_shows_that_frame_alone(make: Make) -> None:
    rules = MarioRules(make_core("nes-py"), (1, 1))
    rules.reset()
    screens: list[NDArray[np.uint8]] = []
    done = False
    while not done:
        _, done, _ = rules.play_frame(0b10000010)
        screens.append(rules.screen)
    death = len(screens)  # the raw frame, from 1, at which the first Goomba is met
    rules.close()
    env = make(frame_skip=death - 1)
    env.reset()
    assert not env.step(RUN)[2]
    state, reward, terminated, truncated, info = env.step(RUN)
    assert (terminated, truncated, info["clear"], info["raw_frames"]) == (True, False, False, death)
    assert reward < -10
    np.testing.assert_array_equal(state[-1], preprocess(screens[-1]))
    assert (state[-1] != preprocess(pool(*screens[-2:]))).any()
    with pytest.raises(ValueError, match="call reset"):
        env.step(RUN)


def test_the_same_seed_repeats_everything_and_another_does_not(make: Make) -> None:
    settings = {"noop_max": 30, "sticky_actions": 0.25, "stages": ("1-1", "1-3")}
    env = make(**settings, seed=3)
    first = trace(env, 60)
    assert trace(make(**settings, seed=3), 60) == first
    assert trace(make(**settings, seed=np.random.SeedSequence(3)), 60) == first
    assert trace(make(**settings, seed=4), 60) != first
    assert trace(env, 60) != first
    assert trace(env, 60, seed=3) == first


def test_an_episode_is_not_marked_by_earlier_ones(make: Make) -> None:
    env = make()
    first = trace(env, 100)
    env.reset()
    while not env.step(RUN)[2]:
        pass
    assert trace(env, 100) == first


def test_frames_show_the_buttons_that_are_held(make: Make) -> None:
    plain, showing = make(actions="complex"), make(actions="complex", show_buttons=True)
    names = ACTION_SETS["complex"]
    states = [(plain.reset()[0], showing.reset()[0], "NOOP")]
    for action in (names.index("right+A+B"), names.index("right+B"), names.index("left"), names.index("down")):
        states.append((plain.step(action)[0], showing.step(action)[0], names[action]))
    for without, state, shown in states:
        squares = state[-1][:4, :24].reshape(4, 6, 4)
        assert (squares == squares[0, :, :1][None]).all()
        held = {
            name for name, lit in zip(("A", "B", "up", "down", "left", "right"), squares[0, :, 0], strict=True) if lit
        }
        assert held == set(shown.split("+")) - {"NOOP"}
        assert set(np.unique(squares)) <= {0, 255}
        state[-1][:4, :24] = without[-1][:4, :24]
        np.testing.assert_array_equal(state[-1], without[-1])


def test_frames_show_the_buttons_that_stick(make: Make) -> None:
    env = make(show_buttons=True, sticky_actions=0.9, seed=2)
    env.reset()
    shown = [bool(env.step(RUN if step % 2 else 0)[0][-1][0, 20]) for step in range(40)]  # right
    assert sum(lit != bool(step % 2) for step, lit in enumerate(shown)) > 5


def test_noop_starts_are_drawn_evenly(make: Make) -> None:
    env = make(noop_max=3)
    counts = np.bincount([env.reset()[1]["raw_frames"] for _ in range(400)], minlength=5)
    assert counts[4] == 0
    assert counts[:4].min() > 70
    env.step(0)


def test_an_episode_that_ends_in_its_noop_start_is_begun_again(make: Make) -> None:
    env = make(stages=["1-2"], noop_max=1500)
    rules = MarioRules(make_core("nes-py"), (1, 2))
    rules.reset()
    survived = 0
    while not rules.play_frame(0)[1]:
        survived += 1
    rules.close()
    assert survived < 1000
    for _ in range(4):
        _, info = env.reset()
        assert info["raw_frames"] <= survived
        env.step(0)


def test_sticky_actions_keep_the_buttons_of_the_frame_before(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(sticky_actions=0.25, seed=0)
    env.reset()
    core = env._rules().core
    pressed: list[int] = []
    advance = core.frame_advance

    def record(buttons: int) -> None:
        pressed.append(buttons)
        advance(buttons)

    monkeypatch.setattr(core, "frame_advance", record)
    steps = 150
    for i in range(steps):
        core.ram[0x79F] = 0x20  # invincible
        env.step((0, RIGHT)[i % 2])
    wanted = [(0, 0b10000000)[i % 2] for i in range(steps) for _ in range(4)]
    starts = range(4, 4 * steps, 4)
    late = np.mean([pressed[i] != wanted[i] for i in starts])
    later = np.mean([pressed[i + 1] != wanted[i + 1] for i in starts])
    assert late == pytest.approx(0.25, abs=0.09)
    assert later == pytest.approx(0.25**2, abs=0.05)


def test_the_step_limit_truncates(make: Make) -> None:
    env = make(max_steps=3)
    env.reset()
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(ValueError, match="call reset"):
        env.step(0)
    env.reset()
    assert env.step(0)[3] is False


def test_stages_are_drawn_from_those_given_or_forced(make: Make) -> None:
    env = make(stages=["1-1", "4-1", "1-4"])
    infos = [env.reset()[1] for _ in range(60)]
    counts = {stage: sum(info["stage"] == stage for info in infos) for stage in ("1-1", "4-1", "1-4")}
    assert sum(counts.values()) == 60
    assert min(counts.values()) >= 8
    _, info = env.reset(options={"stage": "2-3"})
    assert (info["stage"], info["world"], info["level"]) == ("2-3", 2, 3)
    with pytest.raises(UserError, match="9-1"):
        env.reset(options={"stage": "9-1"})


@pytest.mark.parametrize(
    "stages", [("1-2", "2-1", "4-2", "7-4", "8-4"), pytest.param(STAGES, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_stages_start_where_they_should(make: Make, stages: tuple[str, ...]) -> None:
    env = make(stages=stages)
    for stage in stages:
        _, info = env.reset(options={"stage": stage})
        assert (info["stage"], f"{info['world']}-{info['level']}", info["x_pos"]) == (stage, stage, 40)
        assert info["time"] == (300 if stage in SHORT_STAGES else 400)
        env._rules_of.pop(stage).close()


def test_the_flag_clears_a_single_stage(make: Make) -> None:
    env = make()
    env.reset()
    terminated, info = fly(env, lambda info: info["clear"])
    assert (terminated, info["clear"], info["stages_cleared"], info["flag_get"]) == (True, True, 1, True)
    assert info["x_pos"] > 3100
    _, info = env.reset()
    assert (info["clear"], info["stages_cleared"]) == (False, 0)


def test_the_whole_game_goes_on_after_flag_and_axe_and_counts_each_once(make: Make) -> None:
    env = make(stages=["game"])
    env.reset()
    terminated, info = fly(env, lambda info: info["stages_cleared"] == 1)
    assert not terminated
    env._rules().ram[0x770] = 2  # as the axe does
    for _ in range(10):
        _, _, terminated, _, info = env.step(0)
    assert (terminated, info["stages_cleared"], info["clear"], info["stage"]) == (False, 2, True, "game")
    assert (info["world"], info["life"]) == (2, 2)


def test_the_whole_game_ends_with_the_third_life(make: Make) -> None:
    env = make(stages=["game"])
    _, info = env.reset()
    terminated, lives = False, []
    while not terminated:
        _, _, terminated, truncated, info = env.step(RIGHT)
        lives.append(info["life"])
    assert list(dict.fromkeys(lives)) == [2, 1, 0, 255]
    assert (truncated, info["clear"], info["stages_cleared"]) == (False, False, 0)


def test_the_axe_of_8_4_ends_the_whole_game(make: Make) -> None:
    env = make(stages=["game"])
    env.reset()
    ram = env._rules().ram
    ram[0x75F], ram[0x75C], ram[0x770] = 7, 3, 2
    _, _, terminated, _, info = env.step(0)
    assert (terminated, info["clear"]) == (True, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": ["1-5"]}, "1-5.*8-4"),
        ({"stages": []}, "8-4"),
        ({"stages": ["game", "1-1"]}, "alone"),
        ({"stages": ["1-1", "1-1"]}, "twice"),
        ({"actions": "all"}, "'all'; choose one of: right_only, simple, complex"),
        ({"name": "pong"}, "'pong'; choose mario, gridworld or synthetic"),
        ({"core": "x"}, "'x'; choose"),
        ({"frame_skip": 0}, "frame_skip"),
        ({"frame_stack": 0}, "frame_stack"),
        ({"noop_max": -1}, "noop_max"),
        ({"sticky_actions": 1.0}, "sticky_actions"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_environment(**settings)
    assert "\n" not in str(error.value)


def test_an_unknown_action_is_refused(make: Make) -> None:
    env = make()
    env.reset()
    for action in (-1, 5):
        with pytest.raises(ValueError, match=f"action {action} is not one of 0 … 4"):
            env.step(action)


def test_action_names_become_the_right_buttons(make: Make) -> None:
    right, left, down, up, b, a = 0x80, 0x40, 0x20, 0x10, 0x02, 0x01
    expected = [0, right, right | a, right | b, right | a | b, a, left, left | a, left | b, left | a | b, down, up]
    assert make(actions="complex")._buttons == expected
    assert environment_spec(actions="complex").action_names == ACTION_SETS["complex"]


def test_nothing_is_printed_and_nothing_warns() -> None:
    code = """
from actors.environment import make_environment
env = make_environment(stages=["1-1", "8-4"], seed=1)
for stage in ("1-1", "8-4"):
    env.reset(options={"stage": stage})
    for i in range(40):
        if env.step(3)[2]:
            env.reset()
env.close()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
