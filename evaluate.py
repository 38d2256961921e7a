"""Measures a trained policy: `python evaluate.py RUN_OR_CHECKPOINT --stages 1-1 1-3 --episodes 30`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from common.actions import ACTION_SETS
from common.config import EvalConfig
from common.errors import UserError
from common.interrupts import ending_at_ctrl_c
from common.streams import prepare_streams

_INTERRUPTED = "evaluate.py: interrupted; no result was written\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake of the user's, which is said in one line."""
    prepare_streams()
    try:
        options = _parser().parse_args(argv)
        logging.basicConfig(format="evaluate.py: warning: %(message)s")
        with ending_at_ctrl_c(_INTERRUPTED):
            from driver.measuring import measure  # only now: PyTorch takes seconds, --help and mistakes do not
        measure(options)
    except UserError as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(_INTERRUPTED)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    """Checks what kind of value is given; `driver.protocol` refuses what is out of range."""
    parser = _Parser(prog="evaluate.py", description="Measures a trained policy.")
    add = parser.add_argument
    own = EvalConfig()
    add("policy", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder, a checkpoint's, or a policy file (.pt)")
    add("--stages", nargs="+", metavar="STAGE", help='"1-1" to "8-4", "all", or "game"; default: those of training')
    add("--episodes", type=_whole_number, default=30, metavar="N", help="per stage; default: 30")
    text = f"probability of a random action; default: {own.epsilon}"
    add("--epsilon", type=_number, default=own.epsilon, metavar="P", help=text)
    add("--seed", type=_whole_number, default=0, metavar="N", help="of all randomness; default: 0")
    text = f"random start of 0 to this many raw frames without a button; default: {own.noop_max}"
    add("--noop-max", type=_whole_number, metavar="FRAMES", help=text)
    text = "probability that the last frame's buttons stay pressed; default: that of training"
    add("--sticky-actions", type=_number, metavar="P", help=text)
    text = "agent steps after which an episode is cut off; default: 2000, 100 in the gridworld, none in the whole game"
    add("--max-steps", type=_whole_number, metavar="N", help=text)
    add("--actions", choices=ACTION_SETS, help="action set, where the policy file does not say it")
    text = "frames in a state, where the policy file does not say it"
    add("--frame-stack", type=_whole_number, metavar="N", help=text)
    add("--frame-skip", type=_whole_number, metavar="N", help="raw frames per action; default: that of training")
    add("--core", metavar="NAME", help="emulator core; default: that of training")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--video", type=Path, metavar="FILE", help="write the best episode of the first stage there (.mp4 or .gif)")
    add("--watch", action="store_true", help="show the episodes in a window, in real time")
    return parser


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


if __name__ == "__main__":
    sys.exit(main())
