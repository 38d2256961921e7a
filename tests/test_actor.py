"""An actor on the real gridworld: what it pushes is what its environments did."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from actors.actor import Actor, Durations
from actors.environment import environment_spec
from actors.factory import build_actor, build_exploration
from actors.slot import Choice
from common.config import ActorsConfig, AgentConfig, EnvConfig
from common.networks import build_network, flatten
from common.policy import load_tensors
from common.types import Chunk, EnvironmentSpec, Weights
from tests.replay_chunks import chunk_frames


class _Writer:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def push(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)


class _Weights:
    def __init__(self, newest: Weights | None = None) -> None:
        self.newest = newest

    def newer_than(self, version: int) -> Weights | None:
        return self.newest if self.newest is not None and self.newest.version > version else None


def _actor(
    writer: _Writer,
    weights: _Weights,
    *,
    actors: ActorsConfig,
    index: int = 0,
    incarnation: int = 0,
    max_steps: int = 30,
    flag_reward: float = 0.0,
    death_reward: float = 0.0,
    **agent: Any,
) -> Actor:
    return build_actor(
        env=EnvConfig(name="gridworld", max_steps=max_steps),
        agent=AgentConfig(
            gamma=0.9,
            n_step=3,
            watkins=agent.pop("watkins", False),
            quantiles=1,
            reward_scale=1.0,
            flag_reward=flag_reward,
            death_reward=death_reward,
            **{"tree_backup": False} | agent,
        ),
        actors=actors,
        index=index,
        count=2,
        seed=5,
        incarnation=incarnation,
        writer=writer,
        weights=weights,
    )


def _actions(writer: _Writer) -> list[int]:
    return [int(action) for chunk in writer.chunks for action in chunk.a_tm1]


def test_pushed_transitions_add_up_to_the_episodes_played() -> None:
    writer = _Writer()
    actor = _actor(writer, _Weights(), actors=ActorsConfig(envs_per_actor=3, chunk_length=7, epsilon=1.0))
    episodes = [episode for _ in range(200) for episode in actor.step()]
    assert len(episodes) > 5
    lengths = sum(episode.length for episode in episodes)
    pushed = sum(len(chunk) for chunk in writer.chunks)
    in_the_open = 3 * (30 + 7)  # at most: what three running episodes have not pushed yet
    assert lengths <= pushed <= lengths + in_the_open
    assert sum(float(chunk.r_t[-1]) == 0.0 and chunk.discount_t[-1] == 0 for chunk in writer.chunks) == sum(
        episode.clear for episode in episodes
    )


def test_truncated_episodes_keep_their_bootstrap() -> None:
    writer = _Writer()
    actor = _actor(writer, _Weights(), actors=ActorsConfig(envs_per_actor=4, chunk_length=50, epsilon=1.0), max_steps=2)
    episodes = [episode for _ in range(100) for episode in actor.step()]
    truncated = [episode for episode in episodes if episode.truncated]
    assert truncated
    assert all(not episode.clear for episode in truncated)
    bootstrapped = [chunk for chunk in writer.chunks if chunk.discount_t[-1] > 0]
    assert len(bootstrapped) == len(truncated)
    assert all(chunk.discount_t[-1] == np.float32(0.9) for chunk in bootstrapped)


def test_frames_in_chunks_are_the_environments_squares() -> None:
    writer = _Writer()
    actor = _actor(writer, _Weights(), actors=ActorsConfig(envs_per_actor=1, chunk_length=5, epsilon=1.0))
    for _ in range(60):
        actor.step()
    for chunk in writer.chunks:
        for frame in chunk_frames(chunk, (9,)):
            assert sorted(frame) == [0] * 8 + [255]


def test_newer_weights_are_taken_and_recorded_with_their_transitions() -> None:
    writer, weights = _Writer(), _Weights()
    actor = _actor(writer, weights, actors=ActorsConfig(envs_per_actor=1, chunk_length=1, epsilon=1.0))
    for _ in range(10):
        actor.step()
    network = build_network(_spec(), dueling=False, seed=99)
    weights.newest = Weights(4, 400, 0.0, flatten(network))
    for _ in range(20):
        actor.step()
    versions = [int(version) for chunk in writer.chunks for version in chunk.weight_version]
    assert versions == sorted(versions)
    assert set(versions) == {0, 4}
    assert (actor.weight_version, actor.updates) == (4, 400)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_priorities_come_from_the_actors_own_q_values(
    precision: Literal["float32", "bfloat16"], tolerance: float
) -> None:
    writer = _Writer()
    network = build_network(_spec(), dueling=False, seed=99)
    weights = _Weights(Weights(1, 0, 0.0, flatten(network)))
    actor = _actor(
        writer, weights, actors=ActorsConfig(envs_per_actor=1, precision=precision, chunk_length=1, epsilon=1.0)
    )
    for _ in range(40):
        actor.step()
    for chunk in writer.chunks:
        with torch.inference_mode():
            q = network(torch.from_numpy(chunk_frames(chunk, (9,))[:, None])).numpy()
        for j in range(len(chunk)):
            bootstrap = q[chunk.first_state + j + chunk.steps[j]].max()
            td = chunk.r_t[j] + chunk.discount_t[j] * bootstrap - q[chunk.first_state + j, chunk.a_tm1[j]]
            assert chunk.priority[j] == pytest.approx(abs(td), abs=tolerance)


def test_same_seed_plays_the_same_and_a_replacement_does_not() -> None:
    played = []
    for incarnation in (0, 0, 1):
        writer = _Writer()
        actor = _actor(writer, _Weights(), actors=ActorsConfig(envs_per_actor=2, epsilon=1.0), incarnation=incarnation)
        for _ in range(80):
            actor.step()
        played.append(_actions(writer))
    assert played[0] == played[1]
    assert played[0] != played[2]


def test_the_ladder_spans_all_environments_of_all_actors() -> None:
    settings = ActorsConfig(envs_per_actor=4, epsilon=0.4, epsilon_alpha=7.0)
    epsilons = [e for index in range(2) for e in build_exploration(settings, index=index, count=2).values(0)]
    expected = [0.4 ** (1 + 7 * i / 7) for i in range(8)]
    np.testing.assert_allclose(epsilons, expected)


def test_the_schedule_decays_with_the_learners_updates() -> None:
    settings = ActorsConfig(
        envs_per_actor=2, exploration="schedule", epsilon_start=1.0, epsilon_final=0.1, epsilon_decay=0.5
    )
    exploration = build_exploration(settings, index=0, count=1)
    assert exploration.values(0).tolist() == [1.0, 1.0]
    assert exploration.values(2).tolist() == [0.25, 0.25]
    assert exploration.values(100).tolist() == [0.1, 0.1]


def _spec() -> EnvironmentSpec:
    return environment_spec(name="gridworld")


def test_rewards_for_an_end_are_learned_from_but_not_logged() -> None:
    played = []
    # The grid's episodes end at its goal, which is a clear.
    for flag_reward, death_reward in ((0.0, 0.0), (7.0, -3.0)):
        writer = _Writer()
        settings = ActorsConfig(envs_per_actor=2, chunk_length=50, epsilon=1.0)
        actor = _actor(writer, _Weights(), actors=settings, flag_reward=flag_reward, death_reward=death_reward)
        episodes = [episode for _ in range(100) for episode in actor.step()]
        ends = [float(chunk.r_t[-1]) for chunk in writer.chunks if chunk.discount_t[-1] == 0]
        played.append((episodes, ends))
    (plain, plain_ends), (rewarded, rewarded_ends) = played
    assert rewarded == plain
    assert any(episode.clear for episode in plain)
    assert rewarded_ends == [end + 7.0 for end in plain_ends]


def test_an_actor_goes_on_with_the_episodes_of_a_saved_state(tmp_path: Path) -> None:
    options = ActorsConfig(envs_per_actor=3, chunk_length=4, epsilon=1.0)
    first_writer, writer = _Writer(), _Writer()
    first = _actor(first_writer, _Weights(), actors=options)
    for _ in range(11):
        first.step()
    torch.save(first.state_dict(whole=False), tmp_path / "state.pt")
    other = _actor(writer, _Weights(), actors=options, incarnation=1)
    other.load_state_dict(load_tensors(tmp_path / "state.pt"))  # type: ignore[arg-type]
    pushed = len(first_writer.chunks)
    episodes = [[episode for _ in range(60) for episode in actor.step()] for actor in (first, other)]
    assert episodes[0] == episodes[1] != []
    assert [chunk.a_tm1.tolist() for chunk in first_writer.chunks[pushed:]] == [c.a_tm1.tolist() for c in writer.chunks]
    assert [chunk.r_t.tolist() for chunk in first_writer.chunks[pushed:]] == [c.r_t.tolist() for c in writer.chunks]


@pytest.mark.parametrize(
    "damage",
    [{"rng": 3}, {"slots": []}, {"slots": [{}, {}, {}]}, {"stages": {}}, {"held": [0, 99, 0]}, {"held": [0, -1, 0]}],
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    actor = _actor(_Writer(), _Weights(), actors=ActorsConfig(envs_per_actor=3))
    with pytest.raises(ValueError, match="state is damaged or of another version"):
        actor.load_state_dict(actor.state_dict(whole=False) | damage)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", 0.5),
        ("value", 1e300),
        ("q_tm1", math.nan),
        ("mean_value", None),
        ("epsilon", 2.0),
        ("explores", "x"),
        ("weight_version", 2**31),
        ("weight_version", -1),
    ],
)
def test_a_choice_that_no_chunk_can_hold_is_refused(field: str, value: object) -> None:
    actor = _actor(_Writer(), _Weights(), actors=ActorsConfig(envs_per_actor=1))
    actor.step()
    state = actor.state_dict(whole=False)
    state["slots"][0]["choices"][-1][Choice._fields.index(field)] = value
    with pytest.raises(ValueError, match="is no choice of an actor's"):
        actor.load_state_dict(state)


def test_exploratory_actions_are_held_for_zeta_many_steps() -> None:
    """With epsilon 1 an actor does nothing but hold actions: their runs have the zeta distribution's lengths."""
    durations = Durations(2.0).draw(np.random.default_rng(0), 100_000)
    shares = np.bincount(durations, minlength=17) / len(durations)
    weights = 1 / np.arange(1, 17) ** 2
    np.testing.assert_allclose(shares[1:], weights / weights.sum(), atol=0.005)

    writer = _Writer()
    settings = ActorsConfig(envs_per_actor=1, chunk_length=1, epsilon=1.0, exploration_zeta=2.0)
    actor = _actor(writer, _Weights(), actors=settings, max_steps=10_000)
    for _ in range(2_000):
        actor.step()
    actions = np.array(_actions(writer))
    repeated = (actions[1:] == actions[:-1]).mean()
    mean = float((durations).mean())
    # Of `mean` steps one begins with a fresh draw, which is the action before by a chance of one in eight.
    assert repeated == pytest.approx(1 - 1 / mean * 7 / 8, abs=0.05)


