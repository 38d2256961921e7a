"""Checkpoints: one folder per step, whole or not there at all, loaded without running pickled code.

`step-000000012000/` holds

- `policy.pt`, `policy.json`: the online network or, where weights are averaged, the average: a policy file like any
  other (see `common.policy`);
- `online.pt` (only beside an average), `target.pt`, `optimizer.pt`: the rest of the learner's state, plain tensors;
- `state.json`: counters, random states; whatever JSON the caller gives;
- further files of the caller's, such as the run's settings and the replay;
- `manifest.json`: size and SHA-256 of every other file, written last.

A folder is filled under a temporary name, flushed to the disk and then renamed.
"""

import io
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from common.errors import UserError
from common.files import sync_directory, write_synced
from common.policy import Policy, load_policy, load_tensors, save_weights
from common.types import EnvironmentSpec
from learner.checkpoint_names import REPLACED_SUFFIX, checkpoint_folders
from learner.manifest import MANIFEST, OPTIONAL_FILES, OWN_FILES, has_all_sizes, read_json, verify, write_manifest

_TEMPORARY_PREFIX = ".temporary-"

_log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint could not be written, for want of space or rights; the earlier ones are untouched."""


@dataclass(frozen=True)
class CheckpointData:
    """A loaded checkpoint.

    Attributes:
        path: its folder.
        step: the learner's updates.
        policy: the online network or the average, ready to play.
        learner: what `Learner.load_state_dict` takes.
        state: the caller's JSON.
        extra: the caller's further files by name.
    """

    path: Path
    step: int
    policy: Policy
    learner: dict[str, Any]
    state: dict[str, Any]
    extra: dict[str, Path]

    def moved(self, path: Path) -> "CheckpointData":
        """The same, after its folder was renamed."""
        return replace(self, path=path, extra={name: path / name for name in self.extra})


def save_checkpoint(
    root: Path,
    learner: Mapping[str, Any],
    *,
    spec: EnvironmentSpec,
    metadata: Mapping[str, object],
    state: Mapping[str, object],
    extra: Mapping[str, Callable[[BinaryIO], None]] | None = None,
) -> Path:
    """Writes a checkpoint of the learner's step; one of the same step is replaced.

    Args:
        root: the folder of all checkpoints of a run; made if it is not there.
        learner: what `Learner.state_dict` returned.
        spec: the policy's frames and actions.
        metadata: of the policy file.
        state: anything JSON.
        extra: further files: a name without folders, and what writes it.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; earlier checkpoints are as before.
        ValueError: a name in `extra` is taken or has folders in it.
        TypeError, ValueError: metadata or state is not JSON.
    """
    extra = extra or {}
    for name in extra:
        if not name or Path(name).name != name or name[0] == "." or name in (*OWN_FILES, *OPTIONAL_FILES, MANIFEST):
            raise ValueError(f"a checkpoint cannot hold an extra file called {name!r}")
    step = learner["updates"]
    final = root / f"step-{step:012d}"
    temporary = root / f"{_TEMPORARY_PREFIX}{final.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        temporary.mkdir()
        _write_files(temporary, learner, spec, metadata, state, extra)
        write_manifest(temporary, step)
        _publish(temporary, final)
    except OSError as error:
        raise CheckpointError(f"checkpoint {final} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load_checkpoint(path: Path) -> CheckpointData:
    """Reads a checkpoint folder after checking every file against the manifest.

    Raises:
        UserError: the folder is no checkpoint, or a file in it is damaged; the message says which and how.
    """
    return _read(path, *verify(path))


def newest_checkpoint(
    root: Path, warn: Callable[[str], None] | None = None, *, holding: str | None = None
) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are passed over.

    Args:
        root: the folder of all checkpoints of a run.
        warn: takes a line for each one that is passed over; None: the log does.
        holding: one of the caller's further files; checkpoints without it do not count.

    Returns:
        None where the run has no checkpoint at all, or none with that file.

    Raises:
        UserError: there are checkpoints, and every one is damaged: starting afresh would hide that.
    """
    found = _newest(root, warn, extra=True, holding=holding)
    return None if found is None else found[0]


def load_newest_checkpoint(
    root: Path, warn: Callable[[str], None] | None = None, *, extra: bool = True
) -> CheckpointData | None:
    """As `newest_checkpoint`, and reads it; each file is checked once.

    Args:
        root, warn: see there.
        extra: whether the caller's further files are checked as well, which may be gigabytes of replay.

    Raises:
        UserError: see there; or a file that is as it was written cannot be read by this version.
    """
    while (found := _newest(root, warn, extra)) is not None:
        path, files, step = found
        try:
            return _read(path, files, step)
        except UserError:
            if path.exists():
                raise
            # Another one was finished meanwhile, and this one removed for it.
    return None


