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
    return [line for line in lines if line.startswith("note: stage")]


@pytest.mark.parametrize("actions", ["right_only", "simple"])
def test_a_stage_that_wants_down_is_told_where_no_action_presses_it(actions: ActionSet) -> None:
    needs = f"note: stage 8-4 cannot be cleared with --env.actions {actions}, it needs complex"
    assert notes(EnvConfig(stages=("1-1", "8-4"), actions=actions)) == [needs]


def test_nothing_is_told_where_the_actions_suffice() -> None:
    assert notes(EnvConfig(stages=("8-4",), actions="complex")) == []
    assert notes(EnvConfig(stages=("1-1", "4-4"))) == []
    assert notes(EnvConfig(name="gridworld", stages=("8-4",), show_buttons=False)) == []
