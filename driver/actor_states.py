"""The actors' running episodes in a checkpoint: one file, from which a resumed run plays on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray.exceptions import RayError

from common.errors import UserError
from common.policy import load_tensors
from learner.checkpoint import torch_bytes

_FILE = "actors.pt"
_TIMEOUT_S = 20.0


def actor_states_writer(actors: Mapping[int, Any]) -> dict[str, Callable[[BinaryIO], None]]:
    """What writes the actors' states as they are after their present slices, by file name.

    Those that do not answer in time are left out: they would begin new episodes.

    Args:
        actors: handles by index.
    """
    references = {actor.state.remote(): index for index, actor in actors.items()}

    def write(file: BinaryIO) -> None:
        ready, _ = (
            ray.wait(list(references), num_returns=len(references), timeout=_TIMEOUT_S) if references else ([], [])
        )
        states = {}
        for reference in ready:
            try:
                states[references[reference]] = ray.get(reference)
            except RayError:
                continue
        file.write(torch_bytes(states))

    return {_FILE: write}


def read_actor_states(files: Mapping[str, Path]) -> dict[int, dict[str, Any]]:
    """The actors' states by index in a checkpoint's extra files; none where it has no such file.

    Raises:
        UserError: the file is damaged.
    """
    if _FILE not in files:
        return {}
    states = load_tensors(files[_FILE])
    if not isinstance(states, dict) or not all(
        type(index) is int and isinstance(state, dict) for index, state in states.items()
    ):
        raise UserError(f"{files[_FILE]} holds no actors' states: take an earlier checkpoint")
    return states
