"""The training runs of a comparison: which are still to do, and `launch.py` as a process of its own for each."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.scripts import Scripts
from common.config import Config
from common.errors import UserError
from common.files import write_atomically
from driver.counters import Counters
from driver.limits import Limits
from driver.options import load_config
from driver.run_directory import RunDirectory
from learner.checkpoint import CheckpointData, load_checkpoint, newest_checkpoint

Method = Literal["double-dqn", "dqn"]
METHODS: Final[dict[Method, str]] = {"double-dqn": "--agent.double", "dqn": "--agent.no-double"}
# Munchausen targets average over all actions, and would take both's place; targets of an exploring policy are lower
# than the returns of the near-greedy one that they are compared with.
_NEITHER: Final = ("--agent.munchausen", "0", "--agent.target-epsilon", "0")

OWN_OPTIONS: Final = (
    *("--preset", "--run-dir", "--resume", "--seed", "--total-env-steps", "--max-minutes", *_NEITHER[::2]),
    *METHODS.values(),
)
"""Options of `launch.py` that the comparison gives itself."""

Work = Literal["train", "evaluate", "nothing"]


class TrainingFailedError(Exception):
    """A run ended before its budget was used."""


@dataclass(frozen=True)
class RunPlan:
    """One training run.

    Attributes:
        method: what the target is.
        seed: of the run.
        folder: the run directory.
        options: further options of `launch.py`, the same for all runs.
    """

    method: Method
    seed: int
    folder: Path
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as "dqn-seed0"."""
        return f"{self.method}-seed{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """What `launch.py` is given."""
        own = ["--seed", str(self.seed), "--run-dir", str(self.folder)]
        return [*self.options[:2], METHODS[self.method], *self.options[2:], *own]

    @property
    def command(self) -> str:
        """The command line that trains it."""
        return shlex.join(["python", "launch.py", *self.arguments])


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run left behind."""

    config: Config
    counters: Counters
    checkpoint: CheckpointData


def make_plans(
    seeds: Sequence[int], runs: Path, *, preset: str, env_steps: int, minutes: float, extra: Sequence[str]
) -> list[RunPlan]:
    """Both methods for each seed, side by side, so that a drift of the machine's speed meets both alike.

    Raises:
        UserError: `extra` has an option that the comparison gives itself, or a seed comes twice.
    """
    for option in extra:
        if option.partition("=")[0].replace("_", "-") in OWN_OPTIONS:
            raise UserError(f"{option} is given by the comparison itself; leave it out")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: a seed is named twice")
    # What a run's evaluator measures is measured after the run, for all alike, and with more episodes.
    shared = ("--preset", preset, *_NEITHER, "--eval.no-enabled", "--total-env-steps", str(env_steps))
    options = (*shared, "--max-minutes", f"{minutes:g}", *extra)
    return [RunPlan(method, seed, runs / f"{method}-seed{seed}", options) for seed in seeds for method in METHODS]


def work_left(wanted: dict[str, Any], recorded: dict[str, Any] | None, state: dict[str, Any] | None) -> Work:
    """What is still to do for a run.

    Args:
        wanted: `command` and `evaluation`, the settings asked for.
        recorded: the run's result, if there is one.
        state: the `command` and whether it is `finished`, as noted beside the run directory; None without a run.

    Raises:
        UserError: there is a result or a finished run of other settings, which is not thrown away unasked.
    """
    if recorded is not None:
        different = [key for key in wanted if recorded.get(key) != wanted[key]]
        if different:
            raise UserError(
                f"there is a result of another {different[0]} ({recorded.get(different[0])}) already; "
                "name another --out, or remove that result"
            )
        return "nothing"
    if state is None or state.get("finished") is not True:
        return "train"
    if state.get("command") != wanted["command"]:
        raise UserError(
            f"there is a finished run of another command ({state.get('command')}) already; "
            "name another --runs, or remove it"
        )
    return "evaluate"


def read_state(plan: RunPlan) -> dict[str, Any] | None:
    """What is noted beside the run directory; None where there is neither note nor run.

    Raises:
        UserError: the folder holds something that no comparison made, or the note is damaged.
    """
    path = _state_path(plan)
    if not path.exists():
        if plan.folder.exists():
            raise UserError(f"{plan.folder} holds something that this program did not make; name another --runs")
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and {plan.folder}") from error
    return state if isinstance(state, dict) else {}


def train(plan: RunPlan) -> None:
    """Runs `launch.py` to the end of its budget; what an interrupted attempt left behind is removed first.

    Raises:
        UserError: `launch.py` refused an option.
        TrainingFailedError: the run failed, or was stopped by somebody.
        KeyboardInterrupt: this program was interrupted; the run was stopped and will be done again.
    """
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    _write_state(plan, finished=False)
    with Scripts() as scripts:
        status = scripts.run("launch.py", plan.arguments)
    if status == 2:
        _state_path(plan).unlink()
        raise UserError(f"launch.py refused the options of {plan.name}: see above")
    if status != 0:
        raise TrainingFailedError(f"{plan.name} failed with exit status {status}: see above")
    reached_budget(open_run(plan))
    _write_state(plan, finished=True)


def open_run(plan: RunPlan) -> TrainedRun:
    """What the run left behind.

    Raises:
        UserError: it left no whole checkpoint.
    """
    run = RunDirectory(plan.folder)
    path = newest_checkpoint(run.checkpoints)
    if path is None:
        raise UserError(f"{plan.folder} holds no checkpoint; remove it and {_state_path(plan).name}, and start again")
    checkpoint = load_checkpoint(path)
    return TrainedRun(load_config(run.config_path), Counters.from_json(checkpoint.state["counters"]), checkpoint)


def reached_budget(run: TrainedRun) -> str:
    """Which limit ended the run.

    Raises:
        TrainingFailedError: none did; a signal sent to `launch.py` ends it just as quietly.
    """
    reached = Limits.of(run.config).reached(run.counters)
    if reached is None:
        raise TrainingFailedError("the run was stopped before the end of its budget; start again to redo it")
    return reached


def _state_path(plan: RunPlan) -> Path:
    return plan.folder.with_name(f"{plan.folder.name}.json")


def _write_state(plan: RunPlan, *, finished: bool) -> None:
    state = {"command": plan.command, "finished": finished}
    write_atomically(_state_path(plan), (json.dumps(state, indent=2) + "\n").encode())
