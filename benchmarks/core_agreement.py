"""How long both emulator cores play the same game: every stage, seeded random players, frame by frame.

    python -m benchmarks.core_agreement --out docs/results/performance/core-agreement.json

At each frame the reward, the end of the episode and the whole info (x, y, time, score, coins, lives, status, flag) are
compared, and at every fourth the picture as the network sees it. A player presses a button combination for some
frames: 1, 4 or 16 of them, mostly to the right, or anything at all for 1 … 19. An episode stops where the cores part.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from actors import fceumm
from actors.cores import make_core
from actors.mario import MarioRules
from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.files import write_atomically
from common.validation import STAGES
from driver.provenance import describe_commit

_RIGHTWARD: Final = (0b10000000, 0b10000001, 0b10000010, 0b10000011, 0b10000011, 0b01000000, 0b00100000, 0)
_NO_START_NO_SELECT: Final = 0b11110011
_HOLDS: Final = (1, 4, 16)
_MOST_FRAMES: Final = 4_000
_FRAMES_PER_PICTURE: Final = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line per stage; returns 0 if the cores never part, 1 if they do, 2 if there is only one."""
    options = _parser().parse_args(argv)
    if not fceumm.is_installed():
        print(f"core_agreement: error: {fceumm.NOT_INSTALLED}", file=sys.stderr)
        return 2
    stages = [_stage(stage, options.players) for stage in STAGES]
    frames, parted = sum(stage["frames"] for stage in stages), [stage for stage in stages if stage["parted"]]
    print(f"{frames:,} frames on {len(stages)} stages; parted on {len(parted)}")
    if options.out is not None:
        alike = frames - len([cut for stage in stages for cut in stage["parted"]])
        row = {
            "name": "frames alike on both cores",
            "figure": alike,
            "unit": "frames",
            "ceiling": "frames played",
            "ceiling_figure": frames,
            "ratio": round(alike / frames, 6),
        }
        record = {
            "rows": [row],
            "players_per_stage": options.players,
            "stages": stages,
            **describe_commit(),
            "machine": describe_machine(),
        }
        write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    return 1 if parted else 0


def _stage(stage: str, players: int) -> dict[str, Any]:
    cores = [MarioRules(make_core(name), (int(stage[0]), int(stage[2]))) for name in ("nes-py", "fceumm")]
    played = [_episode(cores[0], cores[1], seed) for seed in range(players)]
    for core in cores:
        core.close()
    result = {
        "stage": stage,
        "frames": sum(frames for frames, _ in played),
        "parted": [frames for frames, parted in played if parted],
    }
    print(f"{stage}: {result['frames']:6,} frames, parted {result['parted'] or 'never'}", flush=True)
    return result


def _episode(slow: MarioRules, fast: MarioRules, seed: int) -> tuple[int, bool]:
    """Frames played, and whether the cores parted there."""
    if slow.reset() != fast.reset():
        return 0, True
    for frame, pressed in enumerate(_presses(seed), start=1):
        expected = slow.play_frame(pressed)
        same = fast.play_frame(pressed) == expected
        if frame % _FRAMES_PER_PICTURE == 0:
            same = same and np.array_equal(slow.core.read_frame(pooled=False), fast.core.read_frame(pooled=False))
        if not same or expected[1] or frame == _MOST_FRAMES:
            return frame, not same
    raise AssertionError("the presses never end")


def _presses(seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    wild = seed % (len(_HOLDS) + 1) == len(_HOLDS)
    while True:
        hold = int(rng.integers(1, 20)) if wild else _HOLDS[seed % (len(_HOLDS) + 1)]
        pressed = int(rng.integers(256)) & _NO_START_NO_SELECT if wild else int(rng.choice(_RIGHTWARD))
        yield from [pressed] * hold


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core_agreement", description="Compares both cores.")
    parser.add_argument(
        "--players", type=at_least(1, int), default=4, metavar="N", help="episodes per stage; default: 4"
    )
    parser.add_argument("--out", type=result_file, metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
