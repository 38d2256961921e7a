"""Evaluation: exact repetition, independence of the work's division, and its figures."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from actors.environment import environment_spec, make_environment
from actors.evaluation import Evaluation, PolicyFn, may_be_best, summarise
from actors.gridworld import MOVES, SIZE
from actors.remote import RemoteEvaluator
from actors.video import check_video_path, encode_gif, save_video
from common.config import AgentConfig, EnvConfig, EvalConfig
from common.errors import UserError
from common.networks import build_network, flatten, q_values
from common.seeding import role_seed
from common.statistics import wilson_interval
from common.types import Episode

SEED = role_seed(7, "evaluator")


def to_the_end(states: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The grid's best moves: up and right as far as there is something to gain."""
    values = np.zeros((len(states), len(MOVES)), np.float32)
    for i, state in enumerate(states):
        row, column = divmod(int(state[0].argmax()), SIZE)
        step = (-1 if row > 0 else 0, 1 if column < SIZE - 1 else 0)
        values[i, list(MOVES.values()).index(step)] = 1
    return values


def leftwards(states: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Q-values that always prefer the move to the left."""
    return np.tile(np.array([name == "left" for name in MOVES], np.float32), (len(states), 1))


def evaluate_grid(policy: PolicyFn, num_envs: int = 3, epsilon: float = 0.0, episodes: int = 20) -> list[Episode]:
    envs = [make_environment(name="gridworld") for _ in range(num_envs)]
    evaluation = Evaluation(envs, policy, stages=["grid"], episodes=episodes, epsilon=epsilon, seed=SEED)
    return evaluation.run()["grid"]


def mario_policy() -> PolicyFn:
    network = build_network(make_environment().environment_spec, dueling=False, seed=1)
    return lambda states: q_values(network, states)


def test_the_optimal_grid_policy_clears_every_episode() -> None:
    episodes = evaluate_grid(to_the_end)
    assert all(episode.clear and episode.stages_cleared == 1 and not episode.truncated for episode in episodes)
    assert {episode.length for episode in episodes} == {1, 2}
    assert all(episode.episode_return == 1 - episode.length for episode in episodes)
    assert all(episode.x_pos == SIZE - 1 and episode.epsilon == 0 for episode in episodes)


def test_a_policy_that_never_arrives_is_truncated() -> None:
    episodes = evaluate_grid(leftwards, episodes=5)
    assert all(e.truncated and not e.clear and e.length == 100 and e.episode_return == -100 for e in episodes)


def test_x_is_the_largest_reached_not_the_last() -> None:
    starts = [evaluate_grid(leftwards)[i].x_pos for i in range(20)]
    assert set(starts) == {0, 1, 2}


def test_epsilon_is_the_probability_of_a_random_action() -> None:
    assert not any(episode.clear for episode in evaluate_grid(leftwards, epsilon=0.0))
    assert sum(episode.clear for episode in evaluate_grid(leftwards, epsilon=1.0)) > 15
    assert 0 < sum(episode.truncated for episode in evaluate_grid(leftwards, epsilon=0.1, episodes=100)) < 100


def test_results_do_not_depend_on_how_many_environments_share_the_work() -> None:
    results = []
    for num_envs in (1, 4, 9):  # 9 do not fit into one forward pass
        envs = [make_environment(max_steps=12, sticky_actions=0.1, seed=num_envs) for _ in range(num_envs)]
        evaluation = Evaluation(envs, mario_policy(), stages=["1-1"], episodes=9, epsilon=0.2, seed=SEED)
        results.append(evaluation.run())
        for env in envs:
            env.close()
    assert results[0] == results[1] == results[2]
    assert len({episode.x_pos for episode in results[0]["1-1"]}) > 1


@pytest.mark.parametrize("num_envs", [1, 3, 10])
def test_every_forward_pass_has_the_same_number_of_rows(num_envs: int) -> None:
    """The last bits of a matrix product depend on it, and an argmax can hang on them."""
    shapes = set()

    def policy(states: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.add(states.shape)
        return to_the_end(states)

    evaluate_grid(policy, num_envs)
    assert shapes == {(8, 1, 9)}


def test_a_stages_episodes_do_not_depend_on_the_other_stages() -> None:
    env = make_environment(max_steps=10)

    def run(stages: list[str], seed: np.random.SeedSequence) -> dict[str, list[Episode]]:
        return Evaluation([env], mario_policy(), stages=stages, episodes=3, epsilon=0.5, seed=seed).run()

    alone, both = run(["1-3"], SEED), run(["1-1", "1-3"], SEED)
    assert list(both) == ["1-1", "1-3"]
    assert both["1-3"] == alone["1-3"]
    assert run(["1-3"], role_seed(8, "evaluator")) != alone
    env.close()


def test_it_can_be_stepped_in_slices_and_reports_each_episode_once() -> None:
    envs = [make_environment(name="gridworld") for _ in range(3)]
    evaluation = Evaluation(envs, to_the_end, stages=["grid"], episodes=7, epsilon=0.0, seed=SEED)
    ended: list[Episode] = []
    while not evaluation.done:
        assert len(evaluation.episodes["grid"]) < 7
        ended += evaluation.step()
        assert len(evaluation.episodes["grid"]) == len(ended)
    assert evaluation.step() == []
    assert evaluation.episodes["grid"] == evaluate_grid(to_the_end, episodes=7)


def test_a_replay_shows_the_episode_that_was_played() -> None:
    envs = [make_environment(max_steps=20) for _ in range(2)]
    screens: dict[int, NDArray[np.uint8]] = {}
    evaluation = Evaluation(envs, mario_policy(), stages=["1-1"], episodes=2, epsilon=0.5, seed=SEED)
    while not evaluation.done:
        evaluation.step()
        screens = {i: env.render() for i, env in enumerate(envs)}
    replayed = [list(evaluation.replay(envs[0], "1-1", index)) for index in range(2)]
    assert [len(frames) for frames in replayed] == [21, 21]
    assert {frames[-1].tobytes() for frames in replayed} == {screen.tobytes() for screen in screens.values()}
    for env in envs:
        env.close()


def test_the_best_episode_is_the_one_that_got_furthest() -> None:
    env = make_environment(max_steps=30)
    evaluation = Evaluation([env], mario_policy(), stages=["1-1"], episodes=4, epsilon=1.0, seed=SEED)
    episodes = evaluation.run()["1-1"]
    assert episodes[evaluation.best("1-1")].x_pos == max(episode.x_pos for episode in episodes)
    env.close()


def episode(clear: bool, total: float, x_pos: int, length: int) -> Episode:
    return Episode("1-1", total, length, x_pos, x_pos, 300, clear, int(clear), False, 0.01)


def test_figures_of_a_stage() -> None:
    assert summarise([episode(True, 3000.0, 3161, 200), episode(False, 500.0, 700, 100)]) == {
        "episodes": 2,
        "clears": 1,
        "clear_rate": 0.5,
        "clear_rate_ci95": list(wilson_interval(1, 2)),
        "mean_return": 1750.0,
        "mean_x": 1930.5,
        "mean_length": 150.0,
        "mean_stages_cleared": 0.5,
    }


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3; and 0 of 10
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_at_the_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(5, 10, confidence=0.99)[0] < wilson_interval(5, 10)[0]
    for successes, n in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="successes"):
            wilson_interval(successes, n)


def grey_ramp(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((24, 32, 3), 40 * i, np.uint8) for i in range(count)]


def test_mp4_is_h264_three_times_as_large(tmp_path: Path) -> None:
    save_video(grey_ramp(5), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 15
    assert [frame.shape for frame in frames] == [(72, 96, 3)] * 5
    np.testing.assert_allclose([frame.mean() for frame in frames], [0, 40, 80, 120, 160], atol=3)


def test_gif_keeps_frames_and_colours(tmp_path: Path) -> None:
    save_video(grey_ramp(4), tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == encode_gif(grey_ramp(4))
    with Image.open(tmp_path / "a.gif") as image:
        assert (getattr(image, "n_frames", 1), image.info["duration"], image.info["loop"]) == (4, 100, 0)
        for i in range(4):
            image.seek(i)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), grey_ramp(4)[i])


def test_a_video_that_could_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither \.mp4 nor \.gif"):
        check_video_path(tmp_path / "a.avi")
    with pytest.raises(UserError, match="does not exist"):
        check_video_path(tmp_path / "absent" / "a.mp4")
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_video_path(tmp_path / "b.mp4")


def test_an_extended_evaluation_is_the_longer_one() -> None:
    def evaluation(episodes: int) -> Evaluation:
        envs = [make_environment(name="gridworld") for _ in range(3)]
        return Evaluation(envs, leftwards, stages=["grid"], episodes=episodes, epsilon=0.3, seed=SEED)

    extended = evaluation(7)
    extended.run()
    extended.extend(6)
    assert not extended.done
    assert extended.run() == evaluation(13).run()


@pytest.mark.parametrize(
    ("clears", "episodes", "best", "goes_on"),
    [
        (0, 16, 0.0, False),
        (7, 16, 0.0, False),
        (8, 16, 0.0, True),
        (16, 16, 0.9, True),
        (12, 16, 0.95, False),  # Wilson's interval ends at 0.90
        (30, 32, 0.95, True),  # and here at 0.983
    ],
)
def test_a_policy_is_played_on_for_as_long_as_it_may_be_the_best(
    clears: int, episodes: int, best: float, goes_on: bool
) -> None:
    assert may_be_best(clears, episodes, best) == goes_on


@pytest.mark.parametrize(("best", "expected"), [(0.0, 25), (1.0, 10)])
def test_a_runs_evaluator_plays_on_up_to_its_limit_where_the_policy_may_be_the_best(best: float, expected: int) -> None:
    settings = EvalConfig(episodes=10, max_episodes=25, epsilon=1.0, video=False)
    agent = AgentConfig(quantiles=1)
    evaluator = RemoteEvaluator(env=EnvConfig(name="gridworld"), agent=agent, evaluation=settings, seed=0)
    spec = environment_spec(name="gridworld")
    evaluator.begin_with(flatten(build_network(spec, agent.dueling, 0)), 5, best)
    report = None
    while report is None:
        report = evaluator.run(0.05)
    assert len(report.episodes["grid"]) == expected
    assert report.updates == 5


def test_with_several_stages_all_episodes_say_whether_an_evaluation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, float]] = []

    def may(clears: int, episodes: int, best: float) -> bool:
        asked.append((clears, episodes, best))
        return True

    monkeypatch.setattr("actors.remote.may_be_best", may)
    settings = EvalConfig(episodes=2, max_episodes=3, noop_max=0, max_steps=2, video=False)
    env, agent = EnvConfig(stages=("1-1", "1-2")), AgentConfig(quantiles=1, network="nips")
    evaluator = RemoteEvaluator(env=env, agent=agent, evaluation=settings, seed=0)
    network = build_network(environment_spec(), agent.dueling, 0, agent.network, agent.layer_norm, agent.quantiles)
    evaluator.begin_with(flatten(network), 5, 0.25)
    report = None
    while report is None:
        report = evaluator.run(0.05)
    assert asked == [(0, 4, 0.25)]
    assert {stage: len(episodes) for stage, episodes in report.episodes.items()} == {"1-1": 3, "1-2": 3}


def test_an_evaluation_goes_on_also_where_a_slice_ends_with_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of one step each: every episode ends with its slice."""
    settings = EvalConfig(episodes=3, max_episodes=9, epsilon=1.0, video=False)
    evaluator = RemoteEvaluator(
        env=EnvConfig(name="gridworld"), agent=AgentConfig(quantiles=1), evaluation=settings, seed=0
    )
    evaluator.begin_with(flatten(build_network(environment_spec(name="gridworld"), False, 0)), 5, 0.0)
    ticks = itertools.count()
    monkeypatch.setattr("actors.remote.time.monotonic", lambda: float(next(ticks)))
    report = None
    while report is None:
        report = evaluator.run(1.5)
    assert len(report.episodes["grid"]) == 9
