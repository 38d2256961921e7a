"""The replay's contents in a checkpoint: one file per shard, written while the shards go on serving."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray.exceptions import RayError, RayTaskError

from common.errors import first_line
from replay.snapshot import file_name, pieces_of_file

_SHARD_TIMEOUT_S = 60.0


class ReplayNotSavedError(Exception):
    """A shard did not give its contents; the message says why in one line."""


def replay_writers(shards: Sequence[Any]) -> dict[str, Callable[[BinaryIO], None]]:
    """What writes the shards' contents as they are now, by file name, for `learner.checkpoint.save_checkpoint`.

    Raises:
        ReplayNotSavedError: a shard is gone or hangs; the writers raise it as well.
    """
    _ask([shard.begin_snapshot.remote() for shard in shards])
    return {file_name(index): functools.partial(_write, shard) for index, shard in enumerate(shards)}


def forget_snapshots(shards: Sequence[Any]) -> None:
    """To be called when nobody reads the shards' snapshots any more, so that they do not keep what is evicted."""
    for shard in shards:
        shard.forget_snapshot.remote()


def restore_replay(shards: Sequence[Any], files: Mapping[str, Path]) -> str | None:
    """Fills new shards from a checkpoint's files; those of a shard that cannot take its file stay empty.

    Args:
        shards: handles of the shards, empty.
        files: a checkpoint's extra files by name.

    Returns:
        Why some of it was left out, in one line; None if all shards are as they were.
    """
    reasons = [restore_shard(index, len(shards), shard, files) for index, shard in enumerate(shards)]
    return next((reason for reason in reasons if reason is not None), None)


def restore_shard(index: int, count: int, shard: Any, files: Mapping[str, Path]) -> str | None:
    """As `restore_replay`, for shard `index` of `count`."""
    found = [name for name in files if name.startswith("replay-")]
    if not found:
        return "the checkpoint holds no replay"
    if len(found) != count:
        return f"the checkpoint's replay has another number of shards, {len(found)}"
    reason = _restore(shard, files[file_name(index)])
    if reason is not None:
        shard.forget_restore.remote()
    return reason


def _write(shard: Any, file: BinaryIO) -> None:
    while (piece := _ask(shard.snapshot_piece.remote())) is not None:
        file.write(piece)


def _restore(shard: Any, path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            for piece in pieces_of_file(file):
                ray.get(shard.restore_piece.remote(piece), timeout=_SHARD_TIMEOUT_S)
        ray.get(shard.finish_restore.remote(), timeout=_SHARD_TIMEOUT_S)
    except RayTaskError as error:
        return f"{path.name}: {first_line(error.cause)}"
    except RayError as error:
        return f"{path.name}: the shard does not answer ({type(error).__name__})"
    except (OSError, ValueError) as error:
        return f"{path.name}: {error}"
    return None


def _ask(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=_SHARD_TIMEOUT_S)
    except RayError as error:
        raise ReplayNotSavedError(f"a replay shard does not answer ({type(error).__name__})") from error
