"""Pictures for the eye: `python -m driver.pictures observation --stage 1-1 --steps 100 --out observation.png`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.environment import make_environment
from actors.video import check_writable
from common.errors import UserError
from common.plotting import observation_figure
from common.streams import prepare_streams
from common.validation import validate_stages

_DPI = 100
_NUM_ACTIONS = 2  # the first two of every action set: no button, right


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake of the user's, which is said in one line."""
    prepare_streams()
    options = _parser().parse_args(argv)
    try:
        _check(options)
        state, played = play(options.stage, steps=options.steps, seed=options.seed)
        _save(state, options.out)
    except UserError as error:
        print(f"driver.pictures: error: {error}", file=sys.stderr)
        return 2
    ended = "" if played == options.steps else ", where the episode ended"
    print(f"{options.out}: the observation in {options.stage} after {played} steps{ended}")
    return 0


def play(stage: str, *, steps: int, seed: int) -> tuple[NDArray[np.uint8], int]:
    """The state after some steps, each without a button or with right, drawn evenly; fewer where the episode ends.

    Args:
        stage: "1-1" … "8-4", or "game".
        steps: agent steps.
        seed: of the draws; there is no random start.

    Returns:
        The state, uint8 [S, 84, 84], and the steps played.
    """
    env = make_environment(stages=(stage,), noop_max=0)
    rng = np.random.default_rng(seed)
    state, _ = env.reset()
    played, over = 0, False
    while played < steps and not over:
        state, _, terminated, truncated, _ = env.step(int(rng.integers(_NUM_ACTIONS)))
        over = terminated or truncated
        played += 1
    env.close()
    return state, played


def _check(options: argparse.Namespace) -> None:
    validate_stages("--stage", (options.stage,))
    for name in ("steps", "seed"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name} is {getattr(options, name)}; give 0 or more")
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out} does not end in .png; give it that suffix")
    check_writable(options.out)


def _save(state: NDArray[np.uint8], path: Path) -> None:
    try:
        observation_figure(state).savefig(path, dpi=_DPI)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="driver.pictures", description="Draws what the agent sees.")
    observation = parser.add_subparsers(required=True, metavar="PICTURE").add_parser(
        "observation", help="the frames of one stacked observation, side by side"
    )
    add = observation.add_argument
    add("--stage", default="1-1", help='"1-1" to "8-4", or "game"; default: 1-1')
    add("--steps", type=int, default=100, metavar="N", help="random agent steps before it; default: 100")
    add("--seed", type=int, default=0, metavar="N", help="of these steps; default: 0")
    add("--out", type=Path, default=Path("observation.png"), metavar="FILE", help="default: observation.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
