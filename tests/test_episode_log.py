"""`mario.csv`: its rows are what was played and learned, whatever interrupts the writing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.environment import environment_spec
from actors.factory import build_actor
from common.config import ActorsConfig, AgentConfig, Config, EnvConfig, LearnerConfig, ReplayConfig
from common.networks import build_network, flatten
from common.types import Chunk, Episode, Weights
from driver.episode_log import HEADER, EpisodeLog
from driver.serial import SerialRun

EPISODE = Episode(
    stage="1-1",
    episode_return=231.0,
    length=40,
    x_pos=320,
    final_x=314,
    time_left=397,
    clear=False,
    stages_cleared=0,
    truncated=False,
    epsilon=0.1,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_log(path: Path, episodes: int = 0, warn: Callable[[str], None] = pytest.fail, **options: Any) -> EpisodeLog:
    return EpisodeLog(path, episodes=episodes, warn=warn, **options)


def episode(first_update: int, last_update: int, **changes: Any) -> Episode:
    return replace(EPISODE, first_update=first_update, last_update=last_update, **changes)


def losses(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)


def rows(path: Path) -> list[str]:
    """The lines below the header."""
    header, *lines = path.read_text().splitlines()
    assert header == "Episode,Length,Reward,Loss,X-Pos,Time"
    return lines


def test_a_row_has_the_episodes_figures_and_its_mean_loss(tmp_path: Path) -> None:
    log = make_log(tmp_path / "mario.csv")
    log.take_losses(5, losses(9, 1, 2, 6, 9))
    log.take_episodes([episode(1, 4), episode(4, 5, episode_return=-15.5, length=7, final_x=40, time_left=0)])
    assert rows(tmp_path / "mario.csv") == ["1,40,231.0,3,314,397", "2,7,-15.5,9,40,0"]


def test_an_episode_without_an_update_leaves_its_loss_empty(tmp_path: Path) -> None:
    log = make_log(tmp_path / "mario.csv")
    log.take_episodes([episode(0, 0)])
    log.take_losses(3, losses(1, 2, 3))
    log.take_episodes([episode(3, 3)])
    assert rows(tmp_path / "mario.csv") == ["1,40,231.0,,314,397", "2,40,231.0,,314,397"]


def test_a_row_waits_for_the_report_of_its_last_update_and_later_ones_wait_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "mario.csv"
    log = make_log(path)
    log.take_losses(2, losses(1, 2))
    log.take_episodes([episode(1, 4, length=1), episode(2, 2, length=2), episode(3, 7, length=3)])
    log.take_losses(3, losses(3))
    assert rows(path) == []
    log.take_losses(6, losses(4, 5, 6))
    assert rows(path) == ["1,1,231.0,3,314,397", "2,2,231.0,,314,397"]
    log.close()
    assert rows(path)[2:] == ["3,3,231.0,5,314,397"]


def test_a_learner_that_does_not_report_holds_rows_back_for_ten_seconds_at_most(tmp_path: Path) -> None:
    path, clock = tmp_path / "mario.csv", Clock()
    log = make_log(path, clock=clock)
    log.take_losses(2, losses(1, 2))
    log.take_episodes([episode(0, 900)])
    clock.now += 9.9
    log.take_losses(3, losses(6))
    assert rows(path) == []
    clock.now += 0.2
    log.take_episodes([episode(0, 901)])
    assert rows(path) == ["1,40,231.0,3,314,397"]


def test_a_learner_that_went_back_to_a_checkpoint_counts_from_there(tmp_path: Path) -> None:
    log = make_log(tmp_path / "mario.csv")
    log.take_losses(4, losses(1, 1, 1, 1))
    log.take_losses(3, losses(7))  # update 3 for the second time
    log.take_episodes([episode(1, 3), episode(3, 2)])
    assert rows(tmp_path / "mario.csv") == ["1,40,231.0,7,314,397", "2,40,231.0,,314,397"]


def test_the_memory_of_losses_is_bounded(tmp_path: Path) -> None:
    log = make_log(tmp_path / "mario.csv")
    for i in range(1, 5):
        log.take_losses(50_000 * i, np.full(50_000, i, np.float32))
    log.take_episodes([episode(0, 200_000)])
    assert rows(tmp_path / "mario.csv") == ["1,40,231.0,3.5,314,397"]


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "mario.csv"
    make_log(path).take_episodes([EPISODE, EPISODE])
    before = path.read_bytes()
    log = make_log(path, episodes=2)
    assert path.read_bytes() == before
    log.take_losses(505, losses(1, 2, 3, 4, 5))  # 500 updates were of earlier sessions
    log.take_episodes([episode(503, 505)])
    assert path.read_bytes() == before + b"3,40,231.0,4.5,314,397\n"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("", ""),
        ("Episode,Len", ""),
        (f"{HEADER}\n", f"{HEADER}\n"),
        (f"{HEADER}\n1,40,23", f"{HEADER}\n"),
        (HEADER + "\n" + "1,40,231.0,,314,397\n" * 900, HEADER + "\n" + "1,40,231.0,,314,397\n" * 900),
        (HEADER + "\n" + "1,40,231.0,,314,397\n" * 900 + "9", HEADER + "\n" + "1,40,231.0,,314,397\n" * 900),
    ],
)
def test_a_half_written_row_is_removed_and_all_others_stay(found: str, kept: str, tmp_path: Path) -> None:
    path = tmp_path / "mario.csv"
    path.write_text(found)
    make_log(path, episodes=8).take_episodes([EPISODE])
    assert path.read_text() == (kept or f"{HEADER}\n") + "9,40,231.0,,314,397\n"


def test_a_file_that_cannot_be_written_misses_rows_until_it_can(tmp_path: Path) -> None:
    path, said = tmp_path / "mario.csv", list[str]()
    path.mkdir()
    log = make_log(path, warn=said.append)
    log.take_episodes([EPISODE])
    path.rmdir()
    log.take_episodes([EPISODE])
    assert rows(path) == ["2,40,231.0,,314,397"]
    assert said[0].startswith(f"warning: {path} cannot be written (Is a directory)")


def test_episodes_know_the_learners_updates_from_their_start_to_their_end() -> None:
    run = SerialRun(
        Config(
            env=EnvConfig(name="gridworld", max_steps=9),
            agent=AgentConfig(watkins=False, tree_backup=False),
            actors=ActorsConfig(envs_per_actor=1, chunk_length=1, epsilon=1.0),
            replay=ReplayConfig(shards=1, capacity=1000, min_size=40, samples_per_insert=8),
            learner=LearnerConfig(batch_size=8, broadcast_period=1),
        )
    )
    played = run.run(150)
    run.close()
    trained = [e for e in played if e.first_update > 0]
    before = played[: played.index(trained[0])]
    assert len(trained) > 10
    assert all((e.first_update, e.last_update) == (0, 0) for e in before)
    assert [later.first_update for later in trained[1:]] == [earlier.last_update for earlier in trained[:-1]]
    assert 0 <= run.learner.updates - trained[-1].last_update <= 9
    # One update per step, as the notebook learns; the limiter lets the two drift apart by a few.
    updates = sum(e.last_update - e.first_update for e in trained)
    assert updates == pytest.approx(sum(e.length for e in trained), abs=9)


class _Chunks:
    def push(self, chunk: Chunk) -> None:
        """Nobody needs it."""


class _Late:
    """Gives the weights of a learner under way at the third step."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._steps = 0

    def newer_than(self, version: int) -> Weights | None:
        self._steps += 1
        return self._weights if self._steps >= 3 and version < self._weights.version else None


def test_updates_from_before_an_actor_joined_are_not_of_its_episodes() -> None:
    env = EnvConfig(name="gridworld", max_steps=5)
    actors = ActorsConfig(envs_per_actor=4, epsilon=0.5)
    network = build_network(environment_spec(name="gridworld"), False, 0)
    actor = build_actor(
        env=env,
        agent=AgentConfig(quantiles=1),
        actors=actors,
        index=0,
        count=1,
        seed=1,
        incarnation=1,
        writer=_Chunks(),
        weights=_Late(Weights(30, 750, 0.0, flatten(network))),
    )
    played = [e for _ in range(12) for e in actor.step()]
    longest = [e for e in played if e.length == 5]
    assert longest
    assert all((e.first_update, e.last_update) == (750, 750) for e in longest)
