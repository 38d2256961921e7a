"""Writes the run's checkpoints in the background and reads the one to resume from."""

import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from common.config import Config
from common.errors import UserError, first_line
from common.types import EnvironmentSpec
from driver.actor_states import actor_states_writer
from driver.counters import Counters
from driver.evaluations import Score, policy_metadata
from driver.replay_files import ReplayNotSavedError, forget_snapshots, replay_writers
from driver.run_directory import RunDirectory
from driver.run_settings import compare_settings, settings_writer
from learner.checkpoint import (
    CheckpointData,
    CheckpointError,
    load_checkpoint,
    load_newest_checkpoint,
    prune,
    save_checkpoint,
)
from learner.checkpoint_adam import check_adam
from learner.checkpoint_names import return_to
from learner.factory import build_learner
from replay.snapshot import file_name

_log = logging.getLogger("apex-mario")


class Saved(NamedTuple):
    """A checkpoint that is on the disk."""

    path: Path
    bytes: int
    replay_bytes: int  # of those, the shards' contents
    seconds: float
    remark: str | None = None  # what else went wrong

    def __str__(self) -> str:
        replay = f", {self.replay_bytes / 1e6:.1f} MB of it replay" if self.replay_bytes else ""
        return f"checkpoint {self.path.name}: {self.bytes / 1e6:.1f} MB{replay}, in {self.seconds:.1f} s"


class CheckpointNotNowError(CheckpointError):
    """A shard does not answer, so that the checkpoint would lack its contents; once it is replaced there can be one."""


class CheckpointWriter:
    """One checkpoint at a time, in a thread of its own, so that the driver goes on supervising."""

    def __init__(self, run: RunDirectory, config: Config, spec: EnvironmentSpec) -> None:
        """Raises UserError where the run's settings, which go into each checkpoint, cannot be read."""
        self._root = run.checkpoints
        self._settings = settings_writer(run)
        self._config = config
        self._spec = spec
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[Saved] | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and not self._writing.done()

    def start(
        self,
        learner: dict[str, Any],
        counters: Counters,
        best: Score | None,
        shards: Sequence[Any],
        actors: Mapping[int, Any],
        *,
        without_replay: bool,
    ) -> None:
        """Starts writing; the counters are taken as they are now.

        Args:
            learner: its state.
            counters: the run's.
            best: the best policy's score.
            shards: handles of the replay shards whose contents are to be in it.
            actors: handles, by index, of the actors whose running episodes are to be in it.
            without_replay: whether to write it all the same where a shard does not answer.
        """
        state = {"counters": counters.to_json(), "best": best}
        metadata = policy_metadata(self._config, counters, learner["updates"])
        write = functools.partial(self._write, learner, state, metadata, shards, actors, without_replay)
        self._writing = self._thread.submit(write)

    def finished(self) -> Saved | CheckpointError | None:
        """The outcome of the last one, once; None while there is none."""
        if self._writing is None or not self._writing.done():
            return None
        return self._take()

    def wait(self) -> Saved | CheckpointError | None:
        """Waits for the one that is being written."""
        return None if self._writing is None else self._take()

    def close(self) -> None:
        """Ends the thread, after what it is writing."""
        self._thread.shutdown(wait=True)

    def _take(self) -> Saved | CheckpointError:
        assert self._writing is not None
        writing, self._writing = self._writing, None
        try:
            return writing.result()
        except CheckpointError as error:
            # Without its traceback, whose frames hold the learner's state.
            return type(error)(*error.args)
        finally:
            del writing  # which has that traceback too, with this frame in it

    def _write(
        self,
        learner: dict[str, Any],
        state: dict[str, Any],
        metadata: dict[str, Any],
        shards: Sequence[Any],
        actors: Mapping[int, Any],
        without_replay: bool,
    ) -> Saved:
        started = time.monotonic()
        save = functools.partial(save_checkpoint, self._root, learner, spec=self._spec, metadata=metadata, state=state)
        small = {**self._settings, **actor_states_writer(actors)}
        try:
            path = save(extra={**small, **replay_writers(shards)})
        except ReplayNotSavedError as error:
            if not without_replay:
                raise CheckpointNotNowError(f"there is no checkpoint now: {error}") from error
            _log.warning("the checkpoint is without the replay: %s", error)
            path = save(extra=small)
        except MemoryError as error:
            raise CheckpointError("there is no memory for a checkpoint") from error
        finally:
            forget_snapshots(shards)
        try:
            sizes = {file.name: file.stat().st_size for file in path.iterdir()}
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} cannot be looked at: {error.strerror}") from error
        replay = sum(sizes.get(file_name(index), 0) for index in range(len(shards)))
        saved = Saved(path, sum(sizes.values()), replay, time.monotonic() - started)
        try:
            prune(self._root, self._config.checkpoint.keep, spare=path, holding=file_name(0))
        except OSError as error:
            return saved._replace(remark=f"an old checkpoint in {self._root} cannot be removed: {error.strerror}")
        return saved


