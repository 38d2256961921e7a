"""The action sets of gym-super-mario-bros by name: the buttons of each action, joined by "+"."""

from collections.abc import Iterable, Mapping
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

NEEDED_ACTIONS: Final[Mapping[str, ActionSet]] = MappingProxyType({"4-4": "simple", "8-4": "complex"})
"""The smallest action set with a known way, for stages where that is not RIGHT_ONLY: a search found one through the
maze 4-4 with SIMPLE_MOVEMENT and none with RIGHT_ONLY (docs/results/routes.json); by the map, the way through 8-4 leads
down pipes, and Down is in COMPLEX_MOVEMENT alone."""


def stages_beyond(actions: ActionSet, stages: Iterable[str]) -> dict[str, ActionSet]:
    """Those of the stages that have no known way with these actions, and the action set with one."""
    needed = {stage: NEEDED_ACTIONS[stage] for stage in stages if stage in NEEDED_ACTIONS}
    return {stage: least for stage, least in needed.items() if not {*ACTION_SETS[least]} <= {*ACTION_SETS[actions]}}
