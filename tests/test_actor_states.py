"""The file of the actors' running episodes."""

import errno
import io
from pathlib import Path

import pytest

from common.errors import UserError
from driver.actor_states import actor_states_writer, read_actor_states
from learner.checkpoint import torch_bytes


class _FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_reported_as_one() -> None:
    """A checkpoint counts as failed on OSError alone; anything else would end the run."""
    (write,) = actor_states_writer({}).values()
    with pytest.raises(OSError, match="No space left"):
        write(_FullDisk())


def test_states_come_back_by_index(tmp_path: Path) -> None:
    path = tmp_path / "actors.pt"
    path.write_bytes(torch_bytes({0: {"rng": 2**100}, 3: {}}))
    assert read_actor_states({"actors.pt": path}) == {0: {"rng": 2**100}, 3: {}}
    assert read_actor_states({}) == {}


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "actors.pt"
    path.write_bytes(torch_bytes([1]))
    with pytest.raises(UserError, match="holds no actors' states"):
        read_actor_states({"actors.pt": path})
