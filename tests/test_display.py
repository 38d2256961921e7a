"""What a user reads while a run goes on."""

import errno
import io
import sys

import pytest
from rich.console import Console

from common.types import Episode
from driver.display import Display, Status, clock, plain_line


def _episode(x: int, *, clear: bool = False, length: int = 50, total: float = 100.0) -> Episode:
    return Episode("1-1", total, length, x, x, 300, clear, int(clear), False, 0.1)


def _status() -> Status:
    status = Status(
        time_s=90.0,
        env_steps=12_345,
        env_steps_per_s=150.0,
        updates=678,
        updates_per_s=20.5,
        replay_size=2_500,
        replay_capacity=10_000,
        samples_per_insert=7.98,
        epsilon_low=0.0007,
        epsilon_high=0.4,
        actors=2,
        fraction=0.25,
        evaluation="3/10 clear, x 1,234",
    )
    status.take([_episode(700), _episode(900, clear=True)])
    return status


def test_the_plain_line_tells_every_figure() -> None:
    line = plain_line(_status())
    for part in ("1:30", "12,345", "150/s", "678", "20.5/s", "25%", "7.98", "0.0007…0.40", "800", "50%", "3/10 clear"):
        assert part in line
    assert line.endswith("ETA 4:30")


def _learning() -> Status:
    """More episodes than the means are over; one epsilon for all."""
    status = Status(env_steps=23_456, replay_size=19_500, replay_capacity=20_000, actors=1)
    status.epsilon_low = status.epsilon_high = 0.3125
    status.take([_episode(300, length=9_999, total=5_000.0)])
    status.take([_episode(300, length=100, total=200.0) for _ in range(30)])
    status.take([_episode(300, length=201, total=411.0) for _ in range(30)])
    return status


def test_the_figures_of_the_notebooks_bar_are_in_the_plain_line() -> None:
    line = plain_line(_learning())
    # The longest of all; the means of the last 50, which are 20 of the shorter and 30 of the longer ones.
    for part in ("longest 9,999", "length 160.6", "return 326.6", "replay 19,500 (98%)", "eps 0.3125 ", "23,456"):
        assert part in line


def test_the_figures_of_the_notebooks_bar_are_in_the_live_display() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100, force_terminal=True, color_system=None)) as display:
        display.update(_learning())
    for part in ("longest 9,999", "160.6", "326.6", "of the last 50", "19,500", "98 % full", "0.3125", "23,456"):
        assert part in out.getvalue()


def test_a_pipe_gets_plain_lines_seldom_and_every_message() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as display:
        for _ in range(20):
            display.update(_status())
        display.say("something happened")
    assert out.getvalue().count("12,345") == 1
    assert "something happened" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_the_live_display() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100, force_terminal=True, color_system=None)) as display:
        display.update(_status())
    for part in ("12,345", "7.98", "0.0007…0.40", "700 900", "3/10 clear", "ETA 4:30"):
        assert part in out.getvalue()


def test_a_terminal_that_is_left_at_once_gets_its_cursor_back_on_a_line_of_its_own() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100, force_terminal=True, color_system=None)) as display:
        display.update(_status())
        display.restore()
        assert out.getvalue().endswith("\n\x1b[?25h")


def test_an_output_that_takes_nothing_for_a_while_loses_lines_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    out = Full()
    monkeypatch.setattr(sys, "stdout", out)
    with Display() as display:
        display.say("lost")
        display.update(_status())
        out.full = False
        display.say("seen")
    assert out.getvalue() == "seen\n"


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.9, 60, 3_599, 3_600, 36_061)] == [
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]


def test_no_figures_yet_is_no_error() -> None:
    line = plain_line(Status())
    for part in ("ETA -", "longest 0", "length -", "return -", "x -"):
        assert part in line
