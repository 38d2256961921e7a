"""Runs make from within the tests, which make may have started."""

import os
from typing import Final

_MAKES_OWN: Final = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
_OURS: Final = ("ARGS", "RUN", "BENCH")  # what `make test ARGS=…` is given, it exports


def environment_without_make() -> dict[str, str]:
    """This process's environment less what a make that runs the tests put there."""
    return {name: value for name, value in os.environ.items() if name not in (*_MAKES_OWN, *_OURS)}
