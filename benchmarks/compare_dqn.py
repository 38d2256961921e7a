"""DQN against double DQN: several seeds each, at equal budget, with everything else equal.

    python -m benchmarks.compare_dqn                                  # both methods, seeds 0 1 2
    python -m benchmarks.compare_dqn -- --agent.n-step 1              # further options of launch.py for all runs
    python -m benchmarks.compare_dqn --plot-only                      # figures and table from the committed CSVs

Every run is `launch.py` as a process of its own, one after the other. A finished run is not run again, an interrupted
one is redone: start the same command again after Ctrl-C.

*Budget.* Both methods get the same env steps and, by the rate limiter, the same updates; the minutes are only an upper
bound. Double DQN needs one more forward pass per update, so that at equal minutes DQN would train on more.

*Preset.* `default`, not `article`. The article's loop is one environment and 32 samples per step. At the few dozen env
steps per second that this leaves a processor without a GPU, a quarter of an hour is a few hundred episodes, in which
neither method learns more than to run to the right. The default preset plays several times as many steps. Its
Munchausen targets are taken away, which average over the next actions instead of choosing one; then what is asked is
one option: whether the online network chooses the action that the target network values. Its five-step returns give
the bootstrap, and thereby its bias, less weight than the article's one-step ones do; `-- --agent.n-step 1` compares
with those.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from actors.evaluation import PolicyFn
from benchmarks import dqn_figures, dqn_runs
from benchmarks.dqn_curves import read_curve, thin
from benchmarks.dqn_results import RunResult, load_record, load_results, markdown_table, save_result, summarise
from benchmarks.dqn_runs import RunPlan, TrainingFailedError, Work, make_plans, open_run, read_state, work_left
from benchmarks.machine import describe_machine
from benchmarks.overestimation import MeasuredEpisode, play_episode
from common.config import AgentConfig
from common.errors import UserError
from common.files import write_atomically
from common.presets import PRESETS
from common.seeding import role_seed
from driver.options import flatten
from driver.protocol import Protocol, resolve_protocol
from driver.provenance import describe_commit

_ENV_STEPS = 80_000
_MINUTES = 15.0
_CURVE_ROWS = 300
# 0 is the evaluator inside a run, 1 is evaluate.py: these episodes are neither's.
_SEED_INDEX = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 after a run that failed, 2 after a mistake of the user's, 130 when interrupted."""
    own, extra = _split(list(sys.argv[1:] if argv is None else argv))
    options = _parser().parse_args(own)
    try:
        _compare(options, extra)
    except UserError as error:
        print(f"compare_dqn: error: {error}", file=sys.stderr)
        return 2
    except TrainingFailedError as error:
        print(f"compare_dqn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare_dqn: interrupted; the same command goes on with the run that was not finished", file=sys.stderr)
        return 130
    return 0


def _compare(options: argparse.Namespace, extra: list[str]) -> None:
    if not options.plot_only:
        signal.signal(signal.SIGTERM, _interrupt)
        _run_all(options, extra)
    _report(options.out)


def _run_all(options: argparse.Namespace, extra: list[str]) -> None:
    data = options.out / "data"
    evaluation = {"episodes": options.episodes, "epsilon": options.epsilon, "seed": options.evaluation_seed}
    plans = make_plans(
        options.seeds,
        options.runs,
        preset=options.preset,
        env_steps=options.env_steps,
        minutes=options.minutes,
        extra=extra,
    )
    left = {plan: _work_left(plan, evaluation, data) for plan in plans}  # refuses before anything is started
    for number, (plan, work) in enumerate(left.items(), start=1):
        print(f"[{number}/{len(plans)}] {plan.name}: {_WORK_TEXT[work]}", flush=True)
        if work == "train":
            print(plan.command, flush=True)
            dqn_runs.train(plan)
        if work != "nothing":
            save_result(data, _measure(plan, evaluation))


_WORK_TEXT: dict[Work, str] = {
    "train": "training, then evaluation",
    "evaluate": "trained already; evaluation",
    "nothing": "done already",
}


