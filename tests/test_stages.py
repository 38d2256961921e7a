"""Stages that are failed are played more often."""

from collections import Counter

import numpy as np
import pytest

from actors.actor import Actor
from actors.factory import build_actor
from actors.stages import StageSampler
from common.config import ActorsConfig, AgentConfig, EnvConfig
from common.types import Chunk, Episode


def sampler() -> StageSampler:
    return StageSampler(("1-1", "1-2", "1-3"), np.random.default_rng(0))


def test_at_first_all_stages_have_the_same_chance() -> None:
    assert sampler().shares == pytest.approx(dict.fromkeys(("1-1", "1-2", "1-3"), 1 / 3))


def test_a_stages_share_falls_with_its_clears_and_never_to_nothing() -> None:
    stages = sampler()
    shares = []
    for _ in range(400):
        shares.append(stages.shares["1-1"])
        stages.learn("1-1", clear=True)
        stages.learn("1-2", clear=False)
    assert shares == sorted(shares, reverse=True)
    assert stages.shares == pytest.approx({"1-1": 0.1 / 2.3, "1-2": 1.1 / 2.3, "1-3": 1.1 / 2.3}, rel=1e-3)
    stages.learn("1-1", clear=False)
    assert stages.shares["1-1"] > shares[-1]


def test_stages_are_drawn_with_their_shares() -> None:
    stages = sampler()
    for _ in range(400):
        stages.learn("1-3", clear=True)
    drawn = Counter(stages.draw() for _ in range(4_000))
    for stage, share in stages.shares.items():
        assert drawn[stage] / 4_000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("rate", [float("nan"), -0.5, 1e300])
def test_failure_rates_that_are_none_are_refused(rate: float) -> None:
    stages = sampler()
    state = stages.state_dict()
    state["failures"]["1-2"] = rate
    with pytest.raises(ValueError, match="failure rates are not within 0"):
        stages.load_state_dict(state)


class _Nowhere:
    def push(self, chunk: Chunk) -> None:
        pass

    def newer_than(self, version: int) -> None:
        return None


def build_player(env: EnvConfig, actors: ActorsConfig) -> Actor:
    nowhere = _Nowhere()
    return build_actor(
        env=env,
        agent=AgentConfig(),
        actors=actors,
        index=0,
        count=1,
        seed=1,
        incarnation=0,
        writer=nowhere,
        weights=nowhere,
    )


GRIDWORLD = EnvConfig(name="gridworld", show_buttons=False, max_steps=6)


def learned_and_played(
    monkeypatch: pytest.MonkeyPatch, env: EnvConfig, actors: ActorsConfig, steps: int = 80
) -> tuple[list[bool], list[Episode]]:
    """The clears that an actor's failure rates were told of, and all its episodes."""
    learned: list[bool] = []
    monkeypatch.setattr(StageSampler, "learn", lambda _, stage, *, clear: learned.append(clear))
    player = build_player(env, actors)
    episodes: list[Episode] = []
    for _ in range(steps):
        episodes += player.step()
    player.close()
    return learned, episodes


def test_a_stages_failure_rate_is_that_of_the_less_exploring_half(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = ActorsConfig(envs_per_actor=4, epsilon=0.9, epsilon_alpha=2.0, saved_starts=0.0)
    learned, episodes = learned_and_played(monkeypatch, GRIDWORLD, ladder)
    _, middle, *_ = sorted({episode.epsilon for episode in episodes})
    clears = [episode.clear for episode in episodes if episode.epsilon <= middle]
    assert learned == clears != [episode.clear for episode in episodes]
    assert set(clears) == {False, True}


def test_where_all_explore_alike_every_episode_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = ActorsConfig(envs_per_actor=4, epsilon=0.9, epsilon_alpha=0.0, saved_starts=0.0)
    learned, episodes = learned_and_played(monkeypatch, GRIDWORLD, alike)
    assert learned == [episode.clear for episode in episodes]


def test_practice_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = ActorsConfig(envs_per_actor=4, epsilon=0.9, epsilon_alpha=0.0, saved_starts=0.5, practice_steps=8)
    learned, episodes = learned_and_played(monkeypatch, EnvConfig(max_steps=40), alike, steps=300)
    from_the_start = [episode for episode in episodes if not episode.saved_start]
    assert len(learned) == len(from_the_start) < len(episodes)


def test_an_actor_plays_all_its_stages() -> None:
    player = build_player(
        EnvConfig(stages=("1-1", "1-4", "2-1"), core="nes-py", max_steps=4),
        ActorsConfig(envs_per_actor=2, epsilon=1.0),
    )
    episodes: list[Episode] = []
    while len(episodes) < 24:
        episodes += player.step()
    assert {episode.stage for episode in episodes} == {"1-1", "1-4", "2-1"}
    player.close()
