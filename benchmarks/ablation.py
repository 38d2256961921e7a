"""What each option buys: variants of the default preset, at equal budget, several seeds of each.

    python -m benchmarks.ablation                        # every variant, seeds 1 to 3, ten minutes each: twelve hours
    python -m benchmarks.ablation --only default uniform-replay --minutes 10
    python -m benchmarks.ablation --env-steps 320000     # where two cores do not make that in ten minutes
    python -m benchmarks.ablation --group h200-ablation --seeds 1 --minutes 9.5 --at-once 10 \
        -- --learner.device cuda --actors.count 2 --ray.address local

What follows `--` is for every run's `launch.py`. Each run's best policy is measured over 100 episodes. Runs that have a
record under `docs/results/learning/GROUP-VARIANT` are passed over; one of other minutes, or of other env steps, than
are asked is an error wherever it is in the group, while one in env steps may stand beside those in minutes, which is
said. Ctrl-C stops what runs: the same command, once the folder of a run that was stopped is removed, begins that run
anew and goes on. After a change of the default preset begin another group, with a heading in
`benchmarks.learning_results` and a GROUP.txt beside the records, of which `make results` then makes its table.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from benchmarks import learning_record
from benchmarks.learning_record import FOLDER, ended_by
from benchmarks.learning_records import BUDGETS, ENV_STEPS, MINUTES
from benchmarks.machine import ROOT
from benchmarks.options import at_least
from benchmarks.scripts import Scripts
from common.errors import UserError
from driver.run_directory import RunDirectory

_NO_OPENING: Final = ("--actors.practice-opening", "0")

VARIANTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "default": (),
        "uniform-replay": ("--replay.priority-exponent", "0", "--replay.importance-exponent", "0"),
        "one-step": ("--agent.n-step", "1"),
        "double-dqn": ("--agent.munchausen", "0"),
        "plain-dqn": ("--agent.munchausen", "0", "--agent.no-double"),
        "dueling": ("--agent.dueling",),
        "one-epsilon": ("--actors.epsilon", "0.1", "--actors.epsilon-alpha", "0"),
        "no-saved-starts": ("--actors.saved-starts", "0"),
        "no-quantiles": ("--agent.quantiles", "1"),
        "no-layer-norm": ("--agent.no-layer-norm",),
        "nature-network": ("--agent.network", "nature"),
        "no-tree-backup": ("--agent.no-tree-backup",),
        "uncut-windows": ("--agent.no-watkins", "--agent.no-tree-backup"),
        "no-caution": ("--agent.target-epsilon", "0"),
        "late-caution": ("--agent.target-epsilon", "0.02", "--agent.target-epsilon-late", "0.08"),
        "one-step-exploration": (
            "--actors.exploration-zeta",
            "0",
            "--actors.epsilon",
            "0.3",
            "--actors.epsilon-alpha",
            "2",
            *_NO_OPENING,
        ),
        "no-practice": ("--actors.practice-steps", "None", "--actors.saved-starts", "0.5", *_NO_OPENING),
        "no-practice-opening": _NO_OPENING,
        "no-average": ("--learner.average-decay", "0"),
        "buttons-not-shown": ("--env.no-show-buttons",),
        "no-flag-reward": ("--agent.flag-reward", "0"),
        "constant-step-size": ("--learner.learning-rate-final", "None"),
    }
)
"""Options of `launch.py` by variant; each changes one thing, and what goes with it (the table says what)."""

_WITHOUT_REPLAY: Final = ("--checkpoint.no-replay",)
_EPISODES: Final = 100
_MOST_ENV_STEPS: Final = 10**9
_OWN_OPTIONS: Final = (
    *("--seed", "--run-dir", "--resume", "--resume-from"),
    *("--max-minutes", "--total-env-steps", "--max-episodes", "--max-updates"),
)


class Budget(NamedTuple):
    """What ends each training."""

    setting: str
    amount: float

    def __str__(self) -> str:
        return BUDGETS[self.setting].format(self.amount)

    @property
    def options(self) -> list[str]:
        """For `launch.py`."""
        return [f"--{self.setting.replace('_', '-')}", f"{self.amount:.12g}"]


class Run(NamedTuple):
    """One training."""

    variant: str
    seed: int
    group: str = "ablation"

    @property
    def folder(self) -> str:
        """Name of the group of its records: the variant's seeds."""
        return f"{self.group}-{self.variant}"

    @property
    def record(self) -> Path:
        """Its record, once it was made."""
        return FOLDER / self.folder / f"seed-{self.seed}.json"

    def command(self, budget: Budget, folder: Path, extra: Sequence[str] = ()) -> list[str]:
        """Arguments of `launch.py`; `extra` are every run's."""
        limits = ["--seed", str(self.seed), *budget.options, "--run-dir", str(folder)]
        return [*VARIANTS[self.variant], *limits, *_WITHOUT_REPLAY, *extra]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 after a mistake of the user's or a run that failed, 130 when interrupted."""
    own, extra = _split(sys.argv[1:] if argv is None else argv)
    try:
        _train_all(_parser().parse_args(own), extra)
    except UserError as error:
        print(f"ablation: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablation: interrupted; remove what the stopped run left, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def _train_all(options: argparse.Namespace, extra: Sequence[str]) -> None:
    for name, values in (("--only", options.only), ("--seeds", options.seeds)):
        if len(set(values)) != len(values):
            raise UserError(f"{name}: one is named twice")
    for word in extra:
        if word.partition("=")[0].replace("_", "-") in _OWN_OPTIONS:
            raise UserError(f"{word} after --: seeds, folders and budgets are this program's own options")
    runs = list(missing(options.only, options.seeds, options.group, _asked(options)))
    with Scripts() as scripts:
        pool = ThreadPoolExecutor(options.at_once)
        try:
            for training in [pool.submit(_train, scripts, run, options, extra) for run in runs]:
                training.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # first, or else each that waits is begun once more
            scripts.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of this program, and those after `--`, which are `launch.py`'s."""
    words = list(arguments)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _asked(options: argparse.Namespace) -> Budget:
    return Budget(MINUTES, options.minutes) if options.env_steps is None else Budget(ENV_STEPS, options.env_steps)


def missing(variants: Sequence[str], seeds: Sequence[int], group: str, budget: Budget) -> Iterator[Run]:
    """The runs that have no record yet: every variant's first seed before any second one.

    Prints which of the others have a record of the other kind of budget.

    Raises:
        UserError: a record of the group is of another budget of the same kind, or damaged.
    """
    known = {record: _budget(record) for record in sorted(FOLDER.glob(f"{group}-*/seed-*.json"))}
    for record, other in known.items():
        if other.setting == budget.setting and other != budget:
            raise UserError(f"{record} is of {other}, not {budget}: name another --group for these")
    for seed in seeds:
        for variant in variants:
            run = Run(variant, seed, group)
            if run.record not in known:
                yield run
            elif known[run.record] != budget:
                print(f"{run.variant}, seed {run.seed}: has a record of {known[run.record]}", flush=True)


def _budget(record: Path) -> Budget:
    try:
        settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
        setting = ENV_STEPS if ENV_STEPS in settings else MINUTES
        return Budget(setting, float(settings[setting]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}): remove it to make it anew") from None


def _train(scripts: Scripts, run: Run, options: argparse.Namespace, extra: Sequence[str]) -> None:
    folder = options.runs / f"{run.folder}-{run.seed}"
    if folder.exists():
        raise UserError(f"{folder} is there already: remove what an ended training left, or name another --runs")
    print(f"{run.variant}, seed {run.seed} …", flush=True)
    quiet = options.at_once > 1  # lines of several runs would mix, and each has its own in its folder's mario.log
    _call(scripts, "launch.py", run.command(_asked(options), folder, extra), quiet)
    if ended_by(RunDirectory(folder)) is None:
        raise UserError(f"{folder} was stopped before its budget was used: remove it, and start again")
    result = folder / "measured.json"
    _call(scripts, "evaluate.py", [str(folder), "--episodes", str(_EPISODES), "--json", str(result)], quiet)
    group = ["--group", run.folder, "--name", run.record.stem]
    if learning_record.main([str(folder), *group, "--evaluation", str(result)]):
        raise UserError(f"no record was made of {folder}")


def _call(scripts: Scripts, script: str, arguments: Sequence[str], quiet: bool) -> None:
    status = scripts.run(script, arguments, quiet=quiet)
    if status:
        raise UserError(f"{script} ended with status {status}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description="Trains variants of the default preset and keeps records.",
        epilog="What follows -- is for every run's launch.py.",
    )
    add = parser.add_argument
    text = f"of: {', '.join(VARIANTS)}; default: all"
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=text)
    add("--seeds", type=at_least(0, int), nargs="+", default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    text = "first part of the records' folders; default: ablation, with -VARIANT after it"
    add("--group", default="ablation", metavar="NAME", help=text)
    budget = parser.add_mutually_exclusive_group()
    text = "of each training; default: 10"
    budget.add_argument("--minutes", type=at_least(0.1, float), default=10.0, metavar="M", help=text)
    text = "of each training, in place of minutes, on a machine of another speed"
    budget.add_argument("--env-steps", type=at_least(1, int, _MOST_ENV_STEPS), metavar="N", help=text)
    text = "trainings beside each other, on a machine with cores enough; default: 1"
    add("--at-once", type=at_least(1, int), default=1, metavar="N", help=text)
    text = "folder of the run directories; default: runs/ablation"
    add("--runs", type=Path, default=ROOT / "runs" / "ablation", metavar="DIR", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