def _work_left(plan: RunPlan, evaluation: dict[str, Any], data: Path) -> Work:
    wanted = {"command": plan.command, "evaluation": evaluation}
    recorded = load_record(data, plan.name)
    # Without the run directory a result stands for itself: only the results are committed.
    return work_left(wanted, recorded, None if recorded is not None else read_state(plan))


def _measure(plan: RunPlan, evaluation: dict[str, Any]) -> RunResult:
    """Evaluates a finished run's final policy and reads its curves."""
    run = open_run(plan)
    counters = run.counters
    protocol = resolve_protocol(run.checkpoint.policy, {}, **evaluation)
    record = {
        "method": plan.method,
        "seed": plan.seed,
        "command": plan.command,
        "evaluation": evaluation,
        "evaluation_protocol": protocol.as_json(),
        "ended_by": dqn_runs.reached_budget(run),
        "env_steps": counters.env_steps,
        "episodes": counters.episodes,
        "updates": counters.updates,
        "samples_per_insert": round(counters.samples_per_insert(), 4),
        "minutes": round(counters.time_s / 60, 2),
        **describe_commit(),
        "machine": describe_machine(),
        "settings": flatten(run.config),
    }
    episodes = _play(run.checkpoint.policy.q_values, protocol, run.config.agent)
    return RunResult(record, thin(read_curve(plan.folder), _CURVE_ROWS), episodes)


def _play(policy: PolicyFn, protocol: Protocol, agent: AgentConfig) -> list[MeasuredEpisode]:
    """The evaluation; every run is given the same starts and the same draws."""
    torch.set_num_threads(1)  # the last bits of Q-values depend on the number of threads
    env = protocol.make_environment()
    stages = [stage for stage in protocol.stages for _ in range(protocol.episodes)]
    seeds = role_seed(protocol.seed, "evaluator", _SEED_INDEX).spawn(len(stages))
    episodes: list[MeasuredEpisode] = []
    for stage, seed in zip(stages, seeds, strict=True):
        episode = play_episode(
            env,
            policy,
            stage=stage,
            epsilon=protocol.epsilon,
            reward_scale=agent.reward_scale,
            gamma=agent.gamma,
            seed=seed,
        )
        episodes.append(episode)
        outcome = "clear" if episode.clear else f"x {episode.x_pos}"
        print(f"  evaluation {len(episodes)}/{len(stages)}: {stage}, {outcome}", flush=True)
    env.close()
    return episodes


def _report(out: Path) -> None:
    """Writes summary and figures; prints the table."""
    results = load_results(out / "data")
    write_atomically(out / "summary.json", (json.dumps(summarise(results), indent=2) + "\n").encode())
    paths = dqn_figures.draw(results, out)
    print(markdown_table(results))
    for result in results:
        if "env steps" not in result.record["ended_by"]:
            print(f"note: {result.name}: {result.record['ended_by']} before its env steps were done")
    print(f"wrote {', '.join(str(path) for path in [*paths, out / 'summary.json'])}")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our options, and what follows `--`."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_dqn",
        description="Compares DQN with double DQN; options after -- go to every launch.py.",
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds of each method; default: 0 1 2")
    text = f"budget of a run; default: {_ENV_STEPS}"
    add("--env-steps", type=int, default=_ENV_STEPS, metavar="N", help=text)
    text = f"minutes after which a run is ended short of its env steps; default: {_MINUTES:g}"
    add("--minutes", type=float, default=_MINUTES, metavar="M", help=text)
    add("--preset", choices=PRESETS, default="default", help="settings that all runs share; default: default")
    text = "evaluation episodes per run and stage; default: 20"
    add("--episodes", type=_at_least_one, default=20, metavar="N", help=text)
    text = "probability of a random action in the evaluation; default: 0.01"
    add("--epsilon", type=_probability, default=0.01, metavar="P", help=text)
    add("--evaluation-seed", type=int, default=0, metavar="N", help="seed of the evaluation episodes; default: 0")
    default = Path("docs/results/dqn-vs-double")
    add("--out", type=Path, default=default, metavar="DIR", help=f"folder of the results; default: {default}")
    default = Path("runs/dqn-vs-double")
    add("--runs", type=Path, default=default, metavar="DIR", help=f"folder of the run directories; default: {default}")
    add("--plot-only", action="store_true", help="only figures, summary and table, from the results that are there")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _probability(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
