"""A disk of a few megabytes: memory, mounted where only the test and what it starts see it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from tests.launching import ROOT


class SmallDisk:
    """The disk, seen from outside under `path`, and from programs that it starts under `folder`."""

    def __init__(self, folder: Path, keeper: int) -> None:
        self.folder = folder
        self._keeper = keeper
        self._started: list[subprocess.Popen[str]] = []

    @property
    def path(self) -> Path:
        """Where this process finds what is on the disk."""
        return Path(f"/proc/{self._keeper}/root{self.folder}")

    def start(self, program: str, *arguments: str, out: IO[str] | int = subprocess.PIPE) -> "subprocess.Popen[str]":
        """A running program of ours that finds the disk at `folder`."""
        enter = ["nsenter", "--mount", *_IN_OWN_NAMESPACE, f"--target={self._keeper}", f"--wd={ROOT}"]
        process = subprocess.Popen(
            [*enter, sys.executable, str(ROOT / program), *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends what a test that failed left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def run(self, *command: str) -> None:
        """Runs a command that finds the disk at `folder`."""
        enter = ["nsenter", "--mount", *_IN_OWN_NAMESPACE, f"--target={self._keeper}"]
        subprocess.run([*enter, *command], check=True)

    def fill(self) -> Path:
        """Takes all the room that is left; returns the file that has it."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return filler


# Who is not root may mount in a user namespace.
_IN_OWN_NAMESPACE = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
_NEW_NAMESPACE = [] if os.geteuid() == 0 else ["--map-root-user"]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounts one at a folder that is there."""
    script = f'mount -t tmpfs -o size={megabytes}m none "$0" && echo mounted && exec sleep infinity'
    command = ["unshare", "--mount", *_NEW_NAMESPACE, "sh", "-c", script, str(folder)]
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    try:
        assert keeper.stdout.readline() == "mounted\n", f"cannot mount: {keeper.stderr.read()}"
        disk = SmallDisk(folder, keeper.pid)
        with closing(disk):
            yield disk
    finally:
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()
        keeper.stdout.close()
        keeper.stderr.close()
