"""The one way to an environment: `make_environment`, in the API of gym >= 0.26."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gym
import numpy as np
from nes_py.wrappers import JoypadSpace
from numpy.typing import NDArray

from actors.cores import make_core, resolve_core
from actors.gridworld import DEFAULT_MAX_STEPS, GridworldEnvironment, gridworld_spec
from actors.mario import Info, MarioRules
from actors.moments import Moment
from actors.preprocessing import FRAME_SHAPE, show_buttons
from actors.synthetic import DEFAULT_MAX_STEPS as SYNTHETIC_MAX_STEPS
from actors.synthetic import RECORDED_FRAMES, Recording, SyntheticEnvironment, record
from common.actions import ACTION_SETS, ActionSet
from common.errors import UserError
from common.types import EnvironmentSpec
from common.validation import WHOLE_GAME, validate_stages

Seed = int | np.random.SeedSequence


def make_environment(
    *,
    name: str = "mario",
    stages: Sequence[str] = ("1-1",),
    actions: ActionSet = "right_only",
    core: str = "auto",
    frame_skip: int = 4,
    frame_stack: int = 4,
    noop_max: int = 30,
    sticky_actions: float = 0.0,
    max_steps: int | None = None,
    show_buttons: bool = False,
    step_ms: float = 0.0,
    seed: Seed = 0,
    exploring_starts: bool = True,
) -> "Environment":
    """An environment.

    Args:
        name: "mario"; "gridworld", which uses `max_steps` (100 if None), `seed` and `exploring_starts` alone; or
            "synthetic", which shows frames of the first stage, recorded when a process first asks for one.
        stages: "1-1" … "8-4", one of them drawn for each episode; or "game" alone.
        actions: "right_only", "simple" or "complex".
        core: emulator core (`actors.cores`).
        frame_skip: raw frames that an action is held for.
        frame_stack: S, frames in a state.
        noop_max: each episode starts with 0 … noop_max raw frames without a button pressed, drawn evenly.
        sticky_actions: probability, at each raw frame, that the previous frame's buttons stay pressed.
        max_steps: agent steps after which an episode is truncated; None: unlimited, in "synthetic" 400.
        show_buttons: Mario only, whether frames show the buttons held (`actors.preprocessing.show_buttons`).
        step_ms: synthetic only, milliseconds that a step sleeps.
        seed: of everything random in the environment.
        exploring_starts: gridworld only, see `GridworldEnvironment`.

    Raises:
        UserError: a setting is not possible, or the emulator or its ROM is not there.
    """
    if max_steps is not None and max_steps < 1:
        raise UserError(f"max_steps is {max_steps}; give at least 1, or none for no limit")
    if name == "gridworld":
        steps = DEFAULT_MAX_STEPS if max_steps is None else max_steps
        return GridworldEnvironment(max_steps=steps, exploring_starts=exploring_starts, seed=seed)
    validate_stages("stages", tuple(stages))
    spec = environment_spec(name=name, actions=actions, frame_stack=frame_stack)
    if name == "synthetic":
        steps = SYNTHETIC_MAX_STEPS if max_steps is None else max_steps
        recording = _recording(stages[0], resolve_core(core), frame_skip)
        return SyntheticEnvironment(
            spec=spec, recording=recording, stage=stages[0], step_ms=step_ms, max_steps=steps, seed=seed
        )
    return MarioEnvironment(
        spec=spec,
        stages=stages,
        core=resolve_core(core),
        frame_skip=frame_skip,
        noop_max=noop_max,
        sticky_actions=sticky_actions,
        max_steps=max_steps,
        shows_buttons=show_buttons,
        seed=seed,
    )


def environment_spec(
    *, name: str = "mario", actions: ActionSet = "right_only", frame_stack: int = 4
) -> EnvironmentSpec:
    """The spec of `make_environment`'s environment, without making one.

    Raises:
        UserError: a setting is not possible.
    """
    if name == "gridworld":
        return gridworld_spec()
    if name not in ("mario", "synthetic"):
        raise UserError(f"unknown environment {name!r}; choose mario, gridworld or synthetic")
    if actions not in ACTION_SETS:
        raise UserError(f"unknown action set {actions!r}; choose one of: {', '.join(ACTION_SETS)}")
    if frame_stack < 1:
        raise UserError(f"frame_stack is {frame_stack}; give at least 1")
    return EnvironmentSpec(frame_shape=FRAME_SHAPE, frame_stack=frame_stack, action_names=ACTION_SETS[actions])


class MarioEnvironment(gym.Env[NDArray[np.uint8], int]):
    """Super Mario Bros. as the tutorials show it to an agent.

    A step holds an action for `frame_skip` raw frames, less where the episode ends. The reward is the sum of the rules'
    rewards over these. The new frame is the maximum of the step's last two raw frames, or its only one, through
    `actors.preprocessing`; it can show the buttons that are held at the step's end.

    A single stage ends with death, flag or axe; `clear` is then whether it was flag or axe. "game" starts in 1-1
    with three lives and ends with the last one, or with the axe of 8-4. There `stages_cleared` counts flags and axes,
    once for each stage, not the stages that a warp skips; `clear` is whether there was one.

    Sticky actions are those of Machado et al. (2018), "Revisiting the Arcade Learning Environment".
    The emulator of a stage starts when an episode first needs it.

    Observation: uint8 [S, 84, 84]. `info` has, beside what every `Environment` has: `world`, `level` (both from 1),
    `score`, `coins`, `life`, `flag_get`, `status` and `y_pos`, as gym-super-mario-bros gives them.
    """

    def __init__(
        self,
        *,
        spec: EnvironmentSpec,
        stages: Sequence[str],
        core: str,
        frame_skip: int,
        noop_max: int,
        sticky_actions: float,
        max_steps: int | None,
        shows_buttons: bool,
        seed: Seed,
    ) -> None:
        """See `make_environment`."""
        if frame_skip < 1:
            raise UserError(f"frame_skip is {frame_skip}; give at least 1")
        if noop_max < 0:
            raise UserError(f"noop_max is {noop_max}; give 0 or more raw frames")
        if not 0 <= sticky_actions < 1:
            raise UserError(f"sticky_actions is {sticky_actions}; give a probability from 0 to less than 1")
        self.environment_spec = spec
        self.observation_space = gym.spaces.Box(0, 255, spec.state_shape, np.uint8)
        self.action_space = gym.spaces.Discrete(spec.num_actions)
        self._stages = tuple(stages)
        self._buttons = [controller_byte(action) for action in spec.action_names]
        self._core = core
        self._frame_skip = frame_skip
        self._noop_max = noop_max
        self._sticky_actions = sticky_actions
        self._max_steps = max_steps
        self._shows_buttons = shows_buttons
        self._rng = np.random.default_rng(seed)
        self._rules_of: dict[str, MarioRules] = {}
        self._stage = self._stages[0]
        self._state = np.zeros(spec.state_shape, np.uint8)
        self._steps = 0
        self._raw_frames = 0
        self._held = 0
        self._over = True

    def reset(
        self, *, seed: Seed | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], Info]:
        """Starts an episode.

        Args:
            seed: starts the environment's own generator afresh.
            options: "stage": the stage to play instead of one drawn; "moment": what `moment` returned, to go on from
                there. Any other key is ignored.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        if options and "moment" in options:
            return self._go_back(options["moment"])
        self._stage = self._next_stage(options or {})
        rules = self._rules()
        info = self._start(rules)
        self._over = False
        self._state[:] = 0
        self._state[-1] = self._finished(rules.core.read_frame(pooled=False))
        return self._state.copy(), self._full_info(info)

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, Info]:
        """Holds an action for `frame_skip` raw frames.

        Raises:
            ValueError: the episode is over, or there is no such action.
        """
        if self._over:
            raise ValueError("the episode is over: call reset first")
        if not 0 <= action < len(self._buttons):
            raise ValueError(f"action {action} is not one of 0 … {len(self._buttons) - 1}")
        reward, terminated, info, frame = self._hold(self._buttons[action])
        self._state[:-1] = self._state[1:]
        self._state[-1] = frame
        self._steps += 1
        truncated = not terminated and self._max_steps is not None and self._steps >= self._max_steps
        self._over = terminated or truncated
        return self._state.copy(), reward, terminated, truncated, self._full_info(info)

    def moment(self) -> Moment:
        """The running episode as it is now; only on emulator cores with saved states."""
        rules = self._rules()
        return Moment(
            self._stage,
            rules.save_state(),
            self._state.copy(),
            self._steps,
            self._raw_frames,
            self._held,
            int(rules._x_position),
            int(rules._y_position),
        )

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]  # gym allows several kinds of frame
        """The last raw frame: RGB, uint8 [240, 256, 3], a copy."""
        return self._rules().screen

    def close(self) -> None:
        """Frees the emulators."""
        for rules in self._rules_of.values():
            rules.close()
        self._rules_of.clear()
        self._over = True

    def _rules(self) -> MarioRules:
        """The present stage's rules and emulator."""
        if self._stage not in self._rules_of:
            target = None if self._stage == WHOLE_GAME else (int(self._stage[0]), int(self._stage[2]))
            self._rules_of[self._stage] = MarioRules(make_core(self._core), target)
        return self._rules_of[self._stage]

    def _next_stage(self, options: Mapping[str, Any]) -> str:
        if "stage" in options:
            validate_stages("stage", (options["stage"],))
            return str(options["stage"])
        if len(self._stages) == 1:
            return self._stages[0]
        return self._stages[int(self._rng.integers(len(self._stages)))]

    def _go_back(self, moment: Moment) -> tuple[NDArray[np.uint8], Info]:
        self._stage = moment.stage
        info = self._rules().load_state(moment.game)
        self._state[:] = moment.state
        self._steps, self._raw_frames, self._held = moment.steps, moment.raw_frames, moment.held
        self._over = False
        return self._state.copy(), self._full_info(info)

    def _start(self, rules: MarioRules) -> Info:
        """Resets and plays the random no-op start, again should the episode end in it; returns the info."""
        while True:
            self._steps = 0
            self._held = 0
            done, info = False, rules.reset()
            self._raw_frames = int(self._rng.integers(self._noop_max + 1))
            for _ in range(self._raw_frames):
                _, done, info = rules.play_frame(0)
                if done:
                    break
            if not done:
                return info

    def _hold(self, buttons: int) -> tuple[float, bool, Info, NDArray[np.uint8]]:
        """The raw frames of one step: summed reward, whether the episode ended, info, pooled frame [84, 84]."""
        rules = self._rules()
        total = 0.0
        for i in range(1, self._frame_skip + 1):
            if i > 1:
                rules.core.keep_screen()
            if not self._sticks():
                self._held = buttons
            reward, done, info = rules.play_frame(self._held, want_info=i == self._frame_skip)
            total += reward
            if done:
                break
        self._raw_frames += i
        return total, done, info, self._finished(rules.core.read_frame(pooled=i > 1))

    def _finished(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame as the agent sees it."""
        if self._shows_buttons:
            show_buttons(frame, self._held)
        return frame

    def _sticks(self) -> bool:
        """Whether the previous raw frame's buttons stay pressed."""
        return self._sticky_actions > 0 and bool(self._rng.random() < self._sticky_actions)

    def _full_info(self, info: Info) -> Info:
        """The rules' info with the keys that every `Environment` has."""
        cleared = len(self._rules().cleared)
        return info | {
            "level": info["stage"],
            "stage": self._stage,
            "clear": cleared > 0,
            "stages_cleared": cleared,
            "raw_frames": self._raw_frames,
        }


def controller_byte(action: str) -> int:
    """The buttons of an action, such as "right+A", as `EmulatorCore.frame_advance` wants them."""
    return sum(JoypadSpace._button_map[button] for button in action.split("+"))


@functools.cache
def _recording(stage: str, core: str, frame_skip: int) -> Recording:
    """What the real environment shows under random actions; a process records it once for all its environments."""
    env = make_environment(stages=(stage,), core=core, frame_skip=frame_skip, noop_max=0)
    try:
        return record(env, RECORDED_FRAMES, seed=0)
    finally:
        env.close()


Environment = MarioEnvironment | GridworldEnvironment | SyntheticEnvironment
"""What `make_environment` makes.

Observations are uint8 [S, *F], the newest frame last and zeros before an episode's first frame; each is a new array.
`info` has at least `stage` (str), `x_pos` (int, pixels), `time` (int, the game clock), `clear` (bool), `stages_cleared`
(int) and `raw_frames` (int, of this episode so far, the random no-op start included). `environment_spec` is the spec,
`render()` the present screen: RGB, uint8 [H, W, 3], a copy.
"""
