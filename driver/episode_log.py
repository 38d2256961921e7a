"""`mario.csv`: one row per training episode, in the columns of the tutorials' notebook."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.types import Episode
from driver.run_file import RunFile

HEADER: Final = "Episode,Length,Reward,Loss,X-Pos,Time"
_WINDOW: Final = 100_000  # updates whose losses are remembered
_HOLD_S: Final = 10.0  # the learner reports about once a second


class _Waiting(NamedTuple):
    """An episode whose row is held back."""

    number: int
    episode: Episode
    since: float


class EpisodeLog:
    """Appends a row for each training episode; a file that is there is continued.

    Episodes and losses come from different processes, so an episode's row is held back until the learner has
    reported the episode's last update, for ten seconds at most. Rows are in the order of the episodes' numbers.

    Columns: the episode's number in the run; its agent steps; its undiscounted, unscaled return; the mean loss of the
    learner's updates from its start to its end, as its actor saw them (of the newest 100,000 of them; empty where there
    was none); the x where it ended; the game clock then.

    Where the file cannot be written, training goes on and those rows are missing; see `RunFile`.
    """

    def __init__(
        self,
        path: Path,
        *,
        episodes: int,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the file, or removes the row from it that a power cut left half written.

        Args:
            path: the CSV file.
            episodes: finished in the run so far; the first row's number is one more.
            warn: is told in one line when the file cannot be written.
            clock: seconds.
        """
        self._file = RunFile(path, warn, header=f"{HEADER}\n".encode(), clock=clock)
        self._episodes = episodes
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._updates = 0
        self._losses: NDArray[np.float32] = np.zeros(0, np.float32)  # of the newest updates, up to `_updates`

    def take_episodes(self, episodes: Iterable[Episode]) -> None:
        """Adds finished episodes; they are numbered in this order."""
        now = self._clock()
        for episode in episodes:
            self._episodes += 1
            self._waiting.append(_Waiting(self._episodes, episode, now))
        self._write_due()

    def take_losses(self, total_updates: int, losses: NDArray[np.float32]) -> None:
        """Adds the losses of the newest updates.

        Args:
            total_updates: the learner's updates so far, these included.
            losses: float32 [U], one per update, oldest first.
        """
        # A learner that starts from a checkpoint counts on from there: losses under other numbers are forgotten.
        continues = total_updates - len(losses) == self._updates
        self._losses = np.concatenate([self._losses, losses])[-_WINDOW:] if continues else losses
        self._updates = total_updates
        self._write_due()

    def close(self) -> None:
        """Writes what is still held back."""
        self._append([_row(waiting, self._mean_loss(waiting.episode)) for waiting in self._waiting])
        self._waiting.clear()

    def _write_due(self) -> None:
        rows = []
        while self._waiting and self._is_due(self._waiting[0]):
            waiting = self._waiting.popleft()
            rows.append(_row(waiting, self._mean_loss(waiting.episode)))
        if rows:
            self._append(rows)

    def _is_due(self, waiting: _Waiting) -> bool:
        return waiting.episode.last_update <= self._updates or self._clock() - waiting.since > _HOLD_S

    def _mean_loss(self, episode: Episode) -> float | None:
        """Over the updates after `first_update` up to `last_update`, as far as they are known."""
        before = self._updates - len(self._losses)
        losses = self._losses[max(episode.first_update - before, 0) : max(episode.last_update - before, 0)]
        return float(losses.mean(dtype=np.float64)) if len(losses) else None

    def _append(self, rows: list[str]) -> None:
        self._file.append("".join(f"{row}\n" for row in rows).encode())


def _row(waiting: _Waiting, loss: float | None) -> str:
    number, episode, _ = waiting
    shown = "" if loss is None else f"{loss:.6g}"
    return f"{number},{episode.length},{episode.episode_return},{shown},{episode.final_x},{episode.time_left}"
