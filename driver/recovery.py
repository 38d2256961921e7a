"""What replacements of dead processes start from: the run's newest whole checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError
from driver.replay_files import restore_shard
from learner.checkpoint import CheckpointData, load_checkpoint, newest_checkpoint


class Recovery:
    """Reads a run's checkpoints while it goes on.

    Args:
        checkpoints: the folder of the run's checkpoints.
        shards: replay shards of the run.
        say: takes one line for the user.
    """

    def __init__(self, checkpoints: Path, shards: int, say: Callable[[str], None]) -> None:
        self._checkpoints = checkpoints
        self._shards = shards
        self._say = say

    def learner_state(self) -> dict[str, Any] | None:
        """A new learner's state; None where there is no checkpoint yet.

        Raises:
            UserError: there are checkpoints, and all are damaged.
        """
        data = self._newest()
        if data is None:
            self._say("there is no checkpoint to go on from: the new learner begins afresh")
            return None
        self._say(f"the new learner goes on from {data.path.name}")
        return data.learner

    def _newest(self) -> CheckpointData | None:
        while True:
            path = newest_checkpoint(self._checkpoints, lambda text: self._say(f"warning: {text}"))
            try:
                return None if path is None else load_checkpoint(path)
            except UserError:
                if path is not None and path.exists():
                    raise
                # Another one was finished meanwhile, and this one removed for it.

    def fill(self, index: int, shard: Any) -> None:
        """Gives a new, empty shard what the checkpoint has for it; without that it stays empty."""
        try:
            reason = self._restore(index, shard)
        except UserError as error:
            reason = str(error)
        where = f"replay shard {index}"
        self._say(f"{where} is back as in the last checkpoint" if reason is None else f"{where} begins empty: {reason}")

    def _restore(self, index: int, shard: Any) -> str | None:
        """Why a shard stays empty, if it does."""
        while True:
            path = newest_checkpoint(self._checkpoints)
            try:
                files = {} if path is None else {file.name: file for file in path.iterdir()}
                reason = restore_shard(index, self._shards, shard, files)
            except OSError as error:
                reason = str(error)
            if reason is None or path is None or path.exists():
                return reason
            # Another one was finished meanwhile, and this one removed for it.
