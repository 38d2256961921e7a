"""`launch.py --resume` for real: what a run that ended goes on with."""

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.launching import GRID, finish, progress, start, start_raw

_LONGEST_EPISODE = 20
_ENVIRONMENTS = 4


class Resumed(NamedTuple):
    """A run of 400 updates that was resumed for 100 more."""

    run: Path
    last: dict[str, Any]  # line of progress of the first session
    table: bytes  # `mario.csv` after it
    out: str  # what the second session said


def train_and_resume(run: Path, option: str) -> Resumed:
    options = [option, "--replay.min-size", "1500", "--env.max-steps", str(_LONGEST_EPISODE)]
    status, _, err = finish(start(run, *GRID, *options, "--max-updates", "400"))
    assert (status, err) == (0, "")
    last, table = progress(run)[-1], (run / "mario.csv").read_bytes()
    assert (run / "mario.log").stat().st_size > 0
    assert not (run / "run.log").exists()
    status, out, err = finish(start_raw("--resume", str(run), "--max-updates", "500"))
    assert (status, err) == (0, "")
    return Resumed(run, last, table, out)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    return train_and_resume(tmp_path_factory.mktemp("resumed") / "run", "--checkpoint.replay")


def test_a_resumed_run_goes_on_with_the_replays_contents(resumed: Resumed) -> None:
    check_it_went_on(resumed)
    assert "the replay goes on as it was" in resumed.out
    # 400 updates of 16 at 2 samples per insert left 3,200 transitions or more; old ones may have to make room.
    assert progress(resumed.run)[-1]["replay_size"] > resumed.last["replay_size"] - 100


@pytest.mark.slow
def test_a_resumed_run_whose_replay_was_not_kept_fills_it_anew(tmp_path: Path) -> None:
    resumed = train_and_resume(tmp_path / "run", "--checkpoint.no-replay")
    check_it_went_on(resumed)
    assert "the replay fills anew: the checkpoint holds no replay" in resumed.out
    # A fresh replay takes 1,500 before its first batch and holds enough for the 100 updates then.
    assert 1500 <= progress(resumed.run)[-1]["replay_size"] < resumed.last["replay_size"] - 100


def check_it_went_on(resumed: Resumed) -> None:
    # Those of both actors, or of one where the other has not begun before this short run ends.
    assert re.search(rf"the actors' episodes go on where they were \([24] of {_ENVIRONMENTS}\)", resumed.out)
    now = progress(resumed.run)[-1]
    assert now["restarts"] == 0
    assert now["updates"] >= 500
    assert now["samples_per_insert"] == pytest.approx(2, rel=0.2)


def test_a_run_writes_a_row_per_episode_and_its_continuation_goes_on(resumed: Resumed) -> None:
    first_session = rows(resumed.table)
    assert [int(row["Episode"]) for row in first_session] == list(range(1, resumed.last["episodes"] + 1))
    # At most what the unfinished episodes have taken; nothing if all ended with the run.
    unfinished = resumed.last["env_steps"] - sum(int(row["Length"]) for row in first_session)
    assert 0 <= unfinished <= _ENVIRONMENTS * _LONGEST_EPISODE
    assert first_session[0]["Loss"] == ""
    trained = [float(row["Loss"]) for row in first_session if row["Loss"]]
    assert trained
    assert all(loss > 0 for loss in trained)

    table = (resumed.run / "mario.csv").read_bytes()
    assert table.startswith(resumed.table)
    both = rows(table)
    assert [int(row["Episode"]) for row in both] == list(range(1, progress(resumed.run)[-1]["episodes"] + 1))
    assert len(both) > len(first_session)


def rows(table: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(table.decode().splitlines()))
