"""What holds of every cluster file in the root: Ray takes it, strangers stay outside, and it installs the project."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_files import AWS_FILE, FILES, ROOT, Config, commands, read
from tests.making import environment_without_make

TOKEN = "~/.ray/auth_token"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(params=FILES, ids=lambda path: str(path.name))
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def config(path: Path) -> Config:
    return read(path)


def check_schema(config: Config) -> None:
    """Ray's own check of a file, as far as it needs no provider."""
    prepared = prepare_config(config)
    for kind in prepared["available_node_types"].values():
        kind.setdefault("resources", {})  # what a cloud fills in
    validate_config(prepared)


def test_there_is_a_file_for_aws() -> None:
    assert AWS_FILE in FILES


def test_ray_takes_the_file_and_no_key_that_it_does_not_know(config: Config) -> None:
    check_schema(config)
    assert config["cluster_name"] == "apex-mario"
    with pytest.raises(Exception, match="max_wrokers"):
        check_schema(config | {"max_wrokers": 3})


def test_every_command_is_valid_bash(config: Config) -> None:
    assert len(commands(config)) >= 6
    for command in commands(config):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), command


def test_every_ray_asks_for_the_token(config: Config) -> None:
    starts = [
        [command for command in commands(config, f"{kind}_start_ray_commands") if "ray start" in command]
        for kind in ("head", "worker")
    ]
    assert [len(of_kind) for of_kind in starts] == [1, 1]
    for command in (*starts[0], *starts[1]):
        assert re.search(r"RAY_AUTH_MODE=token \S*ray start", command)
    assert config["file_mounts"][TOKEN] == TOKEN


def test_every_machine_keeps_the_token_to_itself_and_its_shells_use_it(config: Config) -> None:
    for kind in ("head", "worker"):
        set_up = commands(config, "setup_commands", f"{kind}_setup_commands")
        assert any(f"chmod 600 {TOKEN}" in command for command in set_up)
        assert any(re.search(r"export [^;]*RAY_AUTH_MODE=token", command) for command in set_up)


def test_the_dashboard_listens_on_loopback(config: Config) -> None:
    (start,) = [command for command in commands(config, "head_start_ray_commands") if "--head" in command]
    assert re.findall(r"--dashboard-host[= ](\S+)", start) == ["127.0.0.1"]


def test_every_mounted_path_exists(config: Config) -> None:
    local = [mounted for mounted in config["file_mounts"].values() if mounted != TOKEN]
    assert [mounted for mounted in local if not (ROOT / mounted).exists()] == []


def mount(config: Config, home: Path) -> None:
    """Copies what the file mounts into `home`, as rsync would."""
    for remote, local in config["file_mounts"].items():
        if local == TOKEN:
            continue
        target = home / remote.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / local).is_dir():
            ignore = shutil.ignore_patterns(*(pattern.strip("/") for pattern in config["rsync_exclude"]))
            shutil.copytree(ROOT / local, target, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / local, target)


def test_the_machines_get_all_that_the_project_consists_of(config: Config, tmp_path: Path) -> None:
    mount(config, tmp_path)
    setuptools: dict[str, Any] = PROJECT["tool"]["setuptools"]
    needed = [*setuptools["packages"], *(f"{module}.py" for module in setuptools["py-modules"])]
    needed += [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    needed += ["pyproject.toml", "constraints.txt", "Makefile", "scripts"]
    assert [name for name in needed if not (tmp_path / "apex-mario" / name).exists()] == []
    files = [file for package in setuptools["packages"] for file in (ROOT / package).glob("*.py")]
    assert [file for file in files if not (tmp_path / "apex-mario" / file.relative_to(ROOT)).exists()] == []
    assert not any((tmp_path / "apex-mario" / name).exists() for name in (".venv", ".git", "runs"))


def run_set_up(config: Config, kind: str, home: Path, *make_options: str) -> str:
    """Runs the set-up commands of a kind of machine in `home`; its system's packages are taken for installed.

    Returns:
        What they printed.
    """
    binaries = home / "bin"
    binaries.mkdir(exist_ok=True)
    (binaries / "sudo").write_text("#!/bin/sh\n", encoding="utf-8")
    (binaries / "make").write_text(
        f'#!/bin/sh\nexec {shutil.which("make")} {shlex.join(make_options)} "$@" PYTHON={sys.executable}\n',
        encoding="utf-8",
    )
    for program in binaries.iterdir():
        program.chmod(0o755)
    token = home / TOKEN.removeprefix("~/")
    token.parent.mkdir(exist_ok=True)
    token.touch()
    environment = environment_without_make() | {"HOME": str(home), "PATH": f"{binaries}:{os.environ['PATH']}"}
    output = ""
    for command in commands(config, "setup_commands", f"{kind}_setup_commands"):
        finished = subprocess.run(
            ["bash", "-c", command], env=environment, cwd=home, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        output += finished.stdout
    return output


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_set_up_installs_the_project_with_pinned_versions(config: Config, kind: str, tmp_path: Path) -> None:
    mount(config, tmp_path)
    printed = run_set_up(config, kind, tmp_path, "--dry-run")
    installs = [line for line in printed.splitlines() if " pip install " in line]
    assert installs
    assert all(" -c constraints.txt " in line for line in installs)
    groups = re.findall(r"-e '\.\[(\S+)\]'", printed)
    assert {"cluster", "fast"} <= {group for names in groups for group in names.split(",")}
    if config["provider"]["type"] == "aws":
        assert any("aws" in names.split(",") for names in groups)
        assert any("whl/cpu torch" in line for line in installs) == (kind == "worker")


def test_a_shell_on_a_machine_finds_ray_and_its_token_mode(config: Config, tmp_path: Path) -> None:
    mount(config, tmp_path)
    for _ in range(2):  # a second `ray up` runs the commands again
        run_set_up(config, "head", tmp_path, "--dry-run")
    ray = tmp_path / "apex-mario" / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text("#!/bin/sh\n", encoding="utf-8")
    ray.chmod(0o755)
    # As Ray calls a shell on a machine.
    shell = ["bash", "--login", "-c", "-i", "source ~/.bashrc; command -v ray; echo $RAY_AUTH_MODE"]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    answer = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(ray), "token"]
    assert (tmp_path / ".bashrc").read_text(encoding="utf-8").count("apex-mario") == 1
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_set_up_leaves_a_machine_that_can_train(path: Path, tmp_path: Path) -> None:
    """A worker's real installation, but for its system's packages: some minutes and two gigabytes."""
    config = read(path)
    mount(config, tmp_path)
    run_set_up(config, "worker", tmp_path)
    python = tmp_path / "apex-mario" / ".venv" / "bin" / "python"
    program = "import aiohttp, launch, ray, torch; print(launch.__file__, ray.__version__, torch.version.cuda)"
    answer = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    where, ray_version, cuda = answer.stdout.split()
    assert Path(where) == tmp_path / "apex-mario" / "launch.py"
    assert f"ray=={ray_version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if config["provider"]["type"] == "aws":
        assert cuda == "None"
        subprocess.run([python, "-c", "import boto3"], cwd=tmp_path, check=True)
