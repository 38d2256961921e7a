"""Episodes that begin at a saved moment: exact on the emulator, and only where a death was the policy's own."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest

from actors.actor import Actor
from actors.environment import MarioEnvironment, make_environment
from actors.factory import build_actor
from actors.moments import Moment
from actors.saved_starts import SavedStarts, Trail, resolve_saved_starts
from common.config import ActorsConfig, AgentConfig, Config, EnvConfig
from common.errors import UserError
from common.types import Chunk, Episode
from driver.plan import make_plan
from tests.cores import needs_fceumm
from tests.replay_chunks import chunk_frames

pytestmark = needs_fceumm

Step = tuple[bytes, float, bool, bool, dict[str, Any]]


class _Writer:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def push(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)


class _NoWeights:
    def newer_than(self, version: int) -> None:
        return None


@pytest.fixture
def envs() -> Iterator[list[MarioEnvironment]]:
    made = [make_environment(core="fceumm", stages=("1-1", "4-1"), seed=seed) for seed in range(2)]
    assert all(isinstance(env, MarioEnvironment) for env in made)
    yield made  # type: ignore[misc]
    for env in made:
        env.close()


def play(env: MarioEnvironment, actions: list[int]) -> list[Step]:
    steps: list[Step] = []
    for action in actions:
        state, reward, terminated, truncated, info = env.step(action)
        steps.append((state.tobytes(), reward, terminated, truncated, info))
        if terminated:
            break
    return steps


def random_actions(seed: int, count: int) -> list[int]:
    return [int(action) for action in np.random.default_rng(seed).integers(5, size=count)]


@pytest.mark.parametrize("stage", ["1-1", "4-1"])
def test_another_environment_goes_on_from_a_moment_as_the_first_one_did(
    envs: list[MarioEnvironment], stage: str
) -> None:
    first, second = envs
    first.reset(options={"stage": stage})
    *_, last = play(first, random_actions(0, 40))
    moment = first.moment()
    expected = play(first, random_actions(1, 80))
    for env in (second, first):
        play_elsewhere(env)
        state, info = env.reset(options={"moment": moment})
        assert (state.tobytes(), info) == (last[0], last[4])
        assert play(env, random_actions(1, 80)) == expected


def play_elsewhere(env: MarioEnvironment) -> None:
    env.reset(options={"stage": "1-1"})
    play(env, random_actions(2, 25))


def test_a_moment_keeps_the_step_limit_and_the_sticky_buttons() -> None:
    env = make_environment(core="fceumm", max_steps=30, sticky_actions=0.5, seed=3)
    assert isinstance(env, MarioEnvironment)
    env.reset()
    play(env, [1] * 20)
    moment = env.moment()
    env.reset()
    env.reset(options={"moment": moment})
    truncated = [step[3] for step in play(env, [0] * 10)]
    assert truncated == [False] * 9 + [True]
    env.close()


def dead(time: int = 300, clear: bool = False) -> dict[str, Any]:
    return {"time": time, "clear": clear}


def trail_of(env: MarioEnvironment, explores: list[bool]) -> Trail:
    trail = Trail()
    env.reset(options={"stage": "1-1"})
    trail.begin()
    for explored in explores:
        trail.add(env.moment(), explores=explored)
        env.step(0)
    return trail


@pytest.mark.parametrize(
    ("explores", "info", "own_fault"),
    [
        ([False] * 20, dead(), True),
        ([False] * 20, dead(clear=True), False),
        ([False] * 20, dead(time=3), False),
        ([True] * 13 + [True] + [False] * 6, dead(), False),
        ([False] * 10 + [True, False, True] + [False] * 6, dead(), False),
        ([False] * 11 + [True] + [False] * 8, dead(), True),
        ([False] * 4, dead(), False),
    ],
)
def test_only_deaths_that_are_the_policys_own_give_starts(
    envs: list[MarioEnvironment], explores: list[bool], info: dict[str, Any], own_fault: bool
) -> None:
    starts = SavedStarts(1.0, np.random.default_rng(0))
    starts.after_end(trail_of(envs[0], explores), info)
    assert (starts.draw("1-1") is not None) == own_fault


def test_where_one_exploratory_action_led_to_a_death_starts_are_right_after_it_and_up_to_twenty_steps_before(
    envs: list[MarioEnvironment],
) -> None:
    trail = trail_of(envs[0], [False] * 20 + [True] + [False] * 4)
    rng = np.random.default_rng(0)
    steps = Counter(moment.steps for _ in range(2_000) if (moment := trail.before_death(dead(), rng)) is not None)
    assert set(steps) == set(range(1, 22))  # the action was that of step 20
    assert steps[21] == pytest.approx(1_000, abs=100)
    assert max(count for step, count in steps.items() if step < 21) < 100
    assert trail.before_death(dead(clear=True), rng) is None
    assert trail_of(envs[0], [False] * 20 + [True]).before_death(dead(), rng) is None


def test_starts_lie_five_to_forty_steps_before_the_death(envs: list[MarioEnvironment]) -> None:
    trail = trail_of(envs[0], [False] * 60)
    rng = np.random.default_rng(0)
    moments = [trail.before_death(dead(), rng) for _ in range(500)]
    assert {60 - moment.steps for moment in moments if moment is not None} == set(range(5, 41))


def test_another_episode_forgets_the_last_ones_moments(envs: list[MarioEnvironment]) -> None:
    trail = trail_of(envs[0], [False] * 20)
    trail.begin()
    assert trail.before_death(dead(), np.random.default_rng(0)) is None


def test_the_share_of_episodes_that_begin_at_saved_moments_is_the_one_asked_for(envs: list[MarioEnvironment]) -> None:
    starts = SavedStarts(0.25, np.random.default_rng(0))
    assert starts.draw("1-1") is None
    starts.after_end(trail_of(envs[0], [False] * 20), dead())
    drawn = sum(starts.draw("1-1") is not None for _ in range(2_000)) / 2_000
    assert drawn == pytest.approx(0.25, abs=0.04)


def test_starts_along_the_stage_lie_eight_steps_before_one_that_was_survived(envs: list[MarioEnvironment]) -> None:
    starts, trail, env = SavedStarts(1.0, np.random.default_rng(0)), Trail(), envs[0]
    env.reset(options={"stage": "1-1"})
    for _ in range(25):  # running right meets the first Goomba after 30 steps
        visit(starts, trail, env, 3)
    drawn = {moment.steps: moment for _ in range(300) if (moment := starts.draw("1-1")) is not None}
    assert set(drawn) == {0, 4, 8, 12, 16}
    assert all(moment.x_pos == along(moment) for moment in drawn.values())


def visit(starts: SavedStarts, trail: Trail, env: MarioEnvironment, action: int) -> None:
    trail.add(env.moment(), explores=True)
    env.step(action)
    starts.after_step(trail)


def along(moment: Moment) -> int:
    """Mario's x at a moment, as the game tells it."""
    env = make_environment(core="fceumm", seed=9)
    _, info = env.reset(options={"moment": moment})
    env.close()
    return int(info["x_pos"])


