"""Wrong actions are tried at every step, by a policy whose fate is known: who only walks dies at the first Goomba."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.environment import environment_spec
from benchmarks.slips import Slips, SlipSearch, main, one_stage, summary
from common.config import EnvConfig
from common.networks import build_network
from common.policy import Policy
from driver.protocol import Protocol
from tests.cores import needs_fceumm

_RIGHT = 1
_FIRST_GOOMBA = range(250, 350)  # x


class _Walker:
    """Holds right, whatever it sees."""

    spec = environment_spec()

    def q_values(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.tile(np.eye(self.spec.num_actions, dtype=np.float32)[_RIGHT], (len(states), 1))


@pytest.fixture(scope="module")
def walks() -> dict[int, Slips]:
    """What is found, by how many steps after a wrong action a death counts."""
    protocol = Protocol(EnvConfig(core="fceumm", noop_max=0), epsilon=0.0, episodes=1, seed=0)
    found = {}
    for ahead in (1, 400):
        search = SlipSearch(cast(Policy, _Walker()), protocol, ahead, rescues=5 if ahead == 1 else 0)
        found[ahead] = search.search(0)
        search.close()
    return found


@needs_fceumm
def test_every_other_action_is_tried_at_every_step(walks: dict[int, Slips]) -> None:
    for slips in walks.values():
        assert not slips.clear
        assert slips.tried == 4 * slips.steps
        assert slips.survival == 0.0


@needs_fceumm
def test_a_death_counts_against_the_wrong_action_that_led_to_it(walks: dict[int, Slips]) -> None:
    assert 1 <= sum(walks[1].fatal.values()) <= 8  # the last steps' alone
    assert all(place + 64 > _FIRST_GOOMBA.start and place < _FIRST_GOOMBA.stop for place in walks[1].fatal)
    assert sum(walks[400].fatal.values()) > 0.9 * walks[400].tried  # no walker gets far, whatever it did once


@needs_fceumm
def test_nobody_survives_the_last_step_before_a_death_and_only_where_asked_it_is_tried(walks: dict[int, Slips]) -> None:
    fatal = walks[1].each
    assert [each.greedy for each in fatal] == ["right"] * len(fatal)
    assert {each.steps for each in fatal} == {1}
    assert {each.rescued for each in fatal} == {0}
    assert {each.rescued for each in walks[400].each} == {None}
    assert "no random continuation survived" in summary([walks[1]])


def test_the_summary_says_how_many_kill_and_where() -> None:
    clean, risky = Slips(100, True, 400, {}, 1.0, []), Slips(100, True, 400, {64: 3, 128: 1}, 0.992, [])
    text = summary([clean, risky])
    assert "4 of 800 wrong actions kill: 5.0 of 1,000" in text
    assert "99.6% of episodes" in text
    assert "   64  1.5 per start" in text


def test_one_stage_is_searched_that_of_training_or_its_first() -> None:
    def stages(*trained: str, asked: str | None) -> tuple[str, ...]:
        network = build_network(_Walker.spec, dueling=False, seed=0)
        return one_stage(Policy(network, _Walker.spec, {"env": {"stages": trained}}), asked).env.stages

    assert stages("1-2", asked=None) == ("1-2",)
    assert stages("1-3", "1-2", asked=None) == ("1-3",)
    assert stages("1-3", "1-2", asked="1-2") == ("1-2",)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "there is no nowhere"),
        (["pretrained/1-1.pt", "--stage", "9-9"], "9-9"),
        (["pretrained/1-1.pt", "--stage", "all"], "one stage is searched at a time"),
        (["pretrained/1-1.pt", "--stage", "game"], "one stage is searched at a time"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[Any]) -> None:
    root = Path(__file__).parent.parent
    paths = [str(root / part) if part.endswith(".pt") else part for part in arguments]
    assert main(paths) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert reason in said