def prune(root: Path, keep: int, spare: Path | None = None, holding: str | None = None) -> None:
    """Removes all checkpoints but the newest `keep` whole ones.

    Args:
        root: the folder of all checkpoints of a run.
        keep: how many.
        spare: one that stays in any case: the newest one by time, where newer ones by step are damaged within.
        holding: one of the caller's further files; the newest whole one that has it stays as well.

    Raises:
        ValueError: `keep` is less than 1.
    """
    if keep < 1:
        raise ValueError(f"{keep} checkpoints cannot be kept: at least 1")
    whole, held = 0, holding is None
    for path in checkpoint_folders(root):
        last_holding = not held and (path / str(holding)).exists() and has_all_sizes(path)
        held = held or last_holding
        if whole >= keep and path != spare and not last_holding:
            _remove(path)
        elif has_all_sizes(path):
            whole += 1


def _newest(
    root: Path, warn: Callable[[str], None] | None, extra: bool, holding: str | None = None
) -> tuple[Path, list[str], int] | None:
    """The newest checkpoint that `verify` finds whole, its files and its step."""
    while checkpoints := checkpoint_folders(root):
        reasons = []
        for path in checkpoints:
            try:
                files, step = verify(path, extra=extra)
                if holding is None or holding in files:
                    return path, files, step
            except UserError as error:
                if not path.exists():
                    break  # a newer one was finished meanwhile, and this one removed for it
                reasons.append(str(error))
                (warn or _log.warning)(f"passing over a damaged checkpoint: {error}")
        else:
            if len(reasons) < len(checkpoints):
                return None
            why = reasons[0].removeprefix("checkpoint ").partition(";")[0]
            raise UserError(
                f"every checkpoint in {root} is damaged ({why}): restore one from a copy, or start a new run"
            )
    return None


def _read(path: Path, files: list[str], step: int) -> CheckpointData:
    """A checkpoint that was checked."""
    policy = load_policy(path / "policy.pt")
    learner = {
        **_load_networks(path, policy, averaged="online.pt" in files),
        "target": _load_dict(path / "target.pt"),
        "optimizer": _load_dict(path / "optimizer.pt"),
        "updates": step,
    }
    extra = {name: path / name for name in files if name not in (*OWN_FILES, *OPTIONAL_FILES)}
    return CheckpointData(path, step, policy, learner, read_json(path / "state.json"), extra)


def _write_files(
    folder: Path,
    learner: Mapping[str, Any],
    spec: EnvironmentSpec,
    metadata: Mapping[str, object],
    state: Mapping[str, object],
    extra: Mapping[str, Callable[[BinaryIO], None]],
) -> None:
    save_weights(folder / "policy.pt", learner.get("average", learner["online"]), spec, metadata)
    for name in ("online", "target", "optimizer") if "average" in learner else ("target", "optimizer"):
        _write_bytes(folder / f"{name}.pt", torch_bytes(learner[name]))
    _write_bytes(folder / "state.json", json.dumps(state, indent=2).encode())
    for name, write in extra.items():
        write_synced(folder / name, write)


def torch_bytes(value: object) -> bytes:
    """What `torch.save` writes; in memory, because torch's own file writer does not report a full disk as OSError."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _write_bytes(path: Path, data: bytes) -> None:
    write_synced(path, lambda file: file.write(data))


def _publish(temporary: Path, final: Path) -> None:
    """Gives the folder its name; at every moment either it or the one that it replaces can be found."""
    replaced = final.with_name(final.name + REPLACED_SUFFIX)
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    sync_directory(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    """What an interrupted save or removal left behind."""
    for path in root.glob(f"{_TEMPORARY_PREFIX}*"):
        shutil.rmtree(path)
    for replaced in root.glob(f"step-*{REPLACED_SUFFIX}"):
        if replaced.with_suffix("").exists():
            _remove(replaced)
        else:
            replaced.rename(replaced.with_suffix(""))


def _remove(path: Path) -> None:
    """Renamed first, so that an interruption leaves no half a checkpoint."""
    doomed = path.with_name(f"{_TEMPORARY_PREFIX}{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _load_networks(path: Path, policy: Policy, *, averaged: bool) -> dict[str, Any]:
    """The learner's online network and, if there is one, its average."""
    weights = dict(policy.network.state_dict())
    return {"online": _load_dict(path / "online.pt"), "average": weights} if averaged else {"online": weights}


def _load_dict(path: Path) -> dict[str, Any]:
    value = load_tensors(path)
    if not isinstance(value, dict):
        raise UserError(f"checkpoint {path.parent} is damaged: {path.name} holds no state; take an earlier one")
    try:
        finite = _is_finite(value)
    except RuntimeError:  # sparse or quantized tensors, or containers without end
        raise UserError(
            f"checkpoint {path.parent} is damaged: {path.name} holds what no learner saves; take an earlier one"
        ) from None
    if not finite:
        raise UserError(f"checkpoint {path.parent} is damaged: {path.name} holds NaN or infinity; take an earlier one")
    return cast(dict[str, Any], value)


def _is_finite(value: object) -> bool:
    """Whether all tensors within are."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(map(_is_finite, inner))
