"""When checkpoints are written and mirrored, and what the user hears of it."""

import time
from collections.abc import Callable
from typing import Any, Final

from common.config import CheckpointConfig
from driver.checkpoints import CheckpointNotNowError, CheckpointWriter, Saved
from driver.counters import Counters
from driver.evaluations import BestPolicy
from driver.mirror import Mirror
from driver.supervisor import Supervisor
from learner.checkpoint import CheckpointError

_LAST_MIRROR_S: Final = 600.0
_FILLING_S: Final = 60.0
# Then a checkpoint without the replay is better than none: a run that needs it takes older contents.
_MOST_TRIES: Final = 3


class Saving:
    """The checkpoints of one session.

    Args:
        settings: of checkpoints.
        writer: writes them.
        supervisor: has the processes that they are of.
        counters: the run's.
        best: has the best policy's score.
        mirror: copies them elsewhere, if anything does.
        say: takes one line for the user.
    """

    def __init__(
        self,
        settings: CheckpointConfig,
        writer: CheckpointWriter,
        supervisor: Supervisor,
        counters: Counters,
        best: BestPolicy,
        mirror: Mirror | None,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._supervisor = supervisor
        self._counters = counters
        self._best = best
        self._mirror = mirror
        self._say = say
        self._last = (time.monotonic(), counters.updates)
        self._before = self._last
        self._requested = False
        self._failures = 0  # of shards to answer, in a row
        self._wrote_any = False

    @property
    def wrote_any(self) -> bool:
        """Whether the session wrote a checkpoint by now."""
        return self._wrote_any

    def begin_if_due(self, now: float) -> None:
        """Asks for the learner's state and writes it with the rest in the background, where it is time for that.

        Args:
            now: time.monotonic().
        """
        self._report(self._writer.finished())
        self._report_mirror()
        if self._requested or self._writer.busy or self._supervisor.filling:
            return
        last_time, last_updates = self._last
        due = self._settings.interval_s is not None and now - last_time >= self._settings.interval_s
        if (period := self._settings.interval_updates) is not None:
            due |= self._counters.updates // period != last_updates // period
        # Not only when there are more: a learner that took a dead one's place has fewer for a while.
        if due and self._counters.updates != last_updates:
            self._requested = True
            self._before, self._last = self._last, (now, self._counters.updates)
            self._supervisor.request_state(self._answered)

    def learner_replaced(self) -> None:
        """The old one's state will not come."""
        if self._requested:
            self._requested, self._last = False, self._before

    def save(self, learner: dict[str, Any]) -> bool:
        """Writes a checkpoint now, with this state of the learner, and waits for it; tells whether it is there.

        Without the contents of a shard that does not answer: there will be no later one.
        """
        self.wait()
        self._supervisor.wait_until_filled(_FILLING_S)
        self._start(learner, without_replay=True)
        return self.wait()

    def wait(self) -> bool:
        """Waits for the checkpoint that is being written, if any; tells whether that one is there."""
        outcome = self._writer.wait()
        self._report(outcome)
        return not isinstance(outcome, CheckpointError)

    def finish(self, interrupted: Callable[[], bool]) -> str | None:
        """Waits until the last checkpoint is mirrored, ten minutes at most; not once `interrupted` says so.

        Returns:
            Where the session's checkpoints are mirrored, None if no one is.
        """
        if self._mirror is None:
            return None
        if self._mirror.busy:
            self._say(f"mirroring the last checkpoint to {self._mirror.uri} …")
        done = self._mirror.wait(_LAST_MIRROR_S, interrupted)
        self._report_mirror()
        if not done:
            self._say(f"warning: the last checkpoint is not mirrored to {self._mirror.uri}: no longer waited for")
        return self._mirror.uri if self._mirror.mirrored else None

    def close(self) -> None:
        """Ends the writer's thread, after what it is writing."""
        self._writer.close()

    def _answered(self, learner: dict[str, Any]) -> None:
        self._requested = False
        if self._supervisor.filling:  # a shard died since the question
            self._last = self._before
        else:
            self._start(learner, without_replay=self._failures >= _MOST_TRIES)

    def _start(self, learner: dict[str, Any], *, without_replay: bool) -> None:
        # Those of a shard that is not full yet would pass for all that it had.
        with_replay = self._settings.replay and not self._supervisor.filling
        shards = self._supervisor.shards if with_replay else ()
        actors = self._supervisor.actors
        self._writer.start(learner, self._counters, self._best.score, shards, actors, without_replay=without_replay)

    def _report(self, outcome: Saved | CheckpointError | None) -> None:
        if isinstance(outcome, CheckpointNotNowError):
            self._failures += 1
            self._last = self._before  # due at once, when the shard is back
        if isinstance(outcome, CheckpointError):
            self._say(f"warning: {outcome}; earlier checkpoints are whole, training goes on")
        elif outcome is not None:
            self._failures, self._wrote_any = 0, True
            self._say(str(outcome))
            if outcome.remark is not None:
                self._say(f"warning: {outcome.remark}")
            if self._mirror is not None:
                self._mirror.start(outcome.path)

    def _report_mirror(self) -> None:
        for line in self._mirror.take_lines() if self._mirror is not None else ():
            self._say(line)
