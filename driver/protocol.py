"""How a policy is measured: every setting that the result depends on beside the policy."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal

from actors import gridworld
from actors.cores import resolve_core
from actors.environment import Environment, make_environment
from actors.evaluation import evaluation_max_steps
from common.actions import ACTION_SETS, ActionSet
from common.config import Config, EnvConfig, EvalConfig
from common.errors import UserError
from common.policy import Policy
from common.validation import expand_stages, validate

_CONSOLE_FPS = 60
_GRID_FPS = 4


@dataclass(frozen=True)
class Protocol:
    """The fields of `EnvConfig` with their values resolved, and `epsilon`, `episodes` (per stage) and `seed`."""

    env: EnvConfig
    epsilon: float
    episodes: int
    seed: int

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are played; "grid" for the gridworld."""
        return (gridworld.STAGE,) if self.is_grid else self.env.stages

    @property
    def is_grid(self) -> bool:
        """Whether it is the gridworld."""
        return self.env.name == "gridworld"

    @property
    def fps(self) -> Fraction:
        """Agent steps per second of real time."""
        return Fraction(_GRID_FPS) if self.is_grid else Fraction(_CONSOLE_FPS, self.env.frame_skip)

    def make_environment(self) -> Environment:
        """An environment to play in."""
        env = self.env
        return make_environment(
            name=env.name,
            stages=env.stages,
            actions=env.actions,
            core=env.core,
            frame_skip=env.frame_skip,
            frame_stack=env.frame_stack,
            noop_max=env.noop_max,
            sticky_actions=env.sticky_actions,
            max_steps=env.max_steps,
            show_buttons=env.show_buttons,
        )

    def randomness(self) -> str:
        """What differs from episode to episode, in words."""
        sources = [f"a random action with probability {self.epsilon:g}"] if self.epsilon else []
        if self.is_grid:
            sources.append("a random start square")
        else:
            if self.env.noop_max:
                sources.append(f"0 to {self.env.noop_max} raw frames without a button at the start")
            if self.env.sticky_actions:
                sources.append(f"sticky actions with probability {self.env.sticky_actions:g}")
        if not sources:
            return (
                "none: the emulator is deterministic, so all episodes of a stage are the same one and prove nothing; "
                "give --epsilon, --noop-max or --sticky-actions"
            )
        return f"{'; '.join(sources)}; seed {self.seed}"

    def as_json(self) -> dict[str, object]:
        """The protocol as the evaluation's JSON has it: null for what has no meaning in the gridworld."""
        env = self.env
        of_mario: dict[str, object] = {
            "noop_max": env.noop_max,
            "sticky_actions": env.sticky_actions,
            "show_buttons": env.show_buttons,
            "core": resolve_core(env.core),
            "actions": env.actions,
            "frame_skip": env.frame_skip,
        }
        return {
            "env": env.name,
            "episodes": self.episodes,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "max_steps": env.max_steps,
            "randomness": self.randomness(),
            "frame_stack": env.frame_stack,
        } | (dict.fromkeys(of_mario) if self.is_grid else of_mario)


def resolve_protocol(
    policy: Policy, given: Mapping[str, object], *, epsilon: float, episodes: int, seed: int
) -> Protocol:
    """What was given, then what the policy was trained with, then the defaults of the evaluator in a run.

    Args:
        policy: what is measured; its actions and stack stand.
        given: fields of `EnvConfig` that the user gave.
        epsilon: probability of a random action.
        episodes: per stage.
        seed: of all randomness.

    Raises:
        UserError: a setting is not possible, or does not go with the policy.
    """
    grid = policy.spec == gridworld.gridworld_spec()
    if grid and (misplaced := sorted(set(given) - {"max_steps"})):
        raise UserError(f"the policy plays the gridworld, which has no {misplaced[0]}; drop --{_dashed(misplaced[0])}")
    trained = _trained_env(policy)
    name: Literal["mario", "gridworld"] = "gridworld" if grid else "mario"
    asked: dict[str, Any] = {"noop_max": EvalConfig().noop_max, "max_steps": None} | dict(given)
    if "stages" in asked:
        asked["stages"] = expand_stages(asked["stages"])
    chosen = replace(trained, name=name, **asked)
    env = replace(
        chosen,
        actions=trained.actions if grid else _action_set(policy),
        frame_stack=policy.spec.frame_stack,
        max_steps=evaluation_max_steps(chosen.name, chosen.stages, chosen.max_steps),
    )
    resolve_core(env.core)
    evaluation = EvalConfig(epsilon=epsilon, episodes=episodes, max_episodes=max(1, episodes))  # none beyond those
    _validate(Config(env=env, eval=evaluation, seed=seed))
    return Protocol(env, epsilon, episodes, seed)


def _validate(config: Config) -> None:
    """UserError with the option as `evaluate.py` calls it, where a setting is out of its range."""
    try:
        validate(config)
    except UserError as error:
        raise UserError(str(error).replace("--env.", "--").replace("--eval.", "--")) from None


def _trained_env(policy: Policy) -> EnvConfig:
    """The settings that the policy was trained with, as far as they are known."""
    saved = policy.metadata.get("env", {})
    try:
        known = {field.name for field in fields(EnvConfig)}
        settings = {name: value for name, value in dict(saved).items() if name in known}  # type: ignore[call-overload]
        # A policy that does not say so has never seen buttons.
        settings = {"show_buttons": False} | settings
        env = EnvConfig(**settings | {"stages": tuple(settings.get("stages", EnvConfig().stages))})
        _check_kinds(env)
        validate(replace(Config(), env=env))
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"the policy's sidecar has a damaged env ({error}); restore it, or remove it") from error
    return env


def _check_kinds(env: EnvConfig) -> None:
    """TypeError where a setting is of another kind than its default, such as frames that are not whole."""
    for field in fields(EnvConfig):
        value, usual = getattr(env, field.name), getattr(EnvConfig(), field.name)
        kinds = (int, type(None)) if usual is None else (int, float) if isinstance(usual, float) else (type(usual),)
        if type(value) not in kinds:
            raise TypeError(f"{field.name} is {value!r}")


def _action_set(policy: Policy) -> ActionSet:
    for name, action_names in ACTION_SETS.items():
        if action_names == policy.spec.action_names:
            return name
    names = ", ".join(policy.spec.action_names)
    raise UserError(
        f"the policy's actions ({names}) are none of the sets {', '.join(ACTION_SETS)}; it cannot play here"
    )


def _dashed(name: str) -> str:
    return name.replace("_", "-")
