"""What is said of a checkpoint's running episodes is what the actors report."""

from driver.taken_over import TakenOver


def test_it_is_said_once_and_when_the_last_actor_has_reported() -> None:
    said: list[str] = []
    taken_over = TakenOver(said.append)
    taken_over.expect([0, 1], environments=6)
    taken_over.take(1, 2)
    assert said == []
    taken_over.take(0, 2)
    taken_over.tell()
    assert said == ["the actors' episodes go on where they were (4 of 6)"]


def test_an_actor_that_is_gone_before_it_reports_is_not_waited_for_and_not_counted() -> None:
    said: list[str] = []
    taken_over = TakenOver(said.append)
    taken_over.expect([0, 1], environments=4)
    taken_over.take(0, 2)
    taken_over.leave_out(1)
    taken_over.take(1, 0)  # its successor, with new episodes
    assert said == ["the actors' episodes go on where they were (2 of 4)"]


def test_what_is_known_at_the_end_is_said() -> None:
    said: list[str] = []
    taken_over = TakenOver(said.append)
    taken_over.expect([0, 1], environments=4)
    taken_over.take(0, 2)
    taken_over.tell()
    assert said == ["the actors' episodes go on where they were (2 of 4)"]


def test_nothing_is_said_where_no_episode_goes_on() -> None:
    said: list[str] = []
    taken_over = TakenOver(said.append)
    taken_over.expect([0], environments=2)
    taken_over.take(0, 0)
    taken_over.tell()
    TakenOver(said.append).tell()
    assert said == []
