"""The replay under Ape-X's load, its memory at a million transitions, and other libraries' buffers on the same frames.

    python -m benchmarks.replay --out docs/results/performance/replay.json
    python -m benchmarks.replay --quick                      # a small shard, in less than two minutes

*One shard's process* is filled with the chunks of real episodes (a recording of some 16,000 steps on twelve stages,
pushed over and over with new priorities), then two inserting processes and a sampling one work on it at once through
the clients that actors and learner use: `RemoteReplayWriter`, and `RemoteReplayReader` with batches of 512, three of
them ahead, whose priorities all go back. The rate limiter holds them to Ape-X's 9,700 samples per 12,500 inserts.

*Other libraries* run in this machine's memory without Ray, one process after the other, each as large as fits.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import ROOT, describe_machine
from benchmarks.replay_contestants import CONTESTANTS
from benchmarks.replay_frames import Recording, build_chunks, load, play, save
from common.errors import UserError
from common.files import write_atomically
from common.types import Chunk
from driver.provenance import describe_commit
from replay.memory import available_memory

_GOAL_BYTES: Final = 1_200
_INSERTERS: Final = 2
_OBJECT_STORE_MB: Final = 512
_MEMORY_SHARE: Final = 0.5  # of what is available, for each library's buffer
_PEER_TIMEOUT_S: Final = 900


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    recorded: int  # steps played
    capacity: int  # of the shard, transitions
    load_s: float
    peer_limit: int  # transitions in another library's buffer, at most
    peer_s: float  # of sampling


FULL: Final = Size(recorded=16_000, capacity=1_000_000, load_s=30, peer_limit=1_000_000, peer_s=10)
QUICK: Final = Size(recorded=2_000, capacity=50_000, load_s=5, peer_limit=20_000, peer_s=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0, or 2 after a mistake of the user's."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except UserError as error:
        print(f"replay: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="apex-mario-") as folder:
        path = options.recordings or Path(folder) / "recordings.npz"
        recordings = _record(path, size.recorded)
        chunks = list(build_chunks(recordings))
        shard = _measure_shard(chunks, size)
        peers = {} if options.no_peers else {name: _measure_peer(name, path, size) for name in CONTESTANTS}
    rows = shard_rows(shard) + peer_rows(peers)
    result = {
        "rows": rows,
        "shard": shard,
        "in_process": peers,
        "chunks": _describe(chunks),
        "size": asdict(size),
        **describe_commit(),
        "machine": describe_machine(),
    }
    print(_table(rows))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, (json.dumps(result, indent=2) + "\n").encode())
        print(f"wrote {options.out}")


def _record(path: Path, transitions: int) -> list[Recording]:
    if path.exists():
        return load(path)
    print(f"playing {transitions:,} steps", flush=True)
    recordings = play(transitions)
    save(path, recordings)
    return recordings


def _measure_shard(chunks: list[Chunk], size: Size) -> dict[str, Any]:
    """Memory and speed of one shard's process."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would measure what else the machine does
    from driver.ray_address import prepare_environment

    prepare_environment(None)  # before Ray is imported, as launch.py does
    from benchmarks.replay_load import APEX_INSERTS_PER_S, ShardBench
    from driver.ray_session import ray_session

    with ray_session(None, private_cpus=_INSERTERS + 2, object_store_mb=_OBJECT_STORE_MB):
        bench = ShardBench(chunks, size.capacity, _INSERTERS)
        empty = bench.memory()
        print(f"filling a shard of {size.capacity:,} transitions", flush=True)
        fill_s = bench.fill()
        filled, stats = bench.memory(), bench.stats()
        figures: dict[str, Any] = {
            "transitions": stats.size,
            "empty": asdict(empty),
            "filled": asdict(filled),
            "reported_bytes": stats.bytes,
            "fill_per_s": stats.size / fill_s,
        }
        for name, rate, decode in (
            ("apex", float(APEX_INSERTS_PER_S), True),
            ("fastest", None, True),
            ("fastest_compressed", None, False),
        ):
            print(f"load: {name}", flush=True)
            figures[name] = asdict(bench.run(size.load_s, rate, decode=decode))
        figures["afterwards"] = asdict(bench.memory())
    return figures


