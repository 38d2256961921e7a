"""No file of a checkpoint runs code when it is read, even where the manifest vouches for it."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from driver.actor_states import read_actor_states
from learner.checkpoint import load_checkpoint
from replay.snapshot import MAGIC, Tables, read_snapshot
from tests.malicious import Malicious
from tests.test_checkpoint import make_learner, save


def replace_with_pickle(path: Path, trap: Path) -> None:
    """A file of a checkpoint whose manifest is set right again."""
    torch.save({"weights": Malicious(trap)}, path)
    data, manifest = path.read_bytes(), path.with_name("manifest.json")
    content = json.loads(manifest.read_text())
    content["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["policy.pt", "online.pt", "target.pt", "optimizer.pt"])
def test_a_malicious_pickle_within_a_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    path, trap = save(tmp_path / "run", make_learner(average_decay=0.5)), tmp_path / "made-by-a-pickle"
    load_checkpoint(path)
    replace_with_pickle(path / name, trap)
    with pytest.raises(UserError, match="is damaged or is no plain"):
        load_checkpoint(path)
    assert not trap.exists()


def test_a_malicious_pickle_in_place_of_the_actors_states_is_refused(tmp_path: Path) -> None:
    path, trap = tmp_path / "actors.pt", tmp_path / "made-by-a-pickle"
    torch.save({0: Malicious(trap)}, path)
    with pytest.raises(UserError, match="is damaged or is no plain"):
        read_actor_states({path.name: path})
    assert not trap.exists()


def tables_of_objects(trap: Malicious) -> bytes:
    """A replay's file whose arrays are pickles, as NumPy writes them on request."""
    tables = io.BytesIO()
    arrays: dict[str, Any] = dict.fromkeys(("header", *Tables._fields), np.array([trap], object))
    np.savez(tables, **arrays)
    return MAGIC + len(tables.getvalue()).to_bytes(8, "little") + tables.getvalue()


def saved_by_torch(trap: Malicious) -> bytes:
    file = io.BytesIO()
    torch.save({"a_tm1": trap}, file)
    return file.getvalue()


def after_the_beginning(trap: Malicious) -> bytes:
    """A pickle where a replay's file has its tables."""
    data = pickle.dumps(trap)
    return MAGIC + len(data).to_bytes(8, "little") + data


@pytest.mark.parametrize("make", [pickle.dumps, saved_by_torch, after_the_beginning, tables_of_objects])
def test_a_malicious_pickle_in_place_of_the_replays_contents_is_refused(
    make: Callable[[Malicious], bytes], tmp_path: Path
) -> None:
    path, trap = tmp_path / "replay-0.bin", tmp_path / "made-by-a-pickle"
    path.write_bytes(make(Malicious(trap)))
    with path.open("rb") as file, pytest.raises(ValueError, match=r"does not begin as|tables cannot be read"):
        read_snapshot(file)
    assert not trap.exists()
