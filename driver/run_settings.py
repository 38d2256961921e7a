"""The run's settings in its checkpoints: a checkpoint goes on under those that it was made with."""

import functools
from collections.abc import Callable
from typing import BinaryIO, Final

from common.errors import UserError
from driver.options import flatten, load_config, load_run_settings, show
from driver.run_directory import RunDirectory
from learner.checkpoint import CheckpointData

_FILE: Final = "config.yaml"
# What the transitions in the replay, and the networks' values of them, are of.
_FIXED: Final = ("env.", "agent.", "seed")
# Of these, what may be changed between two sessions: the cores' frames are equal; rewards beside the game's, and the
# target policy's caution, are the earlier ones only in transitions that were stored before, until they are evicted.
_FREE: Final = ("env.core", "agent.target_epsilon", "agent.flag_reward", "agent.death_reward")


def settings_writer(run: RunDirectory) -> dict[str, Callable[[BinaryIO], None]]:
    """What writes the settings that the run has now into its checkpoints, by file name.

    Raises:
        UserError: they cannot be read.
    """
    return {_FILE: functools.partial(_write, run.read_config())}


def compare_settings(run: RunDirectory, data: CheckpointData) -> list[str]:
    """Refuses a checkpoint that was made with other settings than its run has now.

    A checkpoint without settings, as earlier versions wrote them, passes.

    Returns:
        A line for the user on settings that may differ, and do.

    Raises:
        UserError: others differ, or the settings cannot be read.
    """
    if _FILE not in data.extra:
        return []
    config = load_run_settings(run.config_path).config
    # What the checkpoint's version did not know is no difference.
    now, then = flatten(config), flatten(load_config(data.extra[_FILE], config))
    changed = [name for name in now if now[name] != then[name]]
    if fixed := [name for name in changed if name.startswith(_FIXED) and not name.startswith(_FREE)]:
        raise UserError(
            f"{data.path} was made with other settings: {run.config_path} has {_listed(fixed, now, then)}; restore "
            "that file from the copy in the checkpoint, or take one of the run's own checkpoints with --resume-from"
        )
    return [f"{_FILE} differs from {data.path.name}'s: {_listed(changed, now, then)}"] if changed else []


def _listed(names: list[str], now: dict[str, object], then: dict[str, object]) -> str:
    return ", ".join(f"{name} {show(now[name])} instead of {show(then[name])}" for name in names)


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)
