"""What a host finds installed, and the working tree that the user has."""

import os
import subprocess
from pathlib import Path

from tests.cluster.hosts import HOME, PROJECT, USER, USER_ID
from tests.launching import ROOT

# The user's machine at home, for as long as it takes to install: the same paths, and this machine's network.
_INSTALL = f"""
set -e
mount -t tmpfs -o mode=755 none {HOME.parent}
mkdir {HOME}
mount --bind "$1" {HOME}
make -s -C {PROJECT} setup-cluster
"""


def copy_working_tree(home: Path) -> None:
    """Puts the repository into a home, as a clone with the changes that are not committed: without ignored files."""
    options = ["--archive", "--delete-after", "--filter=dir-merge,- .gitignore", "--exclude=.git", f"--chown={USER_ID}"]
    subprocess.run(["rsync", *options, f"{ROOT}/", f"{home / PROJECT.name}/"], check=True)


def install() -> Path:
    """Runs the set-up command of `cluster.onprem.yaml` once for all hosts; returns the folder that they have as .venv.

    It lies in build/, and what is installed already stays. Hosts have no way to a package index: there the same command
    has nothing left to do.
    """
    home = ROOT / "build/cluster" / USER
    (home / PROJECT.name / ".venv").mkdir(parents=True, exist_ok=True)
    copy_working_tree(home)
    environment = os.environ | {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run(["unshare", "--mount", "bash", "-c", _INSTALL, "install", str(home)], check=True, env=environment)
    return home / PROJECT.name / ".venv"