def _measure_peer(name: str, recordings: Path, size: Size) -> dict[str, Any] | None:
    """A buffer's figures, None where its library does not run here."""
    memory_gb = available_memory() * _MEMORY_SHARE / 1e9
    print(f"{name}: at most {memory_gb:.1f} GB", flush=True)
    command = [sys.executable, "-m", "benchmarks.replay_peers", name, "--recordings", str(recordings.resolve())]
    command += ["--memory-gb", f"{memory_gb}", "--limit", str(size.peer_limit), "--seconds", str(size.peer_s)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PEER_TIMEOUT_S)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{name}: left out: {reason}", flush=True)
        return None
    figures: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def shard_rows(shard: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard's process, against Ape-X's load and the goal for its memory."""
    from benchmarks.replay_load import APEX_INSERTS_PER_S, APEX_SAMPLES_PER_S

    load_, fastest = shard["apex"], shard["fastest"]
    each = {when: _resident(shard[when]) / shard["transitions"] for when in ("filled", "afterwards")}
    own = (_resident(shard["afterwards"]) - shard["afterwards"]["shared"]) / shard["transitions"]
    ape_x = "Ape-X's published load"
    return [
        _row("inserts, paced", load_["inserts_per_s"], "transitions/s", ceiling=(ape_x, APEX_INSERTS_PER_S), goal=1),
        _row("samples beside them", load_["samples_per_s"], "samples/s", ceiling=(ape_x, APEX_SAMPLES_PER_S), goal=1),
        _row("CPU of the shard meanwhile", load_["shard_cpu"], "cores", ceiling=("one core", 1)),
        _row("inserts, unpaced", fastest["inserts_per_s"], "transitions/s", ceiling=(ape_x, APEX_INSERTS_PER_S)),
        _row("samples beside them", fastest["samples_per_s"], "samples/s", ceiling=(ape_x, APEX_SAMPLES_PER_S)),
        _bytes_row("memory of the filled process", each["filled"], ("the goal", _GOAL_BYTES), goal=1),
        _bytes_row("the same after the loads", each["afterwards"], ("the goal", _GOAL_BYTES)),
        _bytes_row("the same without Ray's object store", own, ("the goal", _GOAL_BYTES)),
    ]


def peer_rows(peers: dict[str, dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Ours over each library's; in memory, how many times fewer bytes."""
    ours = peers.get("apex-mario")
    rows = []
    for name, figures in peers.items():
        if figures is None or ours is None or name == "apex-mario":
            continue
        rows += [
            _bytes_row("memory, in process", ours["bytes_per_transition"], (name, figures["bytes_per_transition"])),
            _row("adds, in process", ours["adds_per_s"], "transitions/s", peer=(name, figures["adds_per_s"])),
            _row("samples, in process", ours["samples_per_s"], "samples/s", peer=(name, figures["samples_per_s"])),
        ]
    return rows


def _row(
    name: str,
    figure: float,
    unit: str,
    *,
    ceiling: tuple[str, float] | None = None,
    peer: tuple[str, float] | None = None,
    goal: float | None = None,
) -> dict[str, Any]:
    """In the form of all benchmarks' rows."""
    kind, (against, other) = ("ceiling", ceiling) if ceiling is not None else ("peer", peer or ("", 1.0))
    row = {"name": name, "figure": round(figure, 2), "unit": unit, kind: against, f"{kind}_figure": round(other, 2)}
    return row | {"ratio": round(figure / other, 3)} | ({} if goal is None else {"goal": goal})


def _bytes_row(name: str, figure: float, other: tuple[str, float], goal: float | None = None) -> dict[str, Any]:
    """As `_row`, but the ratio is the other's bytes over ours."""
    kind = {"ceiling": other} if other[0] == "the goal" else {"peer": other}
    return _row(name, figure, "bytes/transition", **kind, goal=goal) | {"ratio": round(other[1] / figure, 3)}


def _resident(memory: dict[str, int]) -> int:
    return sum(memory.values())


def _describe(chunks: list[Chunk]) -> dict[str, float]:
    transitions = sum(map(len, chunks))
    return {
        "distinct": len(chunks),
        "transitions": transitions,
        "frames_per_transition": round(sum(chunk.num_frames for chunk in chunks) / transitions, 3),
        "compressed_bytes_per_transition": round(sum(len(chunk.frames) for chunk in chunks) / transitions, 1),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'figure':38}{'measured':>12} {'':18}{'against':>34}{'ratio':>8}"]
    for row in rows:
        kind = "ceiling" if "ceiling" in row else "peer"
        against = f"{row[kind]} {row[f'{kind}_figure']:,.0f}"
        lines.append(f"{row['name']:38}{row['figure']:>12,.2f} {row['unit']:18}{against:>34}{row['ratio']:>8.2f}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay", description="Measures one shard under Ape-X's load, beside other libraries."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small shard and small buffers, in less than two minutes")
    add("--no-peers", action="store_true", help="leave the other libraries out")
    add(
        "--recordings",
        type=Path,
        metavar="FILE",
        help="episodes to use; if there is no such file, it is made",
    )
    add("--out", type=Path, metavar="FILE", help="write the figures there as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
