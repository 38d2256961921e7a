"""No file of a checkpoint runs code when it is read, even where the manifest vouches for it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from driver.actor_states import read_actor_states
from learner.checkpoint import load_checkpoint
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
