"""The systems of the comparison and the settings that each of them may choose from."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

Settings = Mapping[str, Any]

CORE: Final = "nes-py"
"""The emulator core of the comparison."""
FAST_CORE: Final = "fceumm"


@dataclass(frozen=True)
class System:
    """One system on one emulator core.

    Attributes:
        title: as tables call it.
        module: of `benchmarks`, with a function `measure(core, settings, meter)`.
        packages: distributions that it needs beside the project's own, and whose versions are recorded.
        core: emulator core.
        goal: our goal, over the best peer; None for a peer.
        variants: settings to choose from by a short trial: the one with the most transitions per second is measured.
    """

    title: str
    module: str
    packages: tuple[str, ...]
    core: str
    goal: float | None
    variants: tuple[Settings, ...]


# PyTorch's own number of threads is that of the cores. Beside other processes, such as environments, one can be faster.
_THREADS: Final = (None, 1)

_NOTEBOOK = tuple({"steps_per_update": 1, "threads": threads} for threads in _THREADS)
_NOTEBOOK_8 = tuple({"steps_per_update": 4, "threads": threads} for threads in _THREADS)
_SB3 = tuple(
    {"envs": envs, "vec_env": vec_env, "threads": threads}
    for envs, vec_env in ((1, "dummy"), (4, "dummy"), (4, "subproc"), (8, "subproc"))
    for threads in _THREADS
)
_SB3_FAST = tuple(settings for settings in _SB3 if settings["envs"] == 1 or settings["vec_env"] == "subproc")
_RLLIB = tuple(
    {"runners": runners, "envs": envs, "fragment": fragment, "threads": threads}
    for runners, envs, fragment in ((0, 1, 4), (1, 4, 4), (2, 4, 4), (2, 8, 4))
    for threads in _THREADS
)
# Where two cores must do everything, one actor may leave the learner more than it takes.
_ACTORS: Final[tuple[list[str], ...]] = ([], ["--actors.count", "1"])

_OURS: tuple[Settings, ...] = tuple({"options": actors} for actors in _ACTORS)
_OURS_FLOAT32: tuple[Settings, ...] = tuple(
    {"options": ["--learner.precision", "float32", "--actors.precision", "float32", *actors]} for actors in _ACTORS
)
_SB3_PACKAGES = ("stable-baselines3", "gymnasium")

SYSTEMS: Final[Mapping[str, System]] = MappingProxyType(
    {
        "notebook": System("notebook's loop", "peers_notebook", (), CORE, None, _NOTEBOOK),
        "notebook-8": System("notebook's loop, 8 samples", "peers_notebook", (), CORE, None, _NOTEBOOK_8),
        "sb3": System("Stable-Baselines3 DQN", "peers_sb3", _SB3_PACKAGES, CORE, None, _SB3),
        "rllib": System("RLlib DQN", "peers_rllib", ("ray", "gymnasium"), CORE, None, _RLLIB),
        "ours": System("launch.py", "peers_launch", (), CORE, 2.5, _OURS),
        "ours-float32": System("launch.py, float32", "peers_launch", (), CORE, 2.5, _OURS_FLOAT32),
        "ours-fast": System("launch.py", "peers_launch", (), FAST_CORE, 4.5, _OURS),
        "sb3-fast": System("Stable-Baselines3 DQN", "peers_sb3", _SB3_PACKAGES, FAST_CORE, None, _SB3_FAST),
    }
)
"""By the name that `--only` takes, in the order in which they are measured."""