@dataclass(frozen=True)
class Start:
    """What a run begins with: a new one with nothing, a resumed one with a checkpoint if it has any."""

    data: CheckpointData | None = None
    counters: Counters = field(default_factory=Counters)
    best: Score | None = None
    remarks: list[str] = field(default_factory=list)  # for the user

    @property
    def step(self) -> int:
        """The checkpoint's updates, 0 without one."""
        return 0 if self.data is None else self.data.step


def read_start(run: RunDirectory, chosen: Path | None) -> Start:
    """What a resumed run starts from.

    Args:
        run: its folder.
        chosen: one of its checkpoints; None: the newest whole one.

    Raises:
        UserError: that one is damaged or, without one, all of them are; or it is not of this version, or of other
            settings than the run has.
    """
    remarks: list[str] = []
    if chosen is not None:
        data: CheckpointData | None = load_checkpoint(chosen)
    else:
        data = load_newest_checkpoint(run.checkpoints, lambda text: remarks.append(f"warning: {text}"))
    if data is None:
        return Start()
    counters, best = _read_state(data)
    return Start(data, counters, best, [*remarks, *compare_settings(run, data)])


def return_to_chosen(run: RunDirectory, chosen: Path, begin: Start) -> Start:
    """Makes a checkpoint the run's newest, so that a dead role's replacement goes on from it as well.

    Args:
        run: its folder, whose lock is held.
        chosen: one of its checkpoints.
        begin: what `read_start` made of that one.

    Returns:
        The same, from where the checkpoint lies now, with remarks about those that were set aside.

    Raises:
        UserError: it is none of the run's checkpoints, or one cannot be renamed.
    """
    try:
        path, aside = return_to(run.checkpoints, chosen)
    except OSError as error:
        raise UserError(f"the newer checkpoints in {run.checkpoints} cannot be set aside: {error.strerror}") from None
    remarks = [f"the newer checkpoint {name} is set aside as {place}" for name, place in aside.items()]
    return replace(begin, data=begin.data and begin.data.moved(path), remarks=[*begin.remarks, *remarks])


def check_fits(data: CheckpointData, config: Config, spec: EnvironmentSpec) -> None:
    """Refuses a checkpoint that a learner of these settings could not go on from.

    Raises:
        UserError: it is one of another environment, network or version.
    """
    advice = "restore the run's config.yaml, or take one of its own checkpoints with --resume-from"
    if data.policy.spec != spec:
        raise UserError(f"{data.path} is of another environment than the run; {advice}")
    learner = build_learner(spec=spec, agent=config.agent, learner=config.learner, seed=0, device="cpu")
    fresh = learner.state_dict()
    try:
        learner.load_state_dict(data.learner)
        check_adam(learner.state_dict()["optimizer"], fresh["optimizer"], list(fresh["online"].values()))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{data.path} does not fit the run's settings ({_in_one_line(error)}); {advice}") from None


def _read_state(data: CheckpointData) -> tuple[Counters, Score | None]:
    try:
        return Counters.from_json(data.state["counters"]), _read_score(data.state["best"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{data.path}/state.json is not of this version ({error}); start a new run") from None


def _read_score(best: object) -> Score | None:
    if best is None:
        return None
    if not isinstance(best, list) or len(best) != 3 or not all(type(each) in (int, float) for each in best):
        raise ValueError("the best score is no list of three numbers")
    score = (float(best[0]), float(best[1]), float(best[2]))
    if not 0 <= score[0] <= 1 or not all(map(math.isfinite, score)):
        raise ValueError(f"the best score is {score}")
    return score


def _in_one_line(error: Exception) -> str:
    """The last line, which is where PyTorch names the first weight that does not fit."""
    return first_line("\n".join(reversed(str(error).splitlines()))) or type(error).__name__
