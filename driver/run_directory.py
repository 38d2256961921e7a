"""The folder of one run: what lies where, who may write into it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_all_atomically

_LOCK = ".lock"


class RunDirectory:
    """Paths within a run's folder.

    config.yaml    the resolved settings; its presence makes a folder a run
    run.json       preset, version, command and commit
    progress.jsonl one line every few seconds
    evaluations.jsonl  one line per evaluation and stage
    mario.csv      one row per training episode
    mario.log      what the driver said
    checkpoints/   one folder per checkpoint
    best.pt        the best evaluated policy, with its sidecar best.json
    events.out.*   TensorBoard
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.metadata_path = path / "run.json"
        self.progress_path = path / "progress.jsonl"
        self.evaluations_path = path / "evaluations.jsonl"
        self.episodes_path = path / "mario.csv"
        self.log_path = path / "mario.log"
        self.checkpoints = path / "checkpoints"
        self.best_policy = path / "best.pt"

    @property
    def was_worked_on(self) -> bool:
        """Whether a session began here."""
        return (self.path / _LOCK).exists()

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.exists()

    @property
    def holds_any_of_a_run(self) -> bool:
        """Whether one of the files that identify a run is here, be it damaged or without the other."""
        return self.config_path.exists() or self.metadata_path.exists()

    def check_free(self) -> None:
        """UserError where a new run could not be put."""
        try:
            os.fsencode(self.path).decode()
            self.path.exists()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise UserError(f"--run-dir {str(self.path)!a} is no name for a folder: {reason}") from None
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--run-dir {self.path} is a file; name a folder")
        parent = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"--run-dir {self.path} cannot be made: {parent} is not writable")
        if self.holds_run:
            raise UserError(
                f"{self.path} holds a run already; add --resume to go on with it, or name another --run-dir"
            )
        if self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"--run-dir {self.path} holds other files; name a new or an empty folder")

    def create(self, config: str, metadata: dict[str, Any]) -> None:
        """Makes the folder and writes what identifies the run; UserError where it cannot be."""
        self.check_free()
        text = json.dumps(metadata, indent=2) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_all_atomically({self.metadata_path: text.encode(), self.config_path: config.encode()})
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()  # if it is empty, which the next try wants it to be
            raise UserError(f"cannot write the run directory {self.path}: {error.strerror}") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other drivers out; UserError if one is at work here."""
        try:
            file = (self.path / _LOCK).open("w")
        except OSError as error:
            raise UserError(f"cannot write into the run directory {self.path}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another launch.py is at work in {self.path}; end it first") from None
            yield

    def check_idle(self) -> None:
        """UserError if a driver is at work here, which may still write a newer checkpoint."""
        if self.was_worked_on:
            with self.lock():
                pass

    def check_resumable(self) -> None:
        """UserError unless there is a run here that can be written on."""
        if not self.path.is_dir():
            raise UserError(f"--resume: there is no folder {self.path}")
        if not self.holds_run or not self.metadata_path.exists():
            raise UserError(f"--resume: {self.path} holds no run (no config.yaml and run.json in it)")
        if not os.access(self.path, os.W_OK):
            raise UserError(f"--resume: {self.path} cannot be written")

    def read_config(self) -> bytes:
        """What is in `config.yaml` now; UserError where it cannot be read."""
        try:
            return self.config_path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.config_path} cannot be read: {error.strerror}") from None

    def read_metadata(self) -> dict[str, Any]:
        """What `create` wrote."""
        try:
            metadata = json.loads(self.metadata_path.read_text(encoding="utf-8"))
            if isinstance(metadata, dict) and isinstance(metadata.get("preset"), str):
                return metadata
        except (OSError, ValueError):
            pass
        raise UserError(f"{self.metadata_path} is damaged; start a new run, or restore the file")


def newest_run(root: Path) -> Path:
    """The run under `root` that was written to last; UserError if there is none."""
    # Names with a dot are of folders that are being fetched.
    runs = [path for path in root.glob("[!.]*") if RunDirectory(path).holds_run] if root.is_dir() else []
    if not runs:
        raise UserError(f"--resume: there is no run under {root}/; name its folder with --resume DIR")
    return max(runs, key=_last_written)


def _last_written(path: Path) -> float:
    run = RunDirectory(path)
    newest = run.progress_path if run.progress_path.exists() else run.config_path
    return newest.stat().st_mtime
