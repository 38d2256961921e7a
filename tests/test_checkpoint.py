import functools
import json
import logging
import os
import re
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.networks import flatten
from common.policy import load_policy
from driver.recovery import Recovery
from learner.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_newest_checkpoint,
    newest_checkpoint,
    prune,
    save_checkpoint,
)
from learner.learner import Learner
from tests.random_batches import VECTOR_SPEC, random_batch

FILES = ["manifest.json", "optimizer.pt", "policy.json", "policy.pt", "state.json", "target.pt"]


def make_learner(seed: int = 7, average_decay: float = 0.0) -> Learner:
    return Learner(
        VECTOR_SPEC,
        double=True,
        dueling=False,
        learning_rate=1e-3,
        adam_epsilon=1e-8,
        huber_delta=1.0,
        max_grad_norm=10.0,
        target_update_period=4,
        device="cpu",
        precision="float32",
        seed=seed,
        average_decay=average_decay,
    )


def train(learner: Learner, updates: int) -> None:
    for _ in range(updates):
        learner.update(random_batch(VECTOR_SPEC, seed=learner.updates))


def save(
    root: Path,
    learner: Learner,
    state: dict[str, object] | None = None,
    extra: dict[str, Callable[[BinaryIO], None]] | None = None,
) -> Path:
    return save_checkpoint(
        root, learner.state_dict(), spec=VECTOR_SPEC, metadata={"env_steps": 5}, state=state or {}, extra=extra
    )


def save_steps(root: Path, steps: int) -> list[Path]:
    """Checkpoints of steps 1 … `steps`, oldest first."""
    learner = make_learner()
    paths = []
    for _ in range(steps):
        train(learner, 1)
        paths.append(save(root, learner))
    return paths


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_restored_learner_continues_bit_for_bit(tmp_path: Path) -> None:
    whole = make_learner()
    train(whole, 6)  # the target is two updates behind the online network
    path = save(tmp_path, whole)
    train(whole, 6)
    restored = make_learner(seed=1)
    restored.load_state_dict(load_checkpoint(path).learner)
    train(restored, 6)
    assert restored.updates == 12
    np.testing.assert_array_equal(restored.weights(), whole.weights())


def test_an_averaged_policy_is_the_policy_file_and_training_goes_on_from_the_online_network(tmp_path: Path) -> None:
    learner = make_learner(average_decay=0.9)
    train(learner, 6)
    data = load_checkpoint(save(tmp_path, learner))
    assert data.extra == {}
    np.testing.assert_array_equal(flatten(data.policy.network), learner.policy_weights())
    restored = make_learner(seed=1, average_decay=0.9)
    restored.load_state_dict(data.learner)
    for each in (learner, restored):
        train(each, 3)
    np.testing.assert_array_equal(restored.weights(), learner.weights())
    np.testing.assert_array_equal(restored.policy_weights(), learner.policy_weights())


def test_the_callers_state_comes_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    state = {"env_steps": 10**12, "rng": generator.bit_generator.state, "best": None, "config": {"seed": 0}}
    data = load_checkpoint(save(tmp_path, make_learner(), state))
    assert data.state == state
    assert data.step == 0
    restored = np.random.default_rng(0)
    restored.bit_generator.state = data.state["rng"]
    assert restored.random() == generator.random()


def test_a_checkpoint_is_a_folder_of_plain_files_named_by_step(tmp_path: Path) -> None:
    learner = make_learner()
    train(learner, 2)
    path = save(tmp_path / "run" / "checkpoints", learner)
    assert path == tmp_path / "run" / "checkpoints" / "step-000000000002"
    assert sorted(os.listdir(path)) == FILES
    policy = load_policy(path / "policy.pt")
    assert policy.metadata == {"env_steps": 5}
    assert policy.spec == VECTOR_SPEC
    for name in ("target.pt", "optimizer.pt"):
        torch.load(path / name, weights_only=True)


def test_extra_files_are_written_checked_and_found_again(tmp_path: Path) -> None:
    path = save(tmp_path, make_learner(), extra={"replay-0.bin": lambda file: np.save(file, np.arange(5))})
    extra = load_checkpoint(path).extra
    assert list(extra) == ["replay-0.bin"]
    np.testing.assert_array_equal(np.load(extra["replay-0.bin"]), np.arange(5))
    flip_a_bit(extra["replay-0.bin"])
    with pytest.raises(UserError, match=r"replay-0\.bin has a wrong checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["policy.pt", "online.pt", "manifest.json", "../escape", "a/b", ".hidden", ""])
def test_extra_files_cannot_take_another_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="extra file"):
        save(tmp_path, make_learner(), extra={name: lambda file: None})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut, r"has \d+ bytes instead of \d+"), (flip_a_bit, "has a wrong checksum"), (Path.unlink, "is missing")],
)
def test_damage_to_any_file_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None], reason: str) -> None:
    path = save(tmp_path, make_learner())
    damage(path / name)
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message
    assert "damaged" in message
    if name != "manifest.json":
        assert re.search(f"{re.escape(name)} {reason}", message)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"step": 1, "files": []}', '{"step": "1", "files": {}}'])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    path = save(tmp_path, make_learner())
    (path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"manifest\.json is no"):
        load_checkpoint(path)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    path = save(tmp_path, make_learner())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../secret"] = manifest["files"]["state.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is not a checkpoint's"):
        load_checkpoint(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "step-000000000001")


