"""Says in one line what `make setup` lacks on this machine, and nothing where all is there.

Only syntax of Python 3.6 is used: the interpreter's version is one of the things to complain about.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import sys
import sysconfig

TESTED = "Python 3.11 on Linux x86-64 (Debian 12)"


def python_problem(major: int, minor: int) -> str:
    """What is wrong with this version of Python; empty if nothing is."""
    if (major, minor) == (3, 11):
        return ""
    return f"Python {major}.{minor} is not supported, tested is {TESTED}: name one with make PYTHON=/path/to/python3.11"


def platform_problem(system: str, machine: str) -> str:
    """What is wrong with this operating system and processor; empty if nothing is."""
    if (system, machine) == ("Linux", "x86_64"):
        return ""
    return f"{system} {machine} is not supported, tested is {TESTED}"


def venv_problem() -> str:
    """Whether Debian left the pip bootstrap out of Python's standard library; empty if not."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return ""
    return "Python's venv module is missing: install it (on Debian, apt install python3-venv)"


def compiler_problem() -> str:
    """Whether the C++ compiler that setuptools will call for nes-py is missing; empty if not."""
    command = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    compiler = shlex.split(command)[0]
    if shutil.which(compiler):
        return ""
    return f"the C++ compiler {compiler} is missing: install it (on Debian, apt install g++) or set CXX"


def git_problem() -> str:
    """Whether git is missing; empty if not."""
    return "" if shutil.which("git") else "git is missing: install it (on Debian, apt install git)"


def main() -> int:
    """Prints all problems on one line, or nothing.

    Returns:
        0, since what is printed is the answer: another status means that Python itself did not run.
    """
    problems = [
        python_problem(sys.version_info[0], sys.version_info[1]),
        platform_problem(platform.system(), platform.machine()),
        venv_problem(),
        compiler_problem(),
        git_problem(),
    ]
    line = "; ".join(filter(None, problems))
    if line:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
