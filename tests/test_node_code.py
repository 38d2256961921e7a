"""What code a node runs, and how a difference is said."""

import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from driver import node_code
from driver.node_code import describe_code, difference
from tests.launching import ROOT


def test_every_source_file_and_what_it_needs_is_in_it() -> None:
    code = describe_code()
    for package in node_code.PACKAGES:
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert files <= code.keys()
        assert files
    assert code["torch"][0].isdigit()
    assert "+" not in code["torch"]
    assert difference(code, dict(code)) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"actors/actor.py": "x"}, "actors/actor.py is not the same"),
        ({"actors/actor.py": "x", "replay/shard.py": "y"}, "actors/actor.py and 1 more are not the same"),
        ({"actors/new.py": "x"}, "actors/new.py is not the same"),
        ({"torch": "1.0"}, "torch 1.0 instead of 2.0"),
        ({"lz4": "none"}, "lz4 none instead of 4"),
        ({"lz4": "5", "actors/actor.py": "x"}, "actors/actor.py is not the same, lz4 5 instead of 4"),
    ],
)
def test_a_difference_is_said_in_words(changed: dict[str, str], words: str) -> None:
    ours = {"torch": "2.0", "lz4": "4", "actors/actor.py": "a", "replay/shard.py": "b"}
    assert difference(ours, ours | changed) == words


def test_it_tells_of_a_process_that_has_none_of_this_code(tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(node_code)
    pickled = tmp_path / "function"
    try:
        pickled.write_bytes(cloudpickle.dumps(describe_code))
    finally:
        cloudpickle.unregister_pickle_by_value(node_code)
    code = (
        "import sys, importlib.util; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"from ray import cloudpickle; print(cloudpickle.loads(open({str(pickled)!r}, 'rb').read())())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'Python': '3.11" in done.stdout
    assert "actors/" not in done.stdout