def test_parts_of_a_stage_are_drawn_evenly_however_often_they_were_visited(envs: list[MarioEnvironment]) -> None:
    starts, env = SavedStarts(1.0, np.random.default_rng(0)), envs[0]
    for actions in [[3] * 25, *[[0] * 25] * 20]:  # once to the right, twenty times standing at the start
        trail = Trail()
        env.reset(options={"stage": "1-1"})
        for action in actions:
            visit(starts, trail, env, action)
    parts = Counter(moment.x_pos // 64 for _ in range(900) if (moment := starts.draw("1-1")) is not None)
    assert len(parts) > 1
    assert max(parts.values()) < 1.4 * min(parts.values())


def test_with_heights_a_way_above_the_usual_one_is_drawn_as_often(envs: list[MarioEnvironment]) -> None:
    def highest(heights: bool) -> list[int]:
        starts, env = SavedStarts(1.0, np.random.default_rng(0), heights), envs[0]
        for action in [4, *[0] * 20]:  # once a jump on the spot's right, then twenty times standing
            trail = Trail()
            env.reset(options={"stage": "1-1"})
            for step in range(17):
                visit(starts, trail, env, action if step >= 4 else 0)
        return [moment.y_pos for _ in range(300) if (moment := starts.draw("1-1")) is not None and moment.x_pos < 64]

    low = 128
    assert sum(y >= low for y in highest(True)) > 75
    assert not any(y >= low for y in highest(False))


def actor(
    writer: _Writer,
    *,
    share: float,
    flag_reward: float = 0.0,
    death_reward: float = 0.0,
    practice_steps: int | None = None,
    practice_opening: int = 0,
    zeta: float = 2.0,
) -> Actor:
    return build_actor(
        env=EnvConfig(core="fceumm", noop_max=0),
        agent=AgentConfig(n_step=3, reward_scale=1.0, flag_reward=flag_reward, death_reward=death_reward),
        actors=ActorsConfig(
            envs_per_actor=1,
            epsilon=0.0,
            exploration_zeta=zeta,
            chunk_length=10,
            saved_starts=share,
            practice_steps=practice_steps,
            practice_opening=practice_opening,
        ),
        index=0,
        count=1,
        seed=1,
        incarnation=0,
        writer=writer,
        weights=_NoWeights(),
    )


def run_right(player: Actor) -> None:
    """Makes the network prefer running right, which ends at the first Goomba."""
    *_, last_bias = player._network.parameters()
    with np.errstate(all="ignore"):
        last_bias.data[:] = 0
        last_bias.data.view(player._num_actions, -1)[3] = 100.0  # all its quantiles
    player._cast_network()


def episodes_of(player: Actor, count: int) -> list[Episode]:
    episodes: list[Episode] = []
    while len(episodes) < count:
        episodes += player.step()
    return episodes


def test_a_death_is_learned_from_with_its_reward() -> None:
    ends = []
    for death_reward in (0.0, -7.0):
        writer = _Writer()
        player = actor(writer, share=0.0, death_reward=death_reward)
        run_right(player)
        (episode,) = episodes_of(player, 1)
        assert not episode.clear
        ends.append((episode, float(writer.chunks[-1].r_t[-1])))
    (plain, plain_end), (careful, careful_end) = ends
    assert careful == plain
    assert careful_end == plain_end - 7.0


def test_an_actor_begins_shortly_before_its_deaths_and_says_so() -> None:
    writer = _Writer()
    player = actor(writer, share=1.0)
    run_right(player)
    first, *others = episodes_of(player, 6)
    assert not first.saved_start
    assert all(episode.saved_start and episode.length <= first.length for episode in others)
    assert all(episode.final_x == first.final_x for episode in others)
    player.close()


def test_the_first_transition_after_a_saved_start_has_the_whole_stack_of_frames() -> None:
    writer = _Writer()
    player = actor(writer, share=1.0)
    run_right(player)
    first, second = episodes_of(player, 2)
    pushed = 0
    for chunk in writer.chunks:
        if pushed in (0, first.length):
            assert chunk.first_state == (0 if pushed == 0 else 3)
            assert len(chunk_frames(chunk, (84, 84))) == chunk.num_frames
            earlier = chunk_frames(chunk, (84, 84))[: chunk.first_state]
            assert all(frame.any() for frame in earlier)
        pushed += len(chunk)
    assert pushed == first.length + second.length
    player.close()


def test_without_a_share_every_episode_begins_at_the_start() -> None:
    player = actor(_Writer(), share=0.0)
    run_right(player)
    assert not any(episode.saved_start for episode in episodes_of(player, 4))
    player.close()


@pytest.mark.parametrize(
    ("setting", "name", "core", "share"),
    [
        ("auto", "mario", "fceumm", 0.75),
        ("auto", "mario", "nes-py", 0.0),
        ("auto", "gridworld", "auto", 0.0),
        (0.2, "mario", "fceumm", 0.2),
        (0.0, "mario", "nes-py", 0.0),
    ],
)
def test_auto_means_three_quarters_where_the_core_saves_states(
    setting: float | Literal["auto"], name: Any, core: Any, share: float
) -> None:
    assert resolve_saved_starts(setting, EnvConfig(name=name, core=core)) == share


@pytest.mark.parametrize(("name", "core", "who"), [("mario", "nes-py", "nes-py"), ("gridworld", "auto", "gridworld")])
def test_a_share_is_refused_where_nothing_can_be_saved(name: Any, core: Any, who: str) -> None:
    config = Config(env=EnvConfig(name=name, core=core), actors=ActorsConfig(saved_starts=0.5))
    with pytest.raises(
        UserError, match=rf"--actors.saved-starts 0.5: the .*{who}.* cannot save its state; take 0 or auto"
    ):
        make_plan(config, cpus=2, gpus=0, private=True)


def test_practice_ends_after_so_many_steps_and_bootstraps_there() -> None:
    writer = _Writer()
    player = actor(writer, share=1.0, practice_steps=4)
    run_right(player)
    first, *others = episodes_of(player, 12)
    assert not first.truncated
    assert first.length > 4
    assert all(episode.saved_start and episode.length <= 4 for episode in others)
    cut = [episode for episode in others if episode.truncated]
    assert cut
    assert all(episode.length == 4 and not episode.clear for episode in cut)
    ends = [float(chunk.discount_t[-1]) for chunk in writer.chunks]
    assert sum(end > 0 for end in ends) >= len(cut)
    player.close()


@pytest.mark.parametrize("zeta", [2.0, 0.0])
def test_practice_opens_with_one_action_for_so_many_steps_at_most_and_goes_on_greedily(zeta: float) -> None:
    writer = _Writer()
    player = actor(writer, share=1.0, practice_steps=8, practice_opening=4, zeta=zeta)
    run_right(player)
    first, *others = episodes_of(player, 40)
    player.close()
    actions = np.concatenate([chunk.a_tm1 for chunk in writer.chunks])
    assert (actions[: first.length] == 3).all()  # from the stage's start, as ever
    assert len(actions) == first.length + sum(episode.length for episode in others)
    lengths, openings = set(), set()
    ends = np.cumsum([first.length, *(episode.length for episode in others)])
    for begin, end in pairwise(ends):
        played = actions[begin:end]
        length = int((played != 3).sum())
        assert (played[length:] == 3).all()
        assert len(set(played[:length])) <= 1
        lengths.add(length)
        openings |= set(played[:length])
    assert lengths == {0, 1, 2, 3, 4}
    assert openings == {0, 1, 2, 4}


def test_a_saved_episode_that_is_longer_than_practice_is_now_comes_back_whole_and_ends_with_its_next_step() -> None:
    long = actor(_Writer(), share=1.0)
    run_right(long)
    episodes_of(long, 1)
    while len(long.state_dict(whole=False)["slots"][0]["choices"]) < 6:
        long.step()
    state = long.state_dict(whole=True)
    short = actor(_Writer(), share=1.0, practice_steps=4)
    short.load_state_dict(state)
    assert len(short.state_dict(whole=False)["slots"][0]["choices"]) == 6
    (episode,) = episodes_of(short, 1)
    assert episode.length == 7
    assert episode.truncated
    for player in (long, short):
        player.close()
