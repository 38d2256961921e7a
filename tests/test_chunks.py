"""Chunks hold every transition of an episode once, with the frames that its states need."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.chunks import ChunkBuilder
from actors.n_step import Ending
from common.types import Chunk
from tests.replay_chunks import chunk_frames

SHAPE = (2, 3)
STACK = 4
GAMMA = 0.9


def _frame(t: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, t % 250 + 1, np.uint8)  # never zero, so that padding can be told from a frame


def _value(t: int) -> float:
    return 10.0 + t


def _builder(n_step: int = 3, chunk_length: int = 4, reward_scale: float = 1.0) -> ChunkBuilder:
    return ChunkBuilder(
        n_step=n_step, gamma=GAMMA, reward_scale=reward_scale, frame_stack=STACK, chunk_length=chunk_length, actor=7
    )


def _play(builder: ChunkBuilder, length: int, ending: Ending, final_value: float = 0.0) -> list[Chunk]:
    """An episode: state t has frame t + 1, value 10 + t; step t has action t, reward t, Q-value 100 + t."""
    chunks = []
    builder.begin(_frame(0)[None])
    for t in range(length):
        chunk = builder.bootstrap(_value(t))
        chunks += [] if chunk is None else [chunk]
        builder.add(
            action=t,
            q_tm1=100.0 + t,
            weight_version=t // 5,
            reward=float(t),
            frame=_frame(t + 1),
            ending=ending if t == length - 1 else None,
        )
    return [*chunks, builder.end(final_value)]


def _frames(chunk: Chunk) -> list[int]:
    frames = chunk_frames(chunk, SHAPE)
    assert len(frames) == chunk.num_frames
    assert (frames == frames[:, :1, :1]).all()
    return [int(frame[0, 0]) - 1 for frame in frames]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 11, 12, 13, 40])
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_chunks_of_an_episode_hold_each_of_its_steps_once_and_in_order(length: int, ending: Ending) -> None:
    chunks = _play(_builder(), length, ending)
    assert np.concatenate([chunk.a_tm1 for chunk in chunks]).tolist() == list(range(length))


def test_a_chunk_carries_its_states_frames_and_the_bootstrap_states_frames() -> None:
    chunks = _play(_builder(n_step=3, chunk_length=4), 20, "terminated")
    for chunk in chunks:
        frames = _frames(chunk)
        assert frames == list(range(frames[0], frames[-1] + 1))
        for j, action in enumerate(chunk.a_tm1):
            newest = chunk.first_state + j
            assert frames[newest] == action  # the state's newest frame, since step t acts in state t
            assert frames[newest + chunk.steps[j]] == min(action + 3, 20)
            assert newest >= min(action, STACK - 1)  # its earlier frames are there, or the episode had none


def test_overlap_is_limited_to_the_context_and_the_window() -> None:
    for chunk in _play(_builder(n_step=5, chunk_length=80), 500, "terminated"):
        assert len(_frames(chunk)) <= len(chunk) + STACK - 1 + 5


def test_chunks_hold_the_frames_of_their_time_though_the_environment_uses_the_memory_again() -> None:
    builder = _builder(n_step=1, chunk_length=100)
    frame = _frame(0)
    builder.begin(frame[None])
    for t in range(6):
        builder.bootstrap(0.0)
        frame[:] = _frame(t + 1)
        builder.add(
            action=0, q_tm1=0.0, weight_version=0, reward=0.0, frame=frame, ending="terminated" if t == 5 else None
        )
    frame[:] = 0
    assert _frames(builder.end(0.0)) == list(range(7))


def test_chunks_are_sealed_and_show_any_change() -> None:
    (chunk,) = _play(_builder(chunk_length=100), 9, "terminated")
    assert chunk.is_intact
    for field in fields(Chunk):
        changed = replace(chunk, **{field.name: _changed(getattr(chunk, field.name))})
        assert not changed.is_intact, field.name
    assert not replace(chunk, a_tm1=chunk.weight_version, weight_version=chunk.a_tm1).is_intact


def _changed(value: Any) -> Any:
    """With one bit flipped."""
    if isinstance(value, int):
        return value ^ 1
    data = bytearray(value)
    data[-1] ^= 1
    return bytes(data) if isinstance(value, bytes) else np.frombuffer(data, value.dtype)


def test_rewards_are_scaled_before_they_are_summed() -> None:
    chunks = _play(_builder(n_step=2, chunk_length=100, reward_scale=0.5), 3, "terminated")
    np.testing.assert_allclose(chunks[0].r_t, [0.5 * (0 + GAMMA * 1), 0.5 * (1 + GAMMA * 2), 0.5 * 2], rtol=1e-6)


def test_priorities_are_the_absolute_td_errors_by_the_actors_values() -> None:
    (chunk,) = _play(_builder(n_step=2, chunk_length=100), 4, "terminated")
    expected = [
        abs(0 + GAMMA * 1 + GAMMA**2 * _value(2) - 100),
        abs(1 + GAMMA * 2 + GAMMA**2 * _value(3) - 101),
        abs(2 + GAMMA * 3 - 102),
        abs(3 - 103),
    ]
    np.testing.assert_allclose(chunk.priority, expected, rtol=1e-6)


def test_truncation_bootstraps_from_the_final_states_own_value() -> None:
    (chunk,) = _play(_builder(n_step=2, chunk_length=100), 3, "truncated", final_value=50.0)
    np.testing.assert_allclose(chunk.discount_t, [GAMMA**2, GAMMA**2, GAMMA], rtol=1e-6)
    expected = [
        abs(0 + GAMMA + GAMMA**2 * _value(2) - 100),
        abs(1 + GAMMA * 2 + GAMMA**2 * 50 - 101),
        abs(2 + GAMMA * 50 - 102),
    ]
    np.testing.assert_allclose(chunk.priority, expected, rtol=1e-6)


def test_weight_versions_are_those_that_chose_the_actions() -> None:
    chunks = _play(_builder(), 12, "terminated")
    versions = np.concatenate([chunk.weight_version for chunk in chunks])
    assert versions.tolist() == [t // 5 for t in range(12)]


def test_no_chunk_exceeds_the_length_that_the_rate_limiter_is_told() -> None:
    for length in range(1, 30):
        for chunk in _play(_builder(n_step=3, chunk_length=4), length, "terminated"):
            assert len(chunk) <= 4 - 1 + 3


def test_an_episode_cannot_begin_before_the_last_one_was_closed() -> None:
    builder = _builder()
    builder.begin(_frame(0)[None])
    builder.bootstrap(0.0)
    builder.add(action=0, q_tm1=0.0, weight_version=0, reward=0.0, frame=_frame(1), ending="terminated")
    with pytest.raises(RuntimeError, match="before"):
        builder.begin(_frame(0)[None])


def _explore_at(step: int, watkins: bool) -> list[Chunk]:
    """As `_play`, 8 steps of which one is exploratory."""
    builder = ChunkBuilder(
        n_step=3, gamma=GAMMA, reward_scale=1.0, frame_stack=STACK, chunk_length=4, actor=7, watkins=watkins
    )
    chunks = []
    builder.begin(_frame(0)[None])
    for t in range(8):
        chunk = builder.bootstrap(_value(t))
        chunks += [] if chunk is None else [chunk]
        builder.add(
            action=t,
            q_tm1=100.0 + t,
            weight_version=0,
            reward=float(t),
            frame=_frame(t + 1),
            ending="terminated" if t == 7 else None,
            explores=t == step,
        )
    return [*chunks, builder.end(0.0)]


def test_windows_end_before_an_exploratory_action_and_bootstrap_from_its_state() -> None:
    chunks = _explore_at(3, watkins=True)
    assert np.concatenate([chunk.a_tm1 for chunk in chunks]).tolist() == list(range(8))
    assert np.concatenate([chunk.steps for chunk in chunks]).tolist() == [3, 2, 1, 3, 3, 3, 2, 1]
    returns, discounts, priorities = (
        np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("r_t", "discount_t", "priority")
    )
    assert returns[1] == pytest.approx(1 + GAMMA * 2)
    assert discounts[1:3] == pytest.approx([GAMMA**2, GAMMA])
    assert priorities[1] == pytest.approx(abs(1 + GAMMA * 2 + GAMMA**2 * _value(3) - 101))
    assert all(_frames(chunk) for chunk in chunks)


def test_without_watkins_exploratory_actions_change_nothing() -> None:
    steps = np.concatenate([chunk.steps for chunk in _explore_at(3, watkins=False)])
    assert steps.tolist() == [3, 3, 3, 3, 3, 3, 2, 1]
