"""A checkpoint whose replay holds a damaged block, with the right checksum of the file: a run goes on from it."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from driver.recovery import Recovery
from driver.run_directory import RunDirectory
from learner.checkpoint import CheckpointData, load_checkpoint, newest_checkpoint
from learner.manifest import MANIFEST, write_manifest
from replay.snapshot import read_snapshot
from tests.checkpoints import make_run, save_step
from tests.launching import GRID, finish, progress, start, start_raw

# So that a fresh replay is smaller in the end than one that was kept.
OPTIONS = ["--replay.min-size", "1500"]
NOT_WANTED = r"it is not taken from checkpoints \(--checkpoint.no-replay\)"


def flip_a_bit_of_the_newest_frame(checkpoint: Path) -> None:
    """As if it had been damaged in the shard's memory before it was written."""
    step = load_checkpoint(checkpoint).step
    file = checkpoint / "replay-0.bin"
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, step)


def transitions(checkpoint: Path) -> int:
    count = 0
    for path in checkpoint.glob("replay-*.bin"):
        with path.open("rb") as file:
            count += len(read_snapshot(file).tables.a_tm1)
    return count


@pytest.mark.parametrize("wanted", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_goes_on_from_a_replay_with_a_damaged_block_or_without_it(wanted: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, _, err = finish(start(run, *GRID, *OPTIONS, "--max-updates", "300"))
    assert (status, err) == (0, "")
    path = newest_checkpoint(run / "checkpoints")
    assert path is not None
    flip_a_bit_of_the_newest_frame(path)
    held = transitions(path)
    option = "--checkpoint.replay" if wanted else "--checkpoint.no-replay"
    status, out, err = finish(start_raw("--resume", str(run), option, "--max-updates", "400"))
    assert (status, err) == (0, "")
    left_out = "warning: damaged chunks of transitions that replay shard 0 left out: 1\n" in out
    size = progress(run)[-1]["replay_size"]
    if wanted:
        assert "the replay goes on as it was" in out
        assert left_out
        assert size > held - 100  # less the damaged chunk, and what had to make room
    else:
        assert "the replay fills anew: it is not taken from checkpoints (--checkpoint.no-replay)" in out
        assert not left_out
        assert 1500 <= size < held - 100


def checkpoint_with_replay(run: RunDirectory) -> CheckpointData:
    path = save_step(run, 5)
    (path / "replay-0.bin").write_bytes(b"contents")
    (path / MANIFEST).unlink()
    write_manifest(path, 5)
    return load_checkpoint(path)


def test_a_replay_that_is_not_wanted_is_neither_the_runs_nor_a_new_shards(tmp_path: Path) -> None:
    run, said = make_run(tmp_path / "run"), list[str]()
    data = checkpoint_with_replay(run)
    recovery = Recovery(run.checkpoints, 1, False, said.append, lambda: True)
    with pytest.raises(UserError, match=NOT_WANTED):
        recovery.replay_of(data)
    shard: Any = None  # is not asked for anything
    recovery.fill(0, shard)
    assert said == ["replay shard 0 begins empty: it is not taken from checkpoints (--checkpoint.no-replay)"]
    assert set(Recovery(run.checkpoints, 1, True, said.append, lambda: True).replay_of(data)) == {"replay-0.bin"}
