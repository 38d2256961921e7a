"""The action sets of gym-super-mario-bros by name: the buttons of each action, joined by "+"."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

ActionSet = Literal["right_only", "simple", "complex"]

RIGHT_ONLY: Final = ("NOOP", "right", "right+A", "right+B", "right+A+B")
SIMPLE_MOVEMENT: Final = (*RIGHT_ONLY, "A", "left")
COMPLEX_MOVEMENT: Final = (*SIMPLE_MOVEMENT, "left+A", "left+B", "left+A+B", "down", "up")

ACTION_SETS: Final[Mapping[ActionSet, tuple[str, ...]]] = MappingProxyType(
    {"right_only": RIGHT_ONLY, "simple": SIMPLE_MOVEMENT, "complex": COMPLEX_MOVEMENT}
)
"""Action names by the value of `EnvConfig.actions`, in the order of the network's outputs."""
