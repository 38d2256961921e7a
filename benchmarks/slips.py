"""Which single wrong actions kill a policy, and where: exact, by the emulator's saved states.

    python -m benchmarks.slips pretrained/1-1.pt
    python -m benchmarks.slips RUN --starts 4 --json slips.json
    python -m benchmarks.slips RUN --rescues 150         # could anybody have survived them?

The greedy policy plays a stage once per start. From every step of that, each other action is tried once, and the greedy
policy goes on from there: if it dies within `--ahead` steps, that action was fatal. With few hazards in a stage this
tells more about a policy in a minute than thousands of episodes with random actions, and says where to look. Where
held random actions survive a fatal one now and then, the policy does not know how to go on; where they never do, it
should not have come there.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from actors.cores import has_saved_states, resolve_core
from actors.environment import MarioEnvironment
from actors.moments import Moment
from benchmarks.options import at_least, result_file
from common.errors import UserError
from common.policy import Policy, load_policy
from common.validation import WHOLE_GAME
from driver.measuring import find_policy
from driver.protocol import Protocol, resolve_protocol

_BATCH: Final = 32
_LONGEST: Final = 2_000
_PLACE_PIXELS: Final = 64
_EPSILON: Final = 0.01
# Of the random play after a fatal action: steps, and the probability that an action goes on for another one.
_RESCUE_STEPS: Final = 35
_RESCUE_HOLD: Final = 0.85


class _Step(NamedTuple):
    moment: Moment
    action: int  # the greedy one


@dataclass
class _Trial:
    """A wrong action's aftermath, which is being played."""

    step: int
    action: int  # the wrong one
    env: MarioEnvironment
    state: NDArray[np.uint8]
    steps: int = 0


@dataclass(frozen=True)
class Fatal:
    """A wrong action that killed.

    Attributes:
        step: of the greedy episode.
        x: where it was made, pixels.
        greedy: what the policy would have done.
        wrong: what was done.
        steps: until the death.
        rescued: how many random continuations survived, of those that were tried; None: none was tried.
    """

    step: int
    x: int
    greedy: str
    wrong: str
    steps: int
    rescued: int | None


@dataclass(frozen=True)
class Slips:
    """One start.

    Attributes:
        steps: of the greedy episode.
        clear: whether that one cleared the stage.
        tried: wrong actions.
        fatal: how many of them killed, by x of where they were made, in places of 64 pixels.
        survival: the probability of no fatal action in such an episode where each action is, with probability 0.01,
            one drawn evenly, if all but the fatal ones changed nothing; 0 where the greedy episode is not a clear.
        each: the fatal ones, in the order of their steps.
    """

    steps: int
    clear: bool
    tried: int
    fatal: dict[int, int]
    survival: float
    each: list[Fatal]


