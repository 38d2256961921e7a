"""Measures a trained policy: `python evaluate.py RUN_OR_CHECKPOINT --stages 1-1 1-3 --episodes 30`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.progress import Progress

from actors.environment import Environment
from actors.evaluation import Evaluation
from actors.video import check_video_path, check_writable, save_video
from actors.window import Window
from common.actions import ACTION_SETS
from common.config import EvalConfig
from common.errors import UserError
from common.policy import load_policy
from common.seeding import role_seed
from common.validation import validate_stages
from driver.protocol import Protocol, resolve_protocol
from driver.report import as_json, table

# The evaluator inside a run has index 0 and chooses `best.pt`: a choice must not be measured on its own episodes.
_SEED_INDEX = 1
_NUM_ENVS = 8
_ENV_OPTIONS = ("stages", "noop_max", "sticky_actions", "max_steps", "frame_skip", "core")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake of the user's, which is said in one line."""
    options = _parser().parse_args(argv)
    try:
        _evaluate(options)
    except UserError as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate.py: interrupted; no result was written", file=sys.stderr)
        return 130
    return 0


def find_policy(path: Path) -> tuple[Path, str]:
    """The policy file that a path means, and why that one.

    A run means its `best.pt`, else the policy of its newest complete checkpoint.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path, "as given"
    if not path.is_dir():
        raise UserError(f"there is no {path}; give a run's folder, a checkpoint's, or a policy file (.pt)")
    if (path / "best.pt").is_file():
        return path / "best.pt", "the run's best by its own evaluations"
    if (path / "policy.pt").is_file():
        return path / "policy.pt", "the checkpoint's"
    complete = sorted(manifest.parent for manifest in path.glob("checkpoints/step-*/manifest.json"))
    if complete:
        return complete[-1] / "policy.pt", "the run's newest checkpoint; it has no best.pt yet"
    raise UserError(f"{path} holds neither best.pt nor a checkpoint; give a run that has trained for a while")


def _evaluate(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # the last bits of Q-values depend on the number of threads
    _check_options(options)
    path, why = find_policy(options.policy)
    actions = None if options.actions is None else ACTION_SETS[options.actions]
    policy = load_policy(path, action_names=actions, frame_stack=options.frame_stack)
    given = {name: value for name in _ENV_OPTIONS if (value := getattr(options, name)) is not None}
    protocol = resolve_protocol(policy, given, epsilon=options.epsilon, episodes=options.episodes, seed=options.seed)
    num_envs = 1 if options.watch else min(_NUM_ENVS, options.episodes * len(protocol.stages))
    envs = [protocol.make_environment() for _ in range(num_envs)]
    evaluation = Evaluation(
        envs,
        policy.q_values,
        stages=protocol.stages,
        episodes=protocol.episodes,
        epsilon=protocol.epsilon,
        seed=role_seed(protocol.seed, "evaluator", _SEED_INDEX),
    )
    window = _open_window(envs[0], protocol) if options.watch else None
    print(f"policy: {path} ({why})")
    print(f"randomness: {protocol.randomness()}", flush=True)
    if window is None:
        _play(evaluation, protocol)
    else:
        _watch(evaluation, envs[0], window)
    print(table(evaluation.episodes))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(path, protocol, evaluation.episodes), indent=2) + "\n")
    if options.video is not None:
        _save_best(evaluation, envs[0], protocol, options.video)
    for env in envs:
        env.close()


def _check_options(options: argparse.Namespace) -> None:
    """Refuses what would fail only after the episodes were played."""
    if options.json is not None:
        check_writable(options.json)
    if options.video is not None:
        check_video_path(options.video)
    if options.stages is not None:
        options.stages = tuple(options.stages)
        validate_stages("--stages", options.stages)


def _play(evaluation: Evaluation, protocol: Protocol) -> None:
    """Plays all episodes, with a progress bar where somebody looks at it."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("episodes", total=protocol.episodes * len(protocol.stages))
        evaluation.run(lambda episode: progress.advance(task))


def _open_window(env: Environment, protocol: Protocol) -> Window:
    height, width = env.render().shape[:2]
    return Window(width=width, height=height, fps=float(protocol.fps), caption="apex-mario")


def _watch(evaluation: Evaluation, env: Environment, window: Window) -> None:
    """Plays all episodes in a window, in real time."""
    while not evaluation.done:
        evaluation.step()
        if not window.show(env.render()):
            raise KeyboardInterrupt
    window.close()


def _save_best(evaluation: Evaluation, env: Environment, protocol: Protocol, path: Path) -> None:
    stage = protocol.stages[0]
    best = evaluation.best(stage)
    save_video(evaluation.replay(env, stage, best), path, fps=protocol.fps)
    print(f"video: {path} ({stage}, episode {best}: the best of its {protocol.episodes})")


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="evaluate.py", description="Measures a trained policy.")
    add = parser.add_argument
    own = EvalConfig()
    add("policy", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder, a checkpoint's, or a policy file (.pt)")
    add("--stages", nargs="+", metavar="STAGE", help='"1-1" to "8-4", or "game"; default: those of training')
    add("--episodes", type=_at_least(1), default=30, metavar="N", help="per stage; default: 30")
    text = f"probability of a random action; default: {own.epsilon}"
    add("--epsilon", type=_probability, default=own.epsilon, metavar="P", help=text)
    add("--seed", type=_at_least(0), default=0, metavar="N", help="of all randomness; default: 0")
    text = f"random start of 0 to this many raw frames without a button; default: {own.noop_max}"
    add("--noop-max", type=_at_least(0), metavar="FRAMES", help=text)
    text = "probability that the last frame's buttons stay pressed; default: that of training"
    add("--sticky-actions", type=_probability, metavar="P", help=text)
    text = f"agent steps after which an episode is cut off; default: {own.max_steps}, none for the whole game"
    add("--max-steps", type=_at_least(1), metavar="N", help=text)
    add("--actions", choices=ACTION_SETS, help="action set, where the policy file does not say it")
    add(
        "--frame-stack", type=_at_least(1), metavar="N", help="frames in a state, where the policy file does not say it"
    )
    add("--frame-skip", type=_at_least(1), metavar="N", help="raw frames per action; default: that of training")
    add("--core", metavar="NAME", help="emulator core; default: that of training")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--video", type=Path, metavar="FILE", help="write the best episode of the first stage there (.mp4 or .gif)")
    add("--watch", action="store_true", help="show the episodes in a window, in real time")
    return parser


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return number

    return whole_number


def _probability(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
