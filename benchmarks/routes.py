"""Which action set a stage needs: for each the smallest with which a search finds a way to the flag or axe.

    python -m benchmarks.routes --at-once 2
    python -m benchmarks.routes --stages 4-4 7-4 --steps 1000000

Results go to docs/results/routes.json, stage by stage, and are passed over the next time, but for those without a way
that were searched for less long than is asked. A way that was found is played once more from the stage's start in the
environment that agents play. What was not found may still be there: the search's length is kept beside it.
"""

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Final

from actors.cores import has_saved_states, resolve_core
from actors.environment import make_environment
from benchmarks.machine import ROOT
from benchmarks.options import at_least, result_file
from benchmarks.route_search import FRAME_SKIP, RouteSearch
from common.actions import ACTION_SETS, ActionSet
from common.errors import UserError
from common.files import write_atomically
from common.validation import STAGES
from driver.provenance import describe_commit

RESULTS: Final = ROOT / "docs" / "results" / "routes.json"
_DIGITS: Final = "0123456789ab"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 after a mistake of the user's, 130 when interrupted."""
    options = _parser().parse_args(argv)
    try:
        if not has_saved_states(resolve_core("auto")):
            raise UserError("ways are looked for from saved states, which only the core fceumm has")
        _search_all(options)
    except UserError as error:
        print(f"routes: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("routes: interrupted; what was found is written, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def find_route(stage: str, steps: int, seed: int) -> dict[str, Any]:
    """The result for one stage.

    Returns:
        `stage`; `actions`: the smallest action set that a way was found with, or None; `route`: the way, a digit of
        base 12 per agent step; `tried`: agent steps by action set; `furthest`: x that was reached with it; `seed`, and
        `commit`.
    """
    tried: dict[str, int] = {}
    furthest: dict[str, int] = {}
    found = False
    for actions in ACTION_SETS:
        search = RouteSearch(stage, actions, seed)
        try:
            route = search.search(steps)
        finally:
            search.close()
        tried[actions], furthest[actions] = route.tried, route.furthest
        found = route.clear and clears(stage, actions, route.actions)
        if found:
            break
    return {
        "stage": stage,
        "actions": actions if found else None,
        "route": "".join(_DIGITS[action] for action in route.actions) if found else "",
        "tried": tried,
        "furthest": furthest,
        "seed": seed,
        **describe_commit(),
    }


def clears(stage: str, actions: ActionSet, route: Sequence[int]) -> bool:
    """Whether these actions clear the stage from its start, in the agents' environment."""
    env = make_environment(stages=(stage,), actions=actions, core="fceumm", frame_skip=FRAME_SKIP, noop_max=0)
    try:
        env.reset()
        for action in route:
            _, _, terminated, _, info = env.step(action)
            if terminated:
                return bool(info["clear"])
        return False
    finally:
        env.close()


def actions_of(route: str) -> list[int]:
    """A result's `route` as indices into its action set."""
    return [_DIGITS.index(digit) for digit in route]


def left_to_search(results: dict[str, Any], stages: Sequence[str], steps: int) -> list[str]:
    """The stages without a result, or without a way and searched for less long than that."""
    return [
        stage
        for stage in dict.fromkeys(stages)
        if stage not in results or (results[stage]["actions"] is None and min(results[stage]["tried"].values()) < steps)
    ]


def _search_all(options: argparse.Namespace) -> None:
    try:
        results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    except ValueError as error:
        raise UserError(f"{options.out} cannot be read: {error}; move it away") from None
    stages = left_to_search(results, options.stages, options.steps)
    pool = ProcessPoolExecutor(options.at_once, initializer=_leave_interrupts_to_the_parent)
    try:
        for future in as_completed([pool.submit(find_route, stage, options.steps, options.seed) for stage in stages]):
            result = future.result()
            results[result["stage"]] = result
            ordered = {stage: results[stage] for stage in STAGES if stage in results}
            write_atomically(options.out, (json.dumps(ordered, indent=1) + "\n").encode())
            way = f"{result['actions']}, {len(result['route'])} steps" if result["actions"] else "no way found"
            print(f"{result['stage']}  {way}, tried {result['tried']}", flush=True)
    except KeyboardInterrupt:
        for search in multiprocessing.active_children():
            search.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routes", description="Which action set a stage can be cleared with."
    )
    add = parser.add_argument
    text = "default: all 32"
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=text)
    text = "agent steps before an action set is given up; default: 300000"
    add("--steps", type=at_least(1, int), default=300_000, metavar="N", help=text)
    add("--seed", type=at_least(0, int), default=0, metavar="N", help="default: 0")
    add("--at-once", type=at_least(1, int), default=1, metavar="N", help="processes; default: 1")
    add("--out", type=result_file, default=RESULTS, metavar="FILE", help="default: docs/results/routes.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
