"""What the user sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.types import Episode

_PLAIN_INTERVAL_S = 10.0
_RECENT = 50  # episodes


@dataclass
class Status:
    """The figures of the display."""

    time_s: float = 0.0
    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    env_steps_per_s: float = 0.0
    updates_per_s: float = 0.0
    replay_size: int = 0
    replay_capacity: int = 1
    samples_per_insert: float = 0.0
    wait_fraction: float = 0.0
    epsilon_low: float = 0.0
    epsilon_high: float = 0.0
    actors: int = 0  # that answer
    actors_wanted: int = 0
    fraction: float = 0.0  # of the run
    evaluation: str = "none yet"
    longest: int = 0  # agent steps of the session's longest training episode
    recent: deque[Episode] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def take(self, episodes: Sequence[Episode]) -> None:
        """Remembers the last episodes."""
        self.recent.extend(episodes)
        self.longest = max([self.longest, *(episode.length for episode in episodes)])

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at the run's mean speed; unknown at the start."""
        return self.time_s * (1 - self.fraction) / self.fraction if self.fraction > 0.001 else None

    @property
    def clear_rate(self) -> float:
        """Of the last training episodes."""
        return sum(e.clear for e in self.recent) / len(self.recent) if self.recent else 0.0

    @property
    def mean_length(self) -> str:
        """Of the last training episodes, agent steps."""
        return _mean(episode.length for episode in self.recent)

    @property
    def mean_return(self) -> str:
        """Of the last training episodes."""
        return _mean(episode.episode_return for episode in self.recent)

    def last_x(self, count: int) -> list[int]:
        """Largest x of the last episodes."""
        return [episode.x_pos for episode in list(self.recent)[-count:]]


class _LastingConsole(Console):
    """Goes silent when its reader is gone (`launch.py | head`): the training goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _redirect_to_nothing()


class _LastingOutput:
    """Standard output that loses what cannot be written, on a full disk or a terminal that is gone."""

    def __init__(self) -> None:
        self._file = sys.stdout  # rich puts another one there while it is live

    def write(self, text: str) -> int:
        """All of it, if it can be."""
        return int(self._try(lambda: self._file.write(text)))

    def flush(self) -> None:
        """What was written until now."""
        self._try(self._file.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    @staticmethod
    def _try(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except BrokenPipeError:
            raise
        except OSError:
            return 0


def _redirect_to_nothing() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Display:
    """Use as a context manager; `update` as often as there is news."""

    def __init__(self, console: Console | None = None) -> None:
        output = cast(IO[str], _LastingOutput())
        self._console = console or _LastingConsole(file=output, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._next_plain = 0.0

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        try:
            sys.stdout.flush()
        except OSError:  # Python would try once more at its end, and call it an error of its own
            _redirect_to_nothing()

    def restore(self) -> None:
        """Makes the terminal usable, for an end that comes without `__exit__`."""
        if self._live is not None:
            self._live.stop()

    def say(self, message: str) -> None:
        """One line that stays."""
        self._console.print(Text(message))

    def update(self, status: Status) -> None:
        """Redraws the live display, or prints a plain line when it is time for one."""
        if self._live is not None:
            self._live.update(_render(status, self._console.width), refresh=True)
        elif time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + _PLAIN_INTERVAL_S
            self._console.print(Text(plain_line(status)))


def plain_line(status: Status) -> str:
    """One line of progress for logs and pipes."""
    return (
        f"{clock(status.time_s)}  steps {status.env_steps:,} ({status.env_steps_per_s:.0f}/s)  "
        f"updates {status.updates:,} ({status.updates_per_s:.1f}/s)  "
        f"replay {status.replay_size:,} ({100 * status.replay_size / status.replay_capacity:.0f}%)  "
        f"samples/insert {status.samples_per_insert:.2f}  eps {_epsilons(status)}  "
        f"episodes {status.episodes:,} (longest {status.longest:,})  length {status.mean_length}  "
        f"return {status.mean_return}  x {_mean(status.last_x(10))}  clear {100 * status.clear_rate:.0f}%  "
        f"eval {status.evaluation}  ETA {_eta(status)}"
    )


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _render(status: Status, width: int) -> Group:
    table = Table.grid(padding=(0, 2), expand=False)
    rows = [
        (
            "env steps",
            f"{status.env_steps:,}",
            f"{status.env_steps_per_s:,.0f}/s by {_actors(status)}",
        ),
        (
            "updates",
            f"{status.updates:,}",
            f"{status.updates_per_s:,.1f}/s, waiting {100 * status.wait_fraction:.0f} %",
        ),
        ("replay", f"{status.replay_size:,}", f"{100 * status.replay_size / status.replay_capacity:.0f} % full"),
        ("samples/insert", f"{status.samples_per_insert:.2f}", f"epsilon {_epsilons(status)}"),
        ("episodes", f"{status.episodes:,}", f"last x {' '.join(str(x) for x in status.last_x(6)) or '-'}"),
        ("length", status.mean_length, f"mean of the last {len(status.recent)}, longest {status.longest:,}"),
        ("return", status.mean_return, f"mean of the last {len(status.recent)}"),
        ("clear rate", f"{100 * status.clear_rate:.0f} %", f"of the last {len(status.recent)} training episodes"),
        ("evaluation", status.evaluation, ""),
    ]
    for label, value, note in rows:
        table.add_row(Text(label, style="bold"), value, Text(note, style="dim"))
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=1.0, completed=status.fraction, width=max(10, min(50, width - 40))),
        f"{100 * status.fraction:.0f} %",
        f"{clock(status.time_s)}, ETA {_eta(status)}",
    )
    return Group(table, bar)


def _actors(status: Status) -> str:
    missing = f" of {status.actors_wanted}" if status.actors < status.actors_wanted else ""
    return f"{status.actors}{missing} actor{'' if status.actors == status.actors_wanted == 1 else 's'}"


def _epsilons(status: Status) -> str:
    low, high = status.epsilon_low, status.epsilon_high
    if not status.actors:
        return "-"
    return f"{low:.4f}" if low == high else f"{low:.4f}…{high:.2f}"


def _mean(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{statistics.fmean(listed):,.1f}" if listed else "-"


def _eta(status: Status) -> str:
    return "-" if status.eta_s is None else clock(status.eta_s)
