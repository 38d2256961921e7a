"""What replacements of dead processes start from: the run's newest whole checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from common.errors import UserError
from driver.replay_files import restore_shard
from learner.checkpoint import CheckpointData, load_newest_checkpoint, newest_checkpoint
from replay.snapshot import file_name

_NOT_WANTED: Final = "it is not taken from checkpoints (--checkpoint.no-replay)"


class Recovery:
    """Reads a run's checkpoints while it goes on.

    Args:
        checkpoints: the folder of the run's checkpoints.
        shards: replay shards of the run.
        with_replay: whether they are to hold the replay, and what they hold of it is to be taken.
        say: takes one line for the user.
        known: whether the session loaded or wrote a checkpoint by now.
    """

    def __init__(
        self,
        checkpoints: Path,
        shards: int,
        with_replay: bool,
        say: Callable[[str], None],
        known: Callable[[], bool],
    ) -> None:
        self._checkpoints = checkpoints
        self._shards = shards
        self._with_replay = with_replay
        self._say = say
        self._known = known

    def learner_state(self) -> dict[str, Any] | None:
        """A new learner's state; None where there is no checkpoint yet.

        Raises:
            UserError: there are checkpoints, and all are damaged; or there were some, and they are gone.
        """
        data = load_newest_checkpoint(self._checkpoints, lambda text: self._say(f"warning: {text}"), extra=False)
        if data is None:
            if self._known():  # as where their disk was unmounted: beginning afresh would lose the run without a word
                raise UserError(
                    f"the checkpoints that this session loaded or wrote are gone from {self._checkpoints}; bring them "
                    "back, as by mounting their disk, and resume the run"
                )
            self._say("there is no checkpoint to go on from: the new learner begins afresh")
            return None
        self._say(f"the new learner goes on from {data.path.name}")
        return data.learner

    def fill(self, index: int, shard: Any) -> None:
        """Gives a new, empty shard what the checkpoint has for it; without that it stays empty."""
        try:
            reason = self._restore(index, shard)
        except UserError as error:
            reason = str(error)
        where = f"replay shard {index}"
        self._say(f"{where} is back as in the last checkpoint" if reason is None else f"{where} begins empty: {reason}")

    def replay_of(self, data: CheckpointData) -> Mapping[str, Path]:
        """The replay's files for a run that begins with this checkpoint: its own, or those of the newest one before
        that has some, where a shard died while it was written.

        Raises:
            UserError: it has some, which are not to be taken; or the ones before are all damaged.
        """
        held = file_name(0) in data.extra
        if held and not self._with_replay:
            raise UserError(_NOT_WANTED)
        if held or not self._with_replay:
            return data.extra
        path = newest_checkpoint(self._checkpoints, holding=file_name(0))
        if path is None:
            return {}
        self._say(f"{data.path.name} holds no replay: that of {path.name} is taken")
        return _files(path)

    def _restore(self, index: int, shard: Any) -> str | None:
        """Why a shard stays empty, if it does."""
        if not self._with_replay:
            return _NOT_WANTED
        while True:
            path = newest_checkpoint(self._checkpoints, holding=file_name(index))
            try:
                reason = restore_shard(index, self._shards, shard, {} if path is None else _files(path))
            except OSError as error:
                reason = str(error)
            if reason is None or path is None or path.exists():
                return reason
            # Another one was finished meanwhile, and this one removed for it.


def _files(path: Path) -> dict[str, Path]:
    return {file.name: file for file in path.iterdir()}
