"""Random shifts of the states that are trained on."""

import numpy as np
import pytest
import torch

from common.types import BUTTON_PIXELS
from learner.augmentation import _index, draw_shifts, shift
from tests.random_batches import MARIO_SPEC, random_batch
from tests.test_learner import make_learner


def random_states(size: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).integers(0, 256, (size, 2, 20, 16), np.uint8))


@pytest.mark.parametrize("by", [(0, 0), (3, -2), (-4, 4), (2, 0), (0, -1)])
def test_a_shift_moves_the_picture_and_repeats_its_edges(by: tuple[int, int]) -> None:
    states = random_states(1)
    moved = shift(states, np.array([by]))
    for y in range(BUTTON_PIXELS, 20):
        for x in range(16):
            old = states[0, :, np.clip(y + by[0], 0, 19), np.clip(x + by[1], 0, 15)]
            assert torch.equal(moved[0, :, y, x], old), (y, x)


def test_the_rows_that_show_buttons_stay() -> None:
    states = random_states(3)
    moved = shift(states, np.array([[4, 4], [-4, 1], [1, -3]]))
    assert torch.equal(moved[:, :, :BUTTON_PIXELS], states[:, :, :BUTTON_PIXELS])


def test_the_way_of_gpus_gives_the_same_pictures() -> None:
    states, by = random_states(16), draw_shifts(np.random.default_rng(1), 16, 4)
    below = np.s_[:, :, BUTTON_PIXELS:]
    assert torch.equal(_index(states, by)[below], shift(states, by)[below])


def test_shifts_are_drawn_evenly_to_both_sides() -> None:
    drawn = draw_shifts(np.random.default_rng(0), 9_000, 4)
    assert drawn.shape == (9_000, 2)
    for axis in range(2):
        values, counts = np.unique(drawn[:, axis], return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert counts.min() > 800


def test_both_states_of_a_transition_and_all_transitions_have_shifts_of_their_own() -> None:
    learner = make_learner(MARIO_SPEC, random_shift=4)
    batch = random_batch(MARIO_SPEC, seed=0)
    alike = batch._replace(s_tm1=np.repeat(batch.s_tm1[:1], 16, axis=0), s_t=np.repeat(batch.s_tm1[:1], 16, axis=0))
    inputs = learner.prepare(alike).inputs
    pictures = torch.cat([inputs.s_tm1, inputs.s_t]).flatten(1)
    assert len(torch.unique(pictures, dim=0)) > 20


def test_a_learner_that_goes_on_from_a_state_shifts_as_the_one_before_would_have() -> None:
    batches = [random_batch(MARIO_SPEC, seed=seed) for seed in range(4)]
    first = make_learner(MARIO_SPEC, random_shift=4)
    for batch in batches[:2]:
        first.update(batch)
    second = make_learner(MARIO_SPEC, random_shift=4)
    second.load_state_dict(first.state_dict())
    for learner in (first, second):
        for batch in batches[2:]:
            learner.update(batch)
    np.testing.assert_array_equal(first.weights(), second.weights())


def test_without_shifts_a_batch_is_taken_as_it_is() -> None:
    batch = random_batch(MARIO_SPEC, seed=0)
    plain = make_learner(MARIO_SPEC).prepare(batch).inputs
    again = make_learner(MARIO_SPEC, random_shift=0).prepare(batch).inputs
    moved = make_learner(MARIO_SPEC, random_shift=1).prepare(batch).inputs
    assert torch.equal(plain.s_t, again.s_t)
    assert not torch.equal(plain.s_t, moved.s_t)
