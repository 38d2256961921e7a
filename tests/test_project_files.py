"""The project's own files: what is pinned, packaged and refused, and how `make` behaves."""

import ast
import importlib.metadata
import os
import pty
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.check_platform import compiler_problem, platform_problem, python_problem
from tests.making import environment_without_make

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


MAKE = shutil.which("make") or "make"
PINNED = {normalised(line.split("==")[0]): line.split("==")[1] for line in CONSTRAINTS}


def test_every_constraint_pins_one_public_version() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    assert PINNED["torch"] == "2.13.0"


def test_what_torch_pins_itself_is_left_to_it() -> None:
    assert [name for name in PINNED if re.match(r"(nvidia|cuda|triton)", name)] == []


def direct_requirements(*left_out: str) -> list[str]:
    """The dependencies, those of all optional groups but some included."""
    groups = PROJECT["project"]["optional-dependencies"]
    optional = [name for group, names in groups.items() if group not in left_out for name in names]
    return [*PROJECT["project"]["dependencies"], *optional]


def installed_closure() -> dict[str, str]:
    """Versions of what the direct requirements need, directly or not, without torch's CUDA packages.

    The tests' environment does without the groups `cluster`, `peers` and `storage`.
    """
    versions: dict[str, str] = {}
    pending = [Requirement(text) for text in direct_requirements("cluster", "peers", "storage")]
    while pending:
        requirement = pending.pop()
        name = normalised(requirement.name)
        if name in versions or re.match(r"nvidia|cuda|triton", name):
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        versions[name] = distribution.version.split("+")[0]
        further = map(Requirement, distribution.requires or [])
        pending += [needed for needed in further if needed.marker is None or needed.marker.evaluate({"extra": ""})]
    return versions


def test_every_direct_dependency_is_pinned() -> None:
    wanted = [*direct_requirements(), *PROJECT["build-system"]["requires"], "wheel"]
    assert {normalised(Requirement(text).name) for text in wanted} - set(PINNED) == set()


def test_what_is_installed_has_the_pinned_versions() -> None:
    installed = installed_closure()
    assert {name: PINNED.get(name) for name in installed} == installed


def test_every_package_is_listed() -> None:
    around = {"tests", "benchmarks", "examples", "scripts", "docs", "build"}
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/__init__.py")}
    assert folders - around == set(PROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("target", PROJECT["project"]["scripts"].values())
def test_an_entry_point_is_a_function_without_arguments_that_returns_a_status(target: str) -> None:
    module, function = target.split(":")
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    required = len(found.args.args) - len(found.args.defaults)
    assert (required, found.returns and ast.unparse(found.returns)) == (0, "int")


def test_only_the_tested_python_and_platform_pass() -> None:
    assert python_problem(3, 11) == ""
    assert "3.12 is not supported" in python_problem(3, 12)
    assert "make PYTHON=" in python_problem(3, 12)
    assert platform_problem("Linux", "x86_64") == ""
    assert "Darwin arm64 is not supported" in platform_problem("Darwin", "arm64")


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert "no-such-compiler is missing" in compiler_problem()


def pages() -> list[Path]:
    """Everything that is written for readers."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    relative = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make` needs, without .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("scripts", "driver", "common"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def set_up(checkout: Path, program: str) -> None:
    """Makes a folder look set up, with `program` as its launch.py."""
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (checkout / ".venv" / ".installed").touch()
    (checkout / "launch.py").write_text(program, encoding="utf-8")


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs make and waits for it."""
    return subprocess.run(
        [MAKE, *arguments],
        cwd=checkout,
        env=environment_without_make() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PYTHON": "no-such-python"}, 'Python 3.11 does not run as "no-such-python"'),
        ({"CXX": "no-such-compiler"}, "the C++ compiler no-such-compiler is missing"),
        ({"PATH": "/nowhere", "PYTHON": sys.executable, "CXX": "/bin/sh"}, "git is missing"),
    ],
)
def test_what_is_missing_is_refused_in_one_line(checkout: Path, environment: dict[str, str], message: str) -> None:
    environment = {"PYTHON": sys.executable} | environment
    finished = make(checkout, "train", **environment)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) == 1
    assert message in finished.stderr
    assert not (checkout / ".venv").exists()


def test_watching_without_a_run_is_refused_in_one_line(checkout: Path) -> None:
    set_up(checkout, "")
    finished = make(checkout, "watch")
    assert (finished.returncode, len(finished.stderr.splitlines())) == (2, 1)
    assert "there is no run" in finished.stderr


def make_run(checkout: Path, name: str, age_s: float, *, has_progress: bool = True) -> None:
    """A run that was written to so long ago, in a folder that changed just now."""
    run = checkout / "runs" / name
    run.mkdir(parents=True)
    for file in ("config.yaml", *(["progress.jsonl"] if has_progress else [])):
        (run / file).touch()
        os.utime(run / file, (time.time() - age_s,) * 2)


def test_the_newest_run_is_watched(checkout: Path) -> None:
    set_up(checkout, "")
    make_run(checkout, "b", 20)
    make_run(checkout, "c", 10, has_progress=False)
    make_run(checkout, "a", 30)
    (checkout / "runs" / "a" / "watch.mp4").touch()
    (checkout / "runs" / "no-run").mkdir()
    (checkout / "evaluate.py").write_text("import sys; print(sys.argv[1:])", encoding="utf-8")
    finished = make(checkout, "watch", "ARGS=--video x.mp4")
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == [
        "['runs/c', '--episodes', '1', '--video', 'runs/c/watch.mp4', '--video', 'x.mp4']"
    ]
    make_run(checkout, "d", 5)
    assert "'runs/d'" in make(checkout, "watch").stdout
    assert "'runs/b'" in make(checkout, "watch", "RUN=runs/b").stdout


def test_train_passes_options_on_and_reports_failure(checkout: Path) -> None:
    set_up(checkout, "import sys; print(sys.argv[1:]); sys.exit('--fail' in sys.argv)")
    finished = make(checkout, "train", "ARGS=--env.stages 1-1 1-2")
    assert finished.returncode == 0
    assert "['--env.stages', '1-1', '1-2']" in finished.stdout
    assert make(checkout, "train", "ARGS=--fail").returncode == 2


def test_ctrl_c_reaches_the_program_and_make_adds_no_message(checkout: Path) -> None:
    program = "import time\ntry:\n    print('started', flush=True)\n    time.sleep(60)\n"
    set_up(checkout, program + "except KeyboardInterrupt:\n    print('ended cleanly')\n")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", MAKE, "train"], cwd=checkout, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    output = b""
    try:
        while b"started" not in output:
            output += os.read(master, 1024)
        os.write(master, b"\x03")
        output += read_to_end(master)
    finally:
        os.close(master)
    process.wait(timeout=30)
    assert output.decode().split("started")[1].replace("^C", "").split() == ["ended", "cleanly"]


def read_to_end(terminal: int) -> bytes:
    """What still comes from a terminal until its last program ends."""
    output = b""
    while True:
        try:
            output += os.read(terminal, 1024)
        except OSError:  # Linux's way of saying that the other side is closed
            return output
