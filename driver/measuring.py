"""One measurement from start to end: what `evaluate.py` does once it knows its options."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from actors.environment import Environment
from actors.evaluation import Evaluation
from actors.video import check_video_path, check_writable, save_video
from actors.window import Window
from common.actions import ACTION_SETS
from common.errors import UserError
from common.files import replacing
from common.policy import load_policy
from common.seeding import role_seed
from common.streams import say
from driver.protocol import Protocol, resolve_protocol
from driver.report import as_json, table
from learner.checkpoint import newest_checkpoint
from learner.manifest import MANIFEST, verify

# The evaluator inside a run has index 0 and chooses `best.pt`: a choice must not be measured on its own episodes.
_SEED_INDEX = 1
_NUM_ENVS = 8
_ENV_OPTIONS = ("stages", "noop_max", "sticky_actions", "max_steps", "frame_skip", "core")


def measure(options: argparse.Namespace) -> None:
    """Plays the episodes, prints the table and writes what was asked for.

    Args:
        options: the command line of `evaluate.py`, as its parser returns it.

    Raises:
        UserError: something cannot be done as asked.
        KeyboardInterrupt: the window was closed.
    """
    torch.set_num_threads(1)  # the last bits of Q-values depend on the number of threads
    _check_files(options)
    path, why = find_policy(options.policy)
    actions = None if options.actions is None else ACTION_SETS[options.actions]
    policy = load_policy(path, action_names=actions, frame_stack=options.frame_stack)
    protocol = resolve_protocol(
        policy, _given(options), epsilon=options.epsilon, episodes=options.episodes, seed=options.seed
    )
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
    say(f"policy: {path} ({why})")
    say(f"randomness: {protocol.randomness()}")
    if window is None:
        _play(evaluation, protocol)
    else:
        _watch(evaluation, envs[0], window)
    try:
        if options.json is not None:
            with _writing(options.json) as file:
                result = as_json(path, policy.network, protocol, evaluation.episodes)
                file.write_text(json.dumps(result, indent=2) + "\n")
    finally:
        say(table(evaluation.episodes))
    if options.video is not None:
        _save_best(evaluation, envs[0], protocol, options.video)
    for env in envs:
        env.close()


def find_policy(path: Path) -> tuple[Path, str]:
    """The policy file that a path means, and why that one.

    A run means its `best.pt`, else the policy of its newest whole checkpoint; damaged ones that are newer are
    passed over with a warning in the log.

    Raises:
        UserError: there is none, or the checkpoint that was named is damaged.
    """
    if path.is_file():
        return path, "as given"
    if not path.is_dir():
        raise UserError(f"there is no {path}; give a run's folder, a checkpoint's, or a policy file (.pt)")
    if (path / "best.pt").is_file():
        return path / "best.pt", "the run's best by its own evaluations"
    if (path / MANIFEST).is_file() or (path / "policy.pt").is_file():
        verify(path)
        return path / "policy.pt", "the checkpoint's"
    newest = newest_checkpoint(path / "checkpoints")
    if newest is None:
        raise UserError(f"{path} holds neither best.pt nor a checkpoint; give a run that has trained for a while")
    return newest / "policy.pt", "the run's newest whole checkpoint; it has no best.pt yet"


def _given(options: argparse.Namespace) -> dict[str, object]:
    """The fields of `EnvConfig` that were given."""
    given = {name: value for name in _ENV_OPTIONS if (value := getattr(options, name)) is not None}
    return given | {"stages": tuple(given["stages"])} if "stages" in given else given


def _check_files(options: argparse.Namespace) -> None:
    """Refuses what would fail only after the episodes were played."""
    if options.json is not None:
        check_writable(options.json)
    if options.video is not None:
        check_video_path(options.video)
        if options.json is not None and options.json.resolve() == options.video.resolve():
            raise UserError(f"--json and --video both name {options.video}; give two files")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """The name to write under; UserError where the disk is full, or the like: an earlier file is then as it was."""
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror}; make room and evaluate again, or take the table above"
        ) from None


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
    with _writing(path) as file:
        save_video(evaluation.replay(env, stage, best), file, fps=protocol.fps)
    say(f"video: {path} ({stage}, episode {best}: the best of its {protocol.episodes})")