def test_newest_is_the_one_of_the_largest_step(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    paths = save_steps(tmp_path, 3)
    os.utime(paths[0])
    assert newest_checkpoint(tmp_path) == paths[2]


def test_newest_passes_over_damaged_ones_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = save_steps(tmp_path, 3)
    cut(paths[2] / "target.pt")
    flip_a_bit(paths[1] / "optimizer.pt")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == paths[0]
    assert "target.pt has" in caplog.text
    assert "optimizer.pt has a wrong checksum" in caplog.text


def test_a_run_without_checkpoints_begins_anew_after_its_learners_death(tmp_path: Path) -> None:
    said = list[str]()
    assert Recovery(tmp_path, 1, True, said.append, lambda: False).learner_state() is None
    assert said == ["there is no checkpoint to go on from: the new learner begins afresh"]


def test_a_run_whose_checkpoints_are_gone_ends_rather_than_begins_anew(tmp_path: Path) -> None:
    said = list[str]()
    recovery = Recovery(tmp_path / "checkpoints", 1, True, said.append, lambda: True)
    with pytest.raises(UserError, match=r"loaded or wrote are gone from .*/checkpoints; bring them back.*resume"):
        recovery.learner_state()
    assert said == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whole"), make_learner(), {"counter": 1})


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_checkpoint_with_any_byte_changed_is_refused_or_the_same(whole: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / whole.name
        shutil.copytree(whole, copy)
        file = copy / data.draw(st.sampled_from(FILES))
        content = file.read_bytes()
        place = data.draw(st.integers(0, len(content) - 1))
        file.write_bytes(content[:place] + data.draw(st.binary(max_size=3)) + content[place + 1 :])
        try:
            loaded = load_checkpoint(copy)
        except UserError:
            return
        before = load_checkpoint(whole)
        assert (loaded.step, loaded.state) == (before.step, before.state)
        assert same(loaded.learner, before.learner)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def test_newest_refuses_where_every_checkpoint_is_damaged(tmp_path: Path) -> None:
    for path in save_steps(tmp_path, 2):
        cut(path / "policy.pt")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        newest_checkpoint(tmp_path)


def test_the_same_step_can_be_saved_twice(tmp_path: Path) -> None:
    learner = make_learner()
    first = save(tmp_path, learner, {"env_steps": 1})
    assert save(tmp_path, learner, {"env_steps": 2}) == first
    assert load_checkpoint(first).state == {"env_steps": 2}
    assert os.listdir(tmp_path) == [first.name]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    learner = make_learner()
    path = save(tmp_path, learner)
    cut(path / "policy.pt")
    save(tmp_path, learner)
    load_checkpoint(path)


def test_a_crash_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    path = save_steps(tmp_path, 1)[0]
    replaced = path.rename(path.with_name(path.name + ".replaced"))
    assert newest_checkpoint(tmp_path) == replaced
    assert load_checkpoint(replaced).step == 1
    other = save(tmp_path, make_learner())
    assert sorted(os.listdir(tmp_path)) == [other.name, path.name]
    load_checkpoint(path)


def test_leftovers_of_an_interrupted_save_are_no_checkpoint_and_go_with_the_next(tmp_path: Path) -> None:
    paths = save_steps(tmp_path, 2)
    paths[1].rename(tmp_path / f".temporary-{paths[1].name}")
    assert newest_checkpoint(tmp_path) == paths[0]
    save(tmp_path, make_learner())
    assert sorted(os.listdir(tmp_path)) == ["step-000000000000", paths[0].name]


@pytest.mark.parametrize("limit", [10, 3_000])
def test_a_full_disk_leaves_the_earlier_checkpoints_and_no_rubbish(tmp_path: Path, limit: int) -> None:
    path = save_steps(tmp_path, 1)[0]
    learner = make_learner()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # the kernel then refuses larger files
    try:
        with pytest.raises(CheckpointError, match="could not be written: File too large"):
            save(tmp_path, learner)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == [path.name]
    assert newest_checkpoint(tmp_path) == path


def test_state_that_is_no_json_leaves_no_rubbish(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path, make_learner(), {"array": np.zeros(1)})
    assert not os.listdir(tmp_path)


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    paths = save_steps(tmp_path, 4)
    prune(tmp_path, keep=2)
    assert sorted(os.listdir(tmp_path)) == [path.name for path in paths[2:]]
    prune(tmp_path, keep=5)
    assert len(os.listdir(tmp_path)) == 2


def test_prune_does_not_count_a_damaged_checkpoint(tmp_path: Path) -> None:
    paths = save_steps(tmp_path, 3)
    cut(paths[2] / "policy.pt")
    (paths[1] / "manifest.json").unlink()
    prune(tmp_path, keep=1)
    assert newest_checkpoint(tmp_path) == paths[0]


def test_prune_spares_the_one_just_written_beside_newer_ones_that_are_damaged_within(tmp_path: Path) -> None:
    paths = save_steps(tmp_path, 4)
    prune(tmp_path, keep=2, spare=paths[0])
    assert sorted(os.listdir(tmp_path)) == [path.name for path in (paths[0], *paths[2:])]


def test_prune_leaves_the_newest_one_that_holds_a_file(tmp_path: Path) -> None:
    paths = save_steps(tmp_path, 5)
    for path in paths[:2]:
        (path / "replay").write_text("contents")
    prune(tmp_path, keep=2, holding="replay")
    assert sorted(os.listdir(tmp_path)) == [path.name for path in (paths[1], *paths[3:])]


def test_where_all_are_damaged_the_reason_is_said(tmp_path: Path) -> None:
    cut(save_steps(tmp_path, 1)[0] / "target.pt")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(.*target\.pt has \d+ bytes instead of"):
        load_newest_checkpoint(tmp_path)


def test_the_newest_one_that_holds_a_file_is_found(tmp_path: Path) -> None:
    learner = make_learner()
    state: Any = learner.state_dict()
    extra = {"replay-0.bin": lambda file: file.write(b"contents")}
    save = functools.partial(save_checkpoint, tmp_path, spec=VECTOR_SPEC, metadata={}, state={})
    older = save(state | {"updates": 1}, extra=extra)
    newer = save(state | {"updates": 2})
    assert newest_checkpoint(tmp_path) == newer
    assert newest_checkpoint(tmp_path, holding="replay-0.bin") == older
    assert newest_checkpoint(tmp_path, holding="replay-1.bin") is None


def test_a_learner_alone_does_not_wait_for_the_replays_checksum(tmp_path: Path) -> None:
    extra = {"replay-0.bin": lambda file: file.write(b"contents")}
    path = save_checkpoint(tmp_path, make_learner().state_dict(), spec=VECTOR_SPEC, metadata={}, state={}, extra=extra)
    (path / "replay-0.bin").write_bytes(b"CONTENTS")
    found = load_newest_checkpoint(tmp_path, extra=False)
    assert found is not None
    assert found.path == path
    with pytest.raises(UserError, match="wrong checksum"):
        load_newest_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_manifest_with_a_name_that_no_file_can_have_is_damaged(name: str, tmp_path: Path) -> None:
    path = save_steps(tmp_path, 1)[0]
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(path)
    prune(tmp_path, keep=1)
    assert path.exists()


def test_prune_refuses_to_keep_none(tmp_path: Path) -> None:
    path = save_steps(tmp_path, 1)[0]
    with pytest.raises(ValueError, match="at least 1"):
        prune(tmp_path, keep=0)
    assert path.exists()


def test_two_saves_of_the_same_state_have_the_same_bytes(tmp_path: Path) -> None:
    state: Any = make_learner().state_dict()
    paths = [save_checkpoint(tmp_path / name, state, spec=VECTOR_SPEC, metadata={}, state={}) for name in ("a", "b")]
    for name in FILES:
        assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes(), name


def test_a_reader_beside_a_writer_that_keeps_one_always_finds_one(tmp_path: Path) -> None:
    """As the replacement of a dead process does, with `--checkpoint.keep 1`."""
    learner, said = make_learner(), list[str]()
    save(tmp_path, learner)
    recovery = Recovery(tmp_path, 1, True, said.append, lambda: True)
    finished = threading.Event()

    def write() -> None:
        for _ in range(60):
            train(learner, 1)
            save(tmp_path, learner)
            prune(tmp_path, keep=1)
        finished.set()

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    while not finished.is_set():
        state = recovery.learner_state()
        assert state is not None
        found.append(state["updates"])
    writer.join()
    assert found == sorted(found)
    assert len(set(found)) > 2
    assert all(line.startswith("the new learner goes on from step-") for line in said)
