"""One replay buffer in a process of its own, filled with real frames, then sampled: a line of JSON.

    python -m benchmarks.replay_peers cpprb --recordings FILE --memory-gb 8

`benchmarks.replay` starts it once per buffer, so that memory is that of one buffer alone.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.processes import resident_memory
from benchmarks.replay_contestants import CONTESTANTS, Contestant
from benchmarks.replay_frames import Recording, load

BATCH_SIZE: Final = 512


def measure(name: str, recordings: list[Recording], memory_bytes: float, limit: int, seconds: float) -> dict[str, Any]:
    """Fills the buffer as far as the memory goes, at most to `limit` transitions; samples it for so many seconds."""
    make, expected_bytes = CONTESTANTS[name]
    capacity = min(limit, int(memory_bytes / expected_bytes))
    prepared = _prepare(make(1_000), recordings)
    before = resident_memory(os.getpid()).private
    contestant = make(capacity)
    added, started = 0, time.perf_counter()
    for recording, episode in itertools.cycle(zip(recordings, prepared, strict=True)):
        contestant.add(episode)
        added += len(recording.actions)
        if added >= capacity:
            break
    add_s = time.perf_counter() - started
    grown = resident_memory(os.getpid()).private - before
    return {
        "name": name,
        "transitions": capacity,
        "bytes_per_transition": grown / capacity,
        "adds_per_s": added / add_s,
        "samples_per_s": _sample(contestant, seconds),
    }


def _prepare(small: Contestant, recordings: list[Recording]) -> list[Any]:
    """All that will be added; the library is used once, so that what it imports and sets up counts as no buffer's."""
    prepared = [small.prepare(recording) for recording in recordings]
    small.add(prepared[0])
    small.sample(BATCH_SIZE)
    return prepared


def _sample(contestant: Contestant, seconds: float) -> float:
    """Samples per second, their priorities updated, after a warm-up of one batch."""
    rng = np.random.default_rng(0)
    contestant.sample(BATCH_SIZE)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        sample = contestant.sample(BATCH_SIZE)
        contestant.update(sample, rng.exponential(size=BATCH_SIZE).astype(np.float32))
        batches += 1
    return batches * BATCH_SIZE / (time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures as JSON; 3 if the library is not installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay_peers", description=__doc__)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--recordings", type=Path, required=True, help="what benchmarks.replay_frames.save wrote")
    parser.add_argument("--memory-gb", type=float, required=True, help="that the buffer may take")
    parser.add_argument("--limit", type=int, default=1_000_000, help="transitions at most; default: 1000000")
    parser.add_argument("--seconds", type=float, default=10.0, help="of sampling; default: 10")
    options = parser.parse_args(argv)
    try:
        figures = measure(
            options.name, load(options.recordings), options.memory_gb * 1e9, options.limit, options.seconds
        )
    except ModuleNotFoundError as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 3
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
