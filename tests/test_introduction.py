"""What a run tells its user before it begins."""

from dataclasses import replace

import pytest

from common.actions import ActionSet
from common.config import Config, EnvConfig
from driver.introduction import introduction
from driver.plan import Plan
from driver.ray_session import ClusterSize, Session


def notes(env: EnvConfig) -> list[str]:
    session = Session(None, ClusterSize(nodes=1, cpus=2, gpus=0, memory_bytes=10**9), None)
    lines = introduction(replace(Config(), env=env), Plan(2, "cpu", 1, 1, "fceumm"), session, None)
    return [line for line in lines if line.startswith("note: no way")]


@pytest.mark.parametrize("actions", ["right_only", "simple"])
def test_a_stage_without_a_known_way_is_told_with_the_actions_that_have_one(actions: ActionSet) -> None:
    needs = f"note: no way through 8-4 is known with --env.actions {actions}: take complex"
    assert notes(EnvConfig(stages=("1-1", "8-4"), actions=actions)) == [needs]


def test_a_maze_is_told_with_the_actions_that_a_search_found_its_way_with() -> None:
    needs = "note: no way through 4-4 is known with --env.actions right_only: take simple"
    assert notes(EnvConfig(stages=("4-4",))) == [needs]


def test_nothing_is_told_where_the_actions_suffice() -> None:
    assert notes(EnvConfig(stages=("8-4",), actions="complex")) == []
    assert notes(EnvConfig(stages=("4-4",), actions="simple")) == []
    assert notes(EnvConfig(stages=("1-1", "7-4"))) == []
    assert notes(EnvConfig(name="gridworld", stages=("8-4",), show_buttons=False)) == []
