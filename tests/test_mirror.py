"""Checkpoints at a URI: what is complete counts, what is damaged does not, and no failure there ends a run."""

import errno
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

import driver.mirror
from common.errors import UserError
from driver.checkpoints import read_start
from driver.copies import Ownership, find_copies, identity, new_name, prune, publish, set_aside_newer
from driver.credentials import refuse_credentials
from driver.fetching import fetched_run
from driver.mirror import Mirror, open_files
from driver.mirror_start import check_mirror, start_mirror
from driver.options import parse_options
from driver.run_directory import RunDirectory
from driver.store import Store, StoreError, open_store
from tests.checkpoints import make_run, save_step


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of its own in one of two file systems."""
    return f"file://{tmp_path}/mirror" if request.param == "file" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(uri: str) -> Store:
    return open_store("--checkpoint.uri", uri)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    """Every visible file's bytes by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def publish_step(store: Store, run: RunDirectory, step: int) -> str:
    """Copies a new checkpoint of the step; the copy's name."""
    checkpoint = save_step(run, step)
    name = new_name(step)
    with open_files(run, checkpoint, {}) as files:
        publish(store, name, files)
    return name


def fetch_into(uri: str, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """What `--resume URI` makes, and what it says."""
    with fetched_run(uri, folder) as fetched:
        return contents(fetched.path), fetched.remarks


def wait(mirror: Mirror) -> list[str]:
    """Its lines, once it has done what there was to do."""
    assert mirror.wait(60, lambda: False)
    return mirror.take_lines()


def mirror_of(run: RunDirectory, store: Store, keep: int = 3) -> Mirror:
    ownership = Ownership(store, identity(run.metadata_path))
    ownership.take()
    return Mirror(store, run, ownership, keep)


def test_what_is_fetched_is_the_run_as_it_was(store: Store, run: RunDirectory, tmp_path: Path) -> None:
    run.episodes_path.write_text("Episode,Length,Reward,Loss,X-Pos,Time\n")
    run.best_policy.write_bytes(b"weights")
    mirror = mirror_of(run, store)
    mirror.start(save_step(run, 7))
    assert wait(mirror) == []
    fetched, remarks = fetch_into(store.uri, tmp_path / "new" / "runs")
    assert fetched == contents(run.path)
    assert remarks == []
    assert not (tmp_path / "new").exists()


def test_the_newest_copies_are_kept_as_many_as_checkpoints(store: Store, run: RunDirectory) -> None:
    mirror = mirror_of(run, store, keep=2)
    for step in (5, 12, 30):
        mirror.start(save_step(run, step))
        assert wait(mirror) == []
    assert [copy.step for copy in find_copies(store)] == [30, 12]


def test_what_an_interrupted_session_left_is_removed(store: Store, run: RunDirectory) -> None:
    left = new_name(99)
    store.write(f"{left}/config.yaml", b"half")
    mirror = mirror_of(run, store)
    mirror.start(save_step(run, 5))
    assert wait(mirror) == []
    assert [copy.step for copy in find_copies(store)] == [5]


DAMAGE: dict[str, tuple[Callable[[Store, str], object], str]] = {
    "incomplete": (lambda store, name: store.remove(f"{name}/manifest.json"), "it is not complete"),
    "no manifest": (lambda store, name: store.write(f"{name}/manifest.json", b"["), "its manifest is none"),
    "a file changed": (
        lambda store, name: store.write(f"{name}/run.json", bytes(len(store.read(f"{name}/run.json")))),
        "run.json has a wrong checksum",
    ),
    "a file cut short": (lambda store, name: store.write(f"{name}/config.yaml", b"env:"), "config.yaml has 4 bytes"),
    "a file missing": (lambda store, name: store.remove(f"{name}/config.yaml"), "config.yaml is missing"),
    "files outside": (
        lambda store, name: store.write(
            f"{name}/manifest.json", b'{"files": {"../../escaped": {"bytes": 1, "sha256": ""}}}'
        ),
        "outside of the run",
    ),
    "no run": (lambda store, name: store.write(f"{name}/manifest.json", b'{"files": {}}'), "it holds no run"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_newest_copy_that_is_not_whole_is_passed_over_with_a_line(
    kind: str, store: Store, run: RunDirectory, tmp_path: Path
) -> None:
    publish_step(store, run, 5)
    before = contents(run.path)
    newest = publish_step(store, run, 12)
    damage, reason = DAMAGE[kind]
    damage(store, newest)
    fetched, remarks = fetch_into(store.uri, tmp_path / "runs")
    assert fetched == before
    assert len(remarks) == 1
    assert remarks[0].startswith(f"warning: passing over {store.uri}/{newest}: ")
    assert reason in remarks[0]
    assert not (tmp_path / "escaped").exists()


def test_a_checkpoint_that_was_damaged_before_it_was_copied_is_passed_over(
    store: Store, run: RunDirectory, tmp_path: Path
) -> None:
    publish_step(store, run, 5)
    checkpoint = save_step(run, 12)
    (checkpoint / "target.pt").write_bytes(b"x")
    with open_files(run, checkpoint, {}) as files:
        publish(store, new_name(12), files)
    fetched, remarks = fetch_into(store.uri, tmp_path / "runs")
    assert any("step-000000000005" in path for path in fetched)
    assert remarks[0].endswith("the checkpoint in it is damaged")


def test_without_any_whole_copy_nothing_is_made(store: Store, run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run"):
        fetch_into(store.uri, tmp_path / "runs")
    store.remove(f"{publish_step(store, run, 5)}/manifest.json")
    with pytest.raises(UserError, match="no copy of a checkpoint there is whole"):
        fetch_into(store.uri, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_read_is_no_reason_to_take_an_older_copy(
    store: Store, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_step(store, run, 5)
    newest = publish_step(store, run, 12)
    read = Store.download

    def download(self: Store, path: str, target: Any) -> Any:
        if path.startswith(newest):
            raise StoreError("connection reset")
        return read(self, path, target)

    monkeypatch.setattr(Store, "download", download)
    with pytest.raises(UserError, match="cannot be read: connection reset"):
        fetch_into(store.uri, tmp_path / "runs")


def test_a_copy_that_goes_while_it_is_read_is_given_up_for_the_newest_then(
    store: Store, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish_step(store, run, 5)
    read, published = Store.download, list[str]()

    def download(self: Store, path: str, target: Any) -> Any:
        if not published:  # the run that goes on meanwhile
            published.append(publish_step(store, run, 12))
            store.remove_folder(first)
        return read(self, path, target)

    monkeypatch.setattr(Store, "download", download)
    fetched, remarks = fetch_into(store.uri, tmp_path / "runs")
    assert "checkpoints/step-000000000012/policy.pt" in fetched
    assert len(remarks) == 1


class _Broken(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system in memory that fails, or hangs, when it is told to; a full disk cannot be had in a test."""

    protocol = "broken"
    store: dict[str, Any] = {}  # noqa: RUF012  # overrides the other's, which is a class variable too
    pseudo_dirs = [""]  # noqa: RUF012
    error: OSError | None = None
    gate = threading.Event()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb" and path.endswith("target.pt"):
            self.gate.wait()
            if self.error is not None:
                raise self.error
        return super()._open(path, mode, **options)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Broken]]:
    fsspec.register_implementation("broken", _Broken, clobber=True)
    monkeypatch.setattr(_Broken, "error", None)
    monkeypatch.setattr(_Broken, "gate", threading.Event())
    monkeypatch.setattr(_Broken, "store", {})
    _Broken.gate.set()
    yield _Broken
    _Broken.gate.set()


def test_a_full_disk_there_is_said_each_time_and_mirroring_goes_on_when_there_is_room(
    broken: type[_Broken], run: RunDirectory
) -> None:
    store = open_store("--checkpoint.uri", "broken://there/mirror")
    mirror = mirror_of(run, store)
    mirror.start(save_step(run, 5))
    assert wait(mirror) == []
    broken.error = OSError(errno.ENOSPC, "No space left on device")
    before = contents(run.path)
    for step in (12, 13):
        mirror.start(save_step(run, step))
        lines = wait(mirror)
        assert len(lines) == 1
        assert lines[0].startswith(
            f"warning: step-{step:012d} could not be mirrored to broken://there/mirror: No space"
        )
    assert [copy.step for copy in find_copies(store) if copy.complete] == [5]
    assert before.items() <= contents(run.path).items()
    broken.error = None
    mirror.start(save_step(run, 20))
    assert wait(mirror) == []
    assert [copy.step for copy in find_copies(store)] == [20, 5]


def test_a_place_that_hangs_holds_nobody_up_and_the_newest_checkpoint_follows(
    broken: type[_Broken], run: RunDirectory
) -> None:
    store = open_store("--checkpoint.uri", "broken://there/mirror")
    mirror = mirror_of(run, store)
    broken.gate.clear()
    checkpoints = [save_step(run, step) for step in (5, 12, 13)]
    mirror.start(checkpoints[0])
    while mirror._waiting is not None:
        pass
    for checkpoint in checkpoints[1:]:
        mirror.start(checkpoint)
    assert mirror.take_lines() == [
        "warning: step-000000000012 is not mirrored: broken://there/mirror is still busy with step-000000000005"
    ]
    assert not mirror.wait(0.1, lambda: False)
    broken.gate.set()
    assert wait(mirror) == []
    assert [copy.step for copy in find_copies(store)] == [13, 5]


def test_a_checkpoint_that_is_removed_here_while_it_is_copied_is_copied_whole(
    broken: type[_Broken], run: RunDirectory, tmp_path: Path
) -> None:
    store = open_store("--checkpoint.uri", "broken://there/mirror")
    mirror = mirror_of(run, store)
    broken.gate.clear()
    checkpoint = save_step(run, 5)
    before = contents(run.path)
    mirror.start(checkpoint)
    while not any(path.endswith("state.json") for path in store.sizes()):
        pass
    for path in checkpoint.iterdir():
        path.unlink()
    broken.gate.set()
    assert wait(mirror) == []
    assert fetch_into(store.uri, tmp_path / "runs")[0] == before


def test_a_checkpoint_that_was_chosen_by_a_relative_path_is_mirrored(
    store: Store, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = save_step(run, 5)
    monkeypatch.chdir(run.path.parent)
    options = parse_options(["--resume-from", str(chosen.relative_to(run.path.parent))])
    mirror = start_mirror(store, options.run, read_start(options.run, options.checkpoint), keep=3)
    assert wait(mirror) == []
    mirror.start(save_step(options.run, 12))
    assert wait(mirror) == []
    assert mirror.mirrored == 2
    assert [copy.step for copy in find_copies(store)] == [12, 5]


@pytest.mark.parametrize("name", ["step-000000000005.replaced", ".aside-step-000000000005", "mine"])
def test_a_chosen_checkpoint_of_another_name_is_found_in_its_copy(
    name: str, store: Store, run: RunDirectory, tmp_path: Path
) -> None:
    before = contents(save_step(run, 5))
    chosen = (run.checkpoints / "step-000000000005").rename(run.checkpoints / name)
    mirror = mirror_of(run, store)
    mirror.start(chosen)
    assert wait(mirror) == []
    fetched, _ = fetch_into(store.uri, tmp_path / "runs")
    folder = "checkpoints/step-000000000005/"
    assert {path.removeprefix(folder): data for path, data in fetched.items() if path.startswith(folder)} == before


def test_an_error_that_nobody_expects_is_one_line_and_the_next_checkpoint_is_mirrored(
    store: Store, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("a library failed\nin some way")

    mirror = mirror_of(run, store)
    for name in ("publish", "prune"):
        with monkeypatch.context() as patch:
            patch.setattr(driver.mirror, name, fail)
            mirror.start(save_step(run, 5))
            (line,) = wait(mirror)
        assert line.startswith("warning: ")
        assert "RuntimeError: a library failed" in line
        assert "\n" not in line
    mirror.start(save_step(run, 12))
    assert wait(mirror) == []
    assert [copy.step for copy in find_copies(store)] == [12, 5]


def test_a_session_that_another_one_took_over_from_writes_no_more(store: Store, run: RunDirectory) -> None:
    old = mirror_of(run, store)
    old.start(save_step(run, 5))
    assert wait(old) == []
    new = mirror_of(run, store)
    for step in (30, 31):
        old.start(save_step(run, step))
        lines = wait(old)
        assert len(lines) == 1
        assert "goes on from there elsewhere" in lines[0]
    new.start(save_step(run, 12))
    assert wait(new) == []
    assert [copy.step for copy in find_copies(store)] == [12, 5]


def test_a_copy_that_was_begun_before_another_session_took_over_does_not_count(store: Store, run: RunDirectory) -> None:
    publish_step(store, run, 5)
    ownership = Ownership(store, identity(run.metadata_path))
    ownership.take()
    with open_files(run, save_step(run, 30), {}) as files:
        ownership.check()
        Ownership(store, identity(run.metadata_path)).take()
        with pytest.raises(StoreError, match="goes on from there elsewhere"):
            publish(store, new_name(30), files, ownership.check)
    assert [copy.step for copy in find_copies(store) if copy.complete] == [5]


def test_a_run_does_not_write_over_another_ones_checkpoints(store: Store, run: RunDirectory, tmp_path: Path) -> None:
    check_mirror(store.uri, RunDirectory(tmp_path / "other"), None, take_back=False)
    assert store.sizes() == {}
    mirror_of(run, store)
    publish_step(store, run, 5)
    before = store.sizes()
    for other, step in ((RunDirectory(tmp_path / "new"), None), (make_run(tmp_path / "other"), 0)):
        with pytest.raises(UserError, match=r"holds another run's checkpoints: .* --resume "):
            check_mirror(store.uri, other, step, take_back=True)
    assert store.sizes() == before


@pytest.mark.parametrize("was_there", [True, False])
def test_looking_whether_a_place_can_be_written_makes_no_folder(was_there: bool, uri: str, tmp_path: Path) -> None:
    files, root = fsspec.core.url_to_fs(uri)
    if was_there:
        files.mkdir(root)
    check_mirror(uri, RunDirectory(tmp_path / "run"), None, take_back=False)
    assert files.exists(root) == was_there
    assert not was_there or files.ls(root) == []


def test_looking_whether_a_place_can_be_written_leaves_no_folder_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "_open", full)
    with pytest.raises(UserError, match="No space left on device"):
        check_mirror(f"file://{tmp_path}/mirror", RunDirectory(tmp_path / "run"), None, take_back=False)
    assert not (tmp_path / "mirror").exists()


def test_what_another_session_wrote_meanwhile_stays(uri: str) -> None:
    store = open_store("--checkpoint.uri", uri)
    with store.leaving_no_folder():
        store.write("owner.json", b"{}")
    assert store.read("owner.json") == b"{}"


def test_a_run_that_went_on_elsewhere_is_not_gone_back_on_unasked(store: Store, run: RunDirectory) -> None:
    mirror_of(run, store)
    publish_step(store, run, 30)
    check_mirror(store.uri, run, 30, take_back=False)
    with pytest.raises(UserError, match=r"a newer checkpoint of this run, step-000000000030-.*--resume-from"):
        check_mirror(store.uri, run, 12, take_back=False)
    check_mirror(store.uri, run, 12, take_back=True)


def test_what_is_newer_than_a_chosen_checkpoint_is_set_aside_and_not_removed(
    store: Store, run: RunDirectory, tmp_path: Path
) -> None:
    older, newer = publish_step(store, run, 5), publish_step(store, run, 30)
    sizes = sum(store.sizes().values())
    assert set_aside_newer(store, 5) == [newer]
    assert [copy.name for copy in find_copies(store)] == [older]
    prune(store, 1)
    assert sum(store.sizes().values()) == sizes
    assert "checkpoints/step-000000000005/policy.pt" in fetch_into(store.uri, tmp_path / "runs")[0]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/mnt/shared", "no URI"),
        ("nothing://there/x", "nothing"),
        ("file://mnt/x", "three slashes"),
        ("file:///", "three slashes"),
        ("memory://", "name a folder"),
        ("sftp://user:secret@host/x", "holds a password"),
        ("sftp://user:secret@[::1]/x", "holds a password"),
        ("sftp://user%3Asecret@host/x", "holds a password"),
        ("s3://secret@bucket/x", "holds a password"),
        ("memory://secret@host/x", "holds a password"),
        ("simplecache::memory://a:secret@host/x", "holds a password"),
        ("simplecache::memory://secret@host/x", "holds a password"),
        ("zip://x::memory://a:secret@host/x", "holds a password"),
        ("abfs://container@account.dfs.core.windows.net/x?sig=secret", "holds a password"),
        ("file:///no/such/disk/x", "there is no folder /no/such/disk; mount it"),
        ("file:///proc/1/x", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_one_line(uri: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected) as error:
        check_mirror(uri, RunDirectory(tmp_path), None, take_back=False)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "sftp://login@host/x",
        "simplecache::sftp://login@host/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "gs://anonymous@bucket/x",
        "s3://bucket/x?region=eu-central-1&endpoint_override=localhost:9000",
        "file:///mnt/someone@work/x",
    ],
)
def test_a_name_that_is_no_secret_may_be_in_a_uri(uri: str) -> None:
    refuse_credentials("--checkpoint.uri", uri)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = {"class": "no_such_library.Files", "err": "Install no_such_library"}
    monkeypatch.setitem(known_implementations, "lost", entry)
    with pytest.raises(UserError, match="a library is missing: Install no_such_library"):
        check_mirror("lost://there/x", RunDirectory(tmp_path), None, take_back=False)
