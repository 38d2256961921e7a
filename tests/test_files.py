"""Files that are written beside and take their place at the end."""

import os
from pathlib import Path

import pytest

from common.files import replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_text("old")
    with replacing(path) as file:
        assert file.suffix == ".gif"
        file.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.gif"])


@pytest.mark.parametrize("old", [["a.gif"], []], ids=["a file that was there", "none"])
def test_what_fails_or_is_interrupted_leaves_what_was_there_and_nothing_else(old: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    for name in old:
        (tmp_path / name).write_text("old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == old
    assert all((tmp_path / name).read_text() == "old" for name in old)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "a.json"
    link.symlink_to("there/b.json")
    for text in ("first", "second"):
        with replacing(link) as file:
            file.write_text(text)
        assert (link.is_symlink(), (tmp_path / "there" / "b.json").read_text()) == (True, text)
    assert names(tmp_path / "there") == ["b.json"]


def test_the_suffix_is_that_of_the_name_that_was_given(tmp_path: Path) -> None:
    link = tmp_path / "a.gif"
    link.symlink_to("blob")
    with replacing(link) as file:
        assert file.suffix == ".gif"
        file.write_text("new")
    assert (tmp_path / "blob").read_text() == "new"


def test_a_stream_that_was_sent_to_a_file_stays_that_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        with replacing(Path(f"/dev/fd/{out.fileno()}")) as file:
            file.write_text("text")
        assert os.fstat(out.fileno()).st_ino == (tmp_path / "out").stat().st_ino
    assert (tmp_path / "out").read_text() == "text"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with replacing(pipe) as file:
        file.write_text("text")
    assert (os.read(reader, 9), pipe.is_fifo()) == (b"text", True)
    os.close(reader)


def test_a_file_in_a_folder_that_takes_no_other_one_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with replacing(path) as file:
        file.write_text("new")
    assert (file, path.read_text()) == (path, "new")
