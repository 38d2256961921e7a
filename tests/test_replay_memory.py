"""A replay that does not fit is refused with the arithmetic."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.types import EnvironmentSpec
from replay.memory import _cgroup_headrooms, available_memory, bytes_per_transition, check_memory

MARIO = EnvironmentSpec((84, 84), 4, ("noop", "right"))
GRID = EnvironmentSpec((9,), 1, ("up", "down"))


def test_too_large_a_replay_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UserError) as error:
        check_memory(10_000_000, bytes_per_transition(MARIO), 7 << 30)
    message = str(error.value)
    assert "10,000,000 x 1,250 bytes = 11.64 GiB, but 7.00 GiB are available" in message
    largest = int(message.split("--replay.capacity ")[1].split()[0])
    check_memory(largest, bytes_per_transition(MARIO), 7 << 30)
    with pytest.raises(UserError):
        check_memory(largest + 1, bytes_per_transition(MARIO), 7 << 30)
    assert "\n" not in message


def test_the_estimate_follows_the_observation() -> None:
    assert bytes_per_transition(MARIO) == 1_250
    assert bytes_per_transition(EnvironmentSpec((168, 84), 4, ("noop",))) == 2_500
    assert bytes_per_transition(GRID) < 300
    # A chunk of one transition carries five frames: four of its own state and the next one.
    assert bytes_per_transition(MARIO, frames_per_transition=5.0) == pytest.approx(1_250 * 5 / 1.1, abs=1)
    check_memory(1_000_000, bytes_per_transition(GRID), 300_000_000)


def test_available_memory_is_that_of_a_real_machine() -> None:
    assert 10_000_000 < available_memory() < 1 << 50


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    root = tmp_path / "fs"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    for group, limit, current, cache in ((inner, "max", 5, 0), (inner.parent, "1000", 400, 100)):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{current}\n")
        (group / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")
    assert _cgroup_headrooms(membership, root) == [700]
    (inner / "memory.max").write_text("6\n")
    assert min(_cgroup_headrooms(membership, root)) == 1


def test_machines_without_control_groups_are_fine(tmp_path: Path) -> None:
    assert _cgroup_headrooms(tmp_path / "missing", tmp_path) == []
    (tmp_path / "v1").write_text("4:memory:/some/group\n")
    assert _cgroup_headrooms(tmp_path / "v1", tmp_path) == []