class SlipSearch:
    """Tries wrong actions on one policy.

    Args:
        policy: what plays.
        protocol: how it is played, without random actions.
        ahead: steps after which a wrong action counts as survived.
        rescues: random continuations that are tried after each fatal action.
    """

    def __init__(self, policy: Policy, protocol: Protocol, ahead: int, rescues: int = 0) -> None:
        self._policy = policy
        self._ahead = ahead
        self._rescues = rescues
        self._actions = policy.spec.num_actions
        self._first, *self._free = [cast(MarioEnvironment, protocol.make_environment()) for _ in range(1 + _BATCH)]

    def search(self, seed: int) -> Slips:
        """Plays one start; the seed draws its no-op frames."""
        steps, clear = self._greedy_episode(seed)
        waiting = [(t, a) for t in range(len(steps)) for a in range(self._actions) if a != steps[t].action]
        tried, fatal = len(waiting), list[_Trial]()
        waiting.reverse()
        trials: list[_Trial] = []
        while waiting or trials:
            while self._free and waiting:
                t, action = waiting.pop()
                trial = self._begin(t, steps[t].moment, action, fatal)
                trials += [] if trial is None else [trial]
            trials = [trial for trial, action in self._with_actions(trials) if self._goes_on(trial, action, fatal)]
        fatal.sort(key=lambda trial: (trial.step, trial.action))
        places = Counter(steps[trial.step].moment.x_pos // _PLACE_PIXELS * _PLACE_PIXELS for trial in fatal)
        counts = Counter(trial.step for trial in fatal).values()
        survival = float(np.prod([1 - _EPSILON * count / self._actions for count in counts])) if clear else 0.0
        rng = np.random.default_rng(seed)
        each = [self._described(trial, steps[trial.step], rng) for trial in fatal]
        return Slips(len(steps), clear, tried, dict(sorted(places.items())), survival, each)

    def close(self) -> None:
        """Frees the emulators."""
        for env in (self._first, *self._free):
            env.close()

    def _greedy_episode(self, seed: int) -> tuple[list[_Step], bool]:
        state, info = self._first.reset(seed=seed)
        steps: list[_Step] = []
        over = False
        while not over and len(steps) < _LONGEST:
            action = self._greedy(state[None])[0]
            steps.append(_Step(self._first.moment(), action))
            state, _, terminated, truncated, info = self._first.step(action)
            over = terminated or truncated
        return steps, bool(info["clear"])

    def _described(self, trial: _Trial, step: _Step, rng: np.random.Generator) -> Fatal:
        names = self._policy.spec.action_names
        rescued = self._rescued(step.moment, trial.action, rng) if self._rescues else None
        return Fatal(trial.step, step.moment.x_pos, names[step.action], names[trial.action], trial.steps, rescued)

    def _rescued(self, moment: Moment, wrong: int, rng: np.random.Generator) -> int:
        """How many random continuations survive."""
        self._first.reset(options={"moment": moment})
        _, _, terminated, _, _ = self._first.step(wrong)
        if terminated:
            return 0
        after = self._first.moment()
        return sum(self._survives(after, rng) for _ in range(self._rescues))

    def _survives(self, moment: Moment, rng: np.random.Generator) -> bool:
        self._first.reset(options={"moment": moment})
        action = int(rng.integers(self._actions))
        for _ in range(_RESCUE_STEPS):
            action = action if rng.random() < _RESCUE_HOLD else int(rng.integers(self._actions))
            _, _, terminated, truncated, info = self._first.step(action)
            if terminated or truncated:
                return bool(info["clear"])
        return True

    def _begin(self, t: int, moment: Moment, action: int, fatal: list[_Trial]) -> _Trial | None:
        env = self._free.pop()
        env.reset(options={"moment": moment})
        trial = _Trial(t, action, env, moment.state)
        return trial if self._goes_on(trial, action, fatal) else None

    def _goes_on(self, trial: _Trial, action: int, fatal: list[_Trial]) -> bool:
        """Takes a step; frees the environment where that was the last."""
        trial.state, _, terminated, truncated, info = trial.env.step(action)
        trial.steps += 1
        if terminated and not info["clear"]:
            fatal.append(trial)
        over = terminated or truncated or trial.steps >= self._ahead
        if over:
            self._free.append(trial.env)
        return not over

    def _with_actions(self, trials: Sequence[_Trial]) -> list[tuple[_Trial, int]]:
        if not trials:
            return []
        return list(zip(trials, self._greedy(np.stack([trial.state for trial in trials])), strict=True))

    def _greedy(self, states: NDArray[np.uint8]) -> list[int]:
        batch = np.zeros((_BATCH, *states.shape[1:]), np.uint8)  # as many rows each time, for the same last bits
        batch[: len(states)] = states
        actions: list[int] = self._policy.q_values(batch)[: len(states)].argmax(axis=1).tolist()
        return actions


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 after a mistake of the user's, 130 when interrupted."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    try:
        results = _measure(options)
    except UserError as error:
        print(f"slips: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("slips: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(summary(results))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return 0


def summary(results: Sequence[Slips]) -> str:
    """A few lines for the terminal."""
    tried, fatal = sum(each.tried for each in results), sum(sum(each.fatal.values()) for each in results)
    places = sum((Counter(each.fatal) for each in results), Counter[int]())
    survival = float(np.mean([each.survival for each in results]))
    lines = [
        f"{len(results)} starts, {sum(each.clear for each in results)} cleared without a wrong action",
        f"{fatal} of {tried} wrong actions kill: {1000 * fatal / max(1, tried):.1f} of 1,000",
        f"with random actions at a probability of {_EPSILON:g}, none of them fatal: {survival:.1%} of episodes",
        "where, by x:",
        *(f"  {place:5}  {count / len(results):.1f} per start" for place, count in sorted(places.items())),
    ]
    tries = [fatal for each in results for fatal in each.each if fatal.rescued is not None]
    if tries:
        hopeless = sum(fatal.rescued == 0 for fatal in tries)
        lines.append(f"after {hopeless} of the {len(tries)} that kill no random continuation survived")
    return "\n".join(lines)


def _measure(options: argparse.Namespace) -> list[Slips]:
    path, _ = find_policy(options.policy)
    policy = load_policy(path)
    protocol = one_stage(policy, options.stage)
    if protocol.is_grid or not has_saved_states(resolve_core(protocol.env.core)):
        raise UserError("wrong actions are tried from saved states, which only Mario on the core fceumm has")
    search = SlipSearch(policy, protocol, options.ahead, options.rescues)
    try:
        return [search.search(seed) for seed in range(options.starts)]
    finally:
        search.close()


def one_stage(policy: Policy, stage: str | None) -> Protocol:
    """How the policy is played: in that stage, or else in the first of its training.

    Raises:
        UserError: there is no such stage, or several are meant.
    """
    given: dict[str, Any] = {} if stage is None else {"stages": (stage,)}
    protocol = resolve_protocol(policy, given, epsilon=0.0, episodes=1, seed=0)
    if WHOLE_GAME in protocol.stages or (stage is not None and len(protocol.stages) > 1):
        raise UserError("one stage is searched at a time; name one of 1-1 to 8-4 with --stage")
    return replace(protocol, env=replace(protocol.env, stages=protocol.env.stages[:1]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slips", description="Which wrong actions kill a policy."
    )
    add = parser.add_argument
    add("policy", type=Path, metavar="RUN_OR_CHECKPOINT", help="as for evaluate.py")
    add("--stage", help="default: that of training, the first of several")
    add("--starts", type=at_least(1, int), default=2, metavar="N", help="greedy episodes; default: 2")
    text = "steps after which a wrong action counts as survived; default: 60"
    add("--ahead", type=at_least(1, int), default=60, metavar="N", help=text)
    text = "random continuations after each action that kills; default: 0"
    add("--rescues", type=at_least(0, int), default=0, metavar="N", help=text)
    add("--json", type=result_file, metavar="FILE", help="write the results there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