def test_a_held_action_ends_with_its_episode() -> None:
    settings = ActorsConfig(envs_per_actor=4, chunk_length=1, epsilon=1.0, exploration_zeta=0.01)
    actor = _actor(_Writer(), _Weights(), actors=settings, max_steps=3)
    longest = 0
    for _ in range(30):
        ended = actor.step()
        left = actor.state_dict(whole=False)["left"]
        longest = max(longest, *left)
        assert left.count(0) >= len(ended)
    assert longest > 3  # most were drawn for longer than an episode lasts


def test_tree_backup_takes_the_actors_own_mean_values() -> None:
    """The same play twice: with tree backup a window's return has epsilon times the means of its inner states."""
    plain, backed = _Writer(), _Writer()
    settings = ActorsConfig(envs_per_actor=1, chunk_length=1, epsilon=0.2)
    network = build_network(_spec(), dueling=False, seed=3)
    weights = _Weights(Weights(1, 1, 0.5, flatten(network)))  # with the epsilon of the learner's targets
    of_backed: dict[str, Any] = {"tree_backup": True, "target_epsilon": 0.1}
    for writer, agent in ((plain, {}), (backed, of_backed)):
        actor = _actor(writer, weights, actors=settings, watkins=True, **agent)
        for _ in range(400):
            actor.step()
    checked = 0
    for before, after in zip(plain.chunks, backed.chunks, strict=True):
        assert (before.a_tm1 == after.a_tm1).all()
        if len(before) > 1 or before.steps[0] < 3 or before.discount_t[0] == 0:
            continue
        with torch.inference_mode():
            mean = network(torch.from_numpy(chunk_frames(before, (9,))[:, None])).mean(dim=1).tolist()
        # Every square but the end is worth -1.
        expected = -1 + 0.9 * (0.5 * mean[1] + 0.5 * (-1 + 0.9 * (0.5 * mean[2] + 0.5 * -1)))
        assert after.r_t[0] == pytest.approx(expected, abs=2e-2)  # the actor's arithmetic may be bfloat16's
        assert after.discount_t[0] == pytest.approx(0.9**3 * 0.5**2)
        checked += 1
    assert checked > 100
