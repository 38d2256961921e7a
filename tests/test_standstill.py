"""A run that stands still says who waits for whom: once, and once more when it goes on."""

from typing import Any

import numpy as np
import pytest

from actors.remote import ActorReport
from driver.standstill import Standstill
from learner.remote import LearnerReport


class Run:
    """A second at a time: what actors and learner report of it, if they answer at all."""

    def __init__(self) -> None:
        self.now = 100.0
        self.said: list[str] = []
        self.standstill = Standstill(self.said.append, lambda: self.now)

    def go(self, seconds: int, *, actors: str, learner: str) -> list[str]:
        """What is said while both are "busy", "waiting" or "silent" for so long."""
        before = len(self.said)
        for _ in range(seconds):
            self.now += 1.0
            if actors != "silent":
                self.standstill.take_actor(actor_report(actors))
            if learner != "silent":
                self.standstill.take_learner(learner_report(learner))
            for _ in range(4):
                self.standstill.look()
        return self.said[before:]


def actor_report(state: str) -> ActorReport:
    busy = state == "busy"
    return ActorReport(200 if busy else 0, [], [], 1.0, 0.5 if busy else 1.0, 1, 0.1, 0.4, 0, {})


def learner_report(state: str) -> LearnerReport:
    busy = state == "busy"
    means: Any = {"loss": 0.1, "td_error": 0.1, "q_mean": 0.1, "grad_norm": 0.1, "policy_lag": 1.0}
    return LearnerReport(
        updates=20 if busy else 0,
        total_updates=100,
        samples=0,
        seconds=1.0,
        waited_s=0.5 if busy else 1.0,
        version=1,
        losses=np.zeros(0, np.float32),
        learning_rate=1e-4,
        lost_priority_updates=0,
        **means,
    )


def test_a_learner_without_actors_says_so_once_and_that_it_goes_on() -> None:
    run = Run()
    assert run.go(60, actors="busy", learner="busy") == []
    assert run.go(29, actors="silent", learner="waiting") == []
    assert run.go(300, actors="silent", learner="waiting") == [
        "the learner waits for the actors: no transitions for 30 s"
    ]
    assert run.go(60, actors="busy", learner="busy") == ["the learner goes on after 330 s without an update"]
    assert run.go(40, actors="silent", learner="waiting") == [
        "the learner waits for the actors: no transitions for 30 s"
    ]


def test_actors_without_a_learner_say_so_once_and_that_they_go_on() -> None:
    run = Run()
    run.go(5, actors="busy", learner="busy")
    assert run.go(300, actors="waiting", learner="silent") == [
        "the actors wait for the learner: there was no room for their transitions for 30 s"
    ]
    assert run.go(5, actors="busy", learner="busy") == ["the actors go on after 301 s without a step"]


def test_both_waiting_is_the_replays() -> None:
    run = Run()
    assert run.go(300, actors="waiting", learner="waiting") == [
        "actors and learner wait for the replay: nothing came in or out for 30 s"
    ]
    assert len(run.go(5, actors="busy", learner="busy")) == 2


def test_how_long_both_have_waited_is_known_unless_there_is_a_reason_or_one_of_them_says_nothing() -> None:
    run = Run()
    run.go(40, actors="waiting", learner="waiting")
    assert run.standstill.both_s == pytest.approx(10, abs=1)
    run.standstill.excuse()
    run.go(20, actors="waiting", learner="waiting")
    assert run.standstill.both_s == pytest.approx(20, abs=1)
    run.go(10, actors="waiting", learner="silent")
    assert run.standstill.both_s == 0
    run.go(20, actors="waiting", learner="waiting")
    assert run.standstill.both_s == pytest.approx(20, abs=1)
    run.go(1, actors="busy", learner="waiting")
    assert run.standstill.both_s == 0


@pytest.mark.parametrize(
    ("actors", "learner"),
    [("busy", "busy"), ("busy", "waiting"), ("waiting", "busy"), ("silent", "silent"), ("busy", "silent")],
)
def test_while_one_side_works_or_nobody_waits_there_is_nothing_to_say_of_the_learner(actors: str, learner: str) -> None:
    said = Run().go(100, actors=actors, learner=learner)
    assert said == (
        ["the actors wait for the learner: there was no room for their transitions for 30 s"]
        if actors == "waiting"
        else []
    )


def test_a_learner_that_is_held_up_by_the_limiter_for_moments_says_nothing() -> None:
    run = Run()
    for _ in range(20):
        assert run.go(25, actors="silent", learner="waiting") == []
        assert run.go(1, actors="busy", learner="busy") == []
