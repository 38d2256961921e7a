"""Roles do not know each other, and Ray stands in the shells, the driver and `launch.py` alone."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
PACKAGES: list[str] = _SETUPTOOLS["packages"]
PROGRAMS: list[str] = _SETUPTOOLS["py-modules"]
OURS = {*PACKAGES, *PROGRAMS, "tests", "benchmarks", "examples", "scripts"}

# Which of our top-level packages each of them may import, itself included.
MAY_IMPORT = {
    "common": {"common"},
    "actors": {"actors", "common"},
    "replay": {"replay", "common"},
    "learner": {"learner", "common"},
    "driver": {"driver", "actors", "replay", "learner", "common"},
    "launch": {"driver", "actors", "replay", "learner", "common"},
    "evaluate": {"driver", "actors", "replay", "learner", "common"},
}


def product_files() -> list[Path]:
    """All source files that are installed, relative to the root."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in [*files, *(ROOT / f"{name}.py" for name in PROGRAMS)])


def module_name(path: Path) -> str:
    """`replay/shard.py` -> `replay.shard`, `replay/__init__.py` -> `replay`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_shell(module: str) -> bool:
    """Whether a module is a role's Ray shell."""
    return module.split(".")[-1].startswith("remote")


def may_import_ray(module: str) -> bool:
    """Whether `import ray` may stand in a module."""
    return is_shell(module) or module.split(".")[0] in {"driver", "launch"}


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever in it; `from a import b` as `a.b`.

    Args:
        source: the module's text.
        package: the package that relative imports start from.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            levels = package.split(".")
            base = ".".join(levels[: len(levels) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, [base, node.module]))
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            yield ast.unparse(node.args[0]).strip("'\"")


def violations(module: str, source: str, package: str) -> list[str]:
    """What a module imports and must not."""
    top = module.split(".")[0]
    wrong = []
    for name in imports(source, package):
        first = name.split(".")[0]
        if first in OURS and first not in MAY_IMPORT[top]:
            wrong.append(f"{module} imports {name}: {top} may import only {sorted(MAY_IMPORT[top])} of ours")
        if first == "ray" and not may_import_ray(module):
            wrong.append(f"{module} imports ray, which only */remote*.py, driver/ and launch.py may")
        if first in OURS and any(map(is_shell, name.split("."))) and not may_import_ray(module):
            wrong.append(f"{module} imports {name}, a Ray shell")
    return wrong


@pytest.mark.parametrize("path", product_files(), ids=str)
def test_a_module_imports_only_what_its_place_allows(path: Path) -> None:
    package = ".".join(path.parts[:-1])
    assert violations(module_name(path), (ROOT / path).read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("common.types", "import actors.actor"),
        ("actors.actor", "from replay.shard import ReplayShard"),
        ("replay.client", "from learner import learner"),
        ("learner.loss", "import launch"),
        ("driver.plan", "import tests.helpers"),
        ("actors.actor", "def play() -> None:\n    import ray"),
        ("actors.actor", "from .remote import RemoteActor"),
        ("evaluate", "from ray.util import state"),
        ("learner.learner", "from learner import remote"),
        ("replay.shard", "import importlib\nimportlib.import_module('ray')"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, source: str) -> None:
    assert len(violations(module, source, module.rpartition(".")[0])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("actors.remote", "import ray\nfrom actors.actor import Actor"),
        ("driver.roles", "import ray\nfrom replay.remote import RemoteReplayShard"),
        ("learner.loss", "import torch\nfrom common import config\nfrom . import learner"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert violations(module, source, module.rpartition(".")[0]) == []


def test_everything_that_needs_no_ray_loads_none() -> None:
    modules = [name for name in map(module_name, product_files()) if not may_import_ray(name)]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint('ray' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert "evaluate" in modules
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "False\n", "")


def test_the_update_needs_torch_and_numpy_alone() -> None:
    modules = ["learner.learner", "learner.feeder", "common.networks", "common.types", "benchmarks.learner"]
    blocked = ["ray", "lz4", "cv2", "gym", "gym_super_mario_bros", "nes_py", "yaml", "tyro", "rich", "av", "matplotlib"]
    code = (
        "import importlib, sys\n"
        "modules, blocked = (text.split(',') for text in sys.argv[1:])\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"  # importing one of them raises ImportError
        "for name in modules: importlib.import_module(name)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, ",".join(modules), ",".join(blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
