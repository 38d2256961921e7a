"""An episode at some step, from which any environment like it can go on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.mario import SavedRules


class Moment(NamedTuple):
    """An episode of `MarioEnvironment` at some step."""

    stage: str
    game: SavedRules
    state: NDArray[np.uint8]  # [S, 84, 84]
    steps: int
    raw_frames: int
    held: int  # the controller's byte of the last raw frame
    x_pos: int  # Mario's, pixels
    y_pos: int  # upwards, pixels

    def state_dict(self) -> dict[str, Any]:
        """In plain containers and tensors, as files of `torch.save` may have them."""
        game = self.game
        return {
            **self._asdict(),
            "game": {
                **game._asdict(),
                "console": torch.frombuffer(bytearray(game.console), dtype=torch.uint8),
                "cleared": sorted(list(stage) for stage in game.cleared),
            },
            "state": torch.from_numpy(self.state.copy()),
        }


def moment_of(state: Mapping[str, Any]) -> Moment:
    """The moment whose `state_dict` that is.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    game = state["game"]
    saved = SavedRules(
        _array(game["console"]).tobytes(),
        int(game["time"]),
        int(game["x_position"]),
        frozenset((int(world), int(stage)) for world, stage in game["cleared"]),
    )
    numbers = {name: int(state[name]) for name in ("steps", "raw_frames", "held", "x_pos")}
    numbers["y_pos"] = int(state.get("y_pos", 0))  # which earlier versions did not keep
    return Moment(stage=str(state["stage"]), game=saved, state=_array(state["state"]), **numbers)


def _array(tensor: Tensor) -> NDArray[np.uint8]:
    if tensor.dtype != torch.uint8:
        raise ValueError(f"a moment's tensors are bytes, not {tensor.dtype}")
    array: NDArray[np.uint8] = tensor.numpy()
    return array
