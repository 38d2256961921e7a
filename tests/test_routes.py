"""The search for ways through stages: what it finds is played again where agents play, and the published ways hold."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actors.environment import make_environment
from benchmarks import routes
from benchmarks.route_search import FRAME_SKIP, Route, RouteSearch
from benchmarks.routes import RESULTS, actions_of, clears, find_route, left_to_search, main
from common.actions import ACTION_SETS, NEEDED_ACTIONS
from tests.cores import needs_fceumm
from tests.launching import ROOT, descendants, wait_for

pytestmark = needs_fceumm

PUBLISHED: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
WITH_WAY = [stage for stage, result in PUBLISHED.items() if result["actions"]]


def test_the_way_to_the_furthest_place_leads_there_from_the_stages_start() -> None:
    search = RouteSearch("1-1", "right_only", seed=0)
    route = search.search(600)
    search.close()
    assert not route.clear
    assert 600 <= route.tried < 700
    env = make_environment(core="fceumm", frame_skip=FRAME_SKIP, noop_max=0)
    env.reset()
    steps = [env.step(action) for action in route.actions]
    env.close()
    assert not any(terminated for _, _, terminated, _, _ in steps)
    assert steps[-1][4]["x_pos"] // 16 == route.furthest // 16 > 20


@pytest.mark.parametrize("stage", WITH_WAY[:1] + WITH_WAY[-1:])
def test_published_ways_clear_their_stages(stage: str) -> None:
    _check_published(stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", WITH_WAY)
def test_every_published_way_clears_its_stage(stage: str) -> None:
    _check_published(stage)


def test_larger_action_sets_are_tried_until_one_clears_where_agents_play(monkeypatch: pytest.MonkeyPatch) -> None:
    class Search:
        def __init__(self, stage: str, actions: str, seed: int) -> None:
            self._clear = actions == "simple"

        def search(self, steps: int) -> Route:
            return Route(self._clear, [5, 11], steps, 40)

        def close(self) -> None:
            pass

    monkeypatch.setattr(routes, "RouteSearch", Search)
    monkeypatch.setattr(routes, "clears", lambda *_: True)
    result = find_route("8-4", 9, 3)
    assert (result["actions"], result["route"], result["seed"]) == ("simple", "5b", 3)
    assert result["tried"] == {"right_only": 9, "simple": 9}
    monkeypatch.setattr(routes, "clears", lambda *_: False)
    result = find_route("8-4", 9, 3)
    assert (result["actions"], result["route"], list(result["tried"])) == (None, "", list(ACTION_SETS))


def test_stages_without_a_way_are_searched_again_for_longer() -> None:
    results = {
        "1-1": {"actions": "right_only", "tried": {"right_only": 5}},
        "8-4": {"actions": None, "tried": {"right_only": 60, "simple": 61, "complex": 60}},
    }
    assert left_to_search(results, ["1-1", "1-2", "8-4", "1-2"], 50) == ["1-2"]
    assert left_to_search(results, ["1-1", "1-2", "8-4"], 61) == ["1-2", "8-4"]


def test_bad_input_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--stages", "9-1"])
    assert "9-1" in capsys.readouterr().err
    damaged = tmp_path / "routes.json"
    damaged.write_text("{")
    assert main(["--stages", "1-1", "--out", str(damaged)]) == 2
    error = capsys.readouterr().err
    assert "routes.json cannot be read" in error
    assert error.count("\n") == 1


def test_an_interrupt_ends_the_search_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.routes", "--stages", "8-4", "--out", str(tmp_path / "routes.json")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: any("benchmarks.routes" in title for title in descendants(process.pid).values()), process)
        time.sleep(0.5)  # for the searching process to begin
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, error.count("\n")) == (130, 1), error
    assert "interrupted" in error


def _check_published(stage: str) -> None:
    result = PUBLISHED[stage]
    route = actions_of(result["route"])
    assert clears(stage, result["actions"], route)
    assert not clears(stage, result["actions"], route[:-1])
    smaller = list(ACTION_SETS)[: list(ACTION_SETS).index(result["actions"])]
    assert list(result["tried"]) == [*smaller, result["actions"]]


def test_what_a_training_says_of_a_stages_actions_is_what_was_found() -> None:
    found = {stage: result["actions"] for stage, result in PUBLISHED.items() if result["actions"]}
    assert found == {stage: NEEDED_ACTIONS.get(stage, "right_only") for stage in found}


def test_the_readme_says_how_many_stages_have_a_way_with_the_default_actions() -> None:
    ways = sum(result["actions"] == "right_only" for result in PUBLISHED.values())
    assert f"{ways} of the 32 stages were shown to have a way with `right_only`" in (ROOT / "README.md").read_text()
