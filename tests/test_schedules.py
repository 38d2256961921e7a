import pytest
from gym_super_mario_bros import actions as game_actions

from common.actions import ACTION_SETS
from common.schedules import decayed_epsilon, ladder_epsilon, linear


def test_ladder_goes_from_epsilon_to_epsilon_to_the_1_plus_alpha() -> None:
    assert ladder_epsilon(0, 8, 0.4, 7.0) == pytest.approx(0.4)
    assert ladder_epsilon(7, 8, 0.4, 7.0) == pytest.approx(0.4**8)


def test_ladder_rung_by_hand() -> None:
    # 0.5 ** (1 + 6 * 1 / (4 - 1)) = 0.5 ** 3
    assert ladder_epsilon(1, 4, 0.5, 6.0) == pytest.approx(0.125)


def test_a_single_environment_explores_with_the_base_epsilon() -> None:
    assert ladder_epsilon(0, 1, 0.4, 7.0) == pytest.approx(0.4)


@pytest.mark.parametrize("index", [-1, 3])
def test_ladder_refuses_an_index_beyond_the_last_environment(index: int) -> None:
    with pytest.raises(ValueError, match="not one of 3"):
        ladder_epsilon(index, 3, 0.4, 7.0)


def test_decay_of_the_tutorials_reaches_its_floor_after_39119_updates() -> None:
    # ln(0.02) / ln(0.9999) = 39,118.3
    assert decayed_epsilon(0, 1.0, 0.02, 0.9999) == 1.0
    assert decayed_epsilon(1, 1.0, 0.02, 0.9999) == pytest.approx(0.9999)
    assert decayed_epsilon(39_118, 1.0, 0.02, 0.9999) > 0.02
    assert decayed_epsilon(39_119, 1.0, 0.02, 0.9999) == 0.02


def test_decay_starts_at_its_start() -> None:
    assert decayed_epsilon(2, 0.5, 0.02, 0.5) == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("name", "buttons"),
    [
        ("right_only", game_actions.RIGHT_ONLY),
        ("simple", game_actions.SIMPLE_MOVEMENT),
        ("complex", game_actions.COMPLEX_MOVEMENT),
    ],
)
def test_action_names_are_the_games_in_its_order(name: str, buttons: list[list[str]]) -> None:
    assert list(ACTION_SETS[name]) == ["+".join(pressed) for pressed in buttons]  # type: ignore[index]


def test_a_line_ends_where_it_should_and_stays_there() -> None:
    values = [linear(step, first=4.0, last=1.0, steps=6) for step in (0, 2, 6, 100)]
    assert values == pytest.approx([4.0, 3.0, 1.0, 1.0])
