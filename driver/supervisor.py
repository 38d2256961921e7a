"""Starts the roles, keeps them going a slice at a time, and replaces those that die or hang."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from actors.remote import ActorReport, EvaluationReport
from common.errors import UserError
from common.types import ShardStats
from driver.calls import Calls, Failure
from driver.counters import Counters
from driver.failures import RunFailedError, cause, failed, is_death, named, split
from driver.limits import Limits
from driver.nodes import alive_nodes
from driver.roles import Roles
from driver.slots import Listener, Recovery, Slot, answered
from learner.remote import LearnerReport

_SLICE_S = 1.0
_STATS_INTERVAL_S = 1.0
_MAX_DEATHS_IN_A_ROW = 5
_INCARNATIONS_PER_SESSION = 1_000
# The last slice of an evaluation draws its animation, which takes a multiple of a slice for a long episode.
_ANIMATION_PATIENCE = 5.0
_START_PATIENCE = 10.0  # of the first answer, before which a process starts
_ACTOR, _SHARD, _LEARNER, _EVALUATOR = "actor", "replay shard", "learner", "evaluator"


@dataclass
class Supervisor:
    """The running system. One call in flight per actor and learner; each answer starts the next slice."""

    roles: Roles
    limits: Limits
    counters: Counters
    listener: Listener
    recovery: Recovery
    _calls: Calls = field(default_factory=Calls)
    _slots: dict[str, Slot] = field(default_factory=dict)  # by kind and, of shards and actors, number
    _filling: dict[Future[None], int] = field(default_factory=dict)  # new shards
    _retired: dict[int, int] = field(default_factory=dict)  # the next incarnations of actors that were ended
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="fill"))
    _count: int = 0  # of actors
    _evaluating: bool = False
    _stopping: bool = False
    _next_stats: float = 0.0

    @property
    def shards(self) -> tuple[Any, ...]:
        """Handles of the replay shards."""
        return tuple(slot.handle for slot in self._shards)

    @property
    def filling(self) -> bool:
        """Whether a new shard still lacks its contents, and a checkpoint would do so too."""
        return not all(future.done() for future in self._filling)

    @property
    def actors(self) -> dict[int, Any]:
        """Handles, by index, of the actors that answer."""
        return {index: slot.handle for index, slot in enumerate(self._actors) if slot.reported}

    def start(
        self,
        learner_state: dict[str, Any] | None,
        fill: Callable[[Sequence[Any]], None],
        actor_states: Mapping[int, dict[str, Any]],
    ) -> None:
        """Creates every process.

        Args:
            learner_state: what the learner continues from, if anything.
            fill: is given the empty shards before anybody else knows of them.
            actor_states: what actors continue from, by index; the others begin new episodes.
        """
        incarnation = self._first_incarnation()
        self._count = self.roles.plan.actors
        for index in range(self.roles.config.replay.shards):
            self._slots[_shard(index)] = Slot(self.roles.shard(index, incarnation), incarnation)
        fill(self.shards)
        self._slots[_LEARNER] = Slot(self._new_learner(learner_state), incarnation)
        for index in range(self._count):
            self._add_actor(index, actor_states.get(index))
        self._run_learner()
        if self.roles.config.eval.enabled:
            self._slots[_EVALUATOR] = Slot(self.roles.evaluator(), incarnation)

    def resize(self, actors: int) -> None:
        """Makes the actors so many: adds some, or ends those with the highest indices; each hears of its new epsilons.

        One that was ended and is added again later has random numbers of its own.
        """
        before, self._count = self._count, actors
        for index in range(actors, before):
            self._remove_actor(index)
        for index in range(min(actors, before)):
            self._slots[_actor(index)].handle.set_count.remote(actors)
        for index in range(before, actors):
            self._add_actor(index, None)

    def settle(self) -> None:
        """Finds other places for actors that wait in vain where they were sent to."""
        for index, slot in enumerate(self._actors):
            if not slot.reported and self.roles.placement.is_stranded(index):
                self._calls.forget(_actor(index))
                ray.kill(slot.handle)
                slot.incarnation += 1
                self._replace_actor(index)

    @property
    def actors_wanted(self) -> int:
        """Actors that there are to be; some may wait for their place in the cluster."""
        return self._count

    @property
    def actors_alive(self) -> int:
        """Actors that have answered since they were last replaced."""
        return sum(slot.reported for slot in self._actors)

    @property
    def complete(self) -> bool:
        """Whether learner and actors have their places: all answer."""
        return self._slots[_LEARNER].reported and self.actors_alive == self._count

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation is going on."""
        return self._evaluating

    @property
    def epsilons(self) -> tuple[float, float]:
        """The lowest and highest exploration of all environments."""
        pairs = [slot.epsilons for slot in self._actors if slot.reported]
        return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else (0.0, 0.0)

    def poll(self, timeout_s: float) -> None:
        """Handles what is answered within the time.

        Raises:
            RunFailedError: a role failed otherwise than by dying, or kept dying.
        """
        self._ask_shards()
        self._connect_filled_shards()
        failures = {failure.role: failure for failure in self._calls.poll(timeout_s)}
        for failure in self._calls.overdue(self._patience_s):
            failures.setdefault(failure.role, failure)
        # The learner last: for a new one, actors may have to go, also those that took another's place just now.
        for failure in sorted(failures.values(), key=lambda failure: failure.role == _LEARNER):
            if failure.role in self._slots:  # else it was ended meanwhile
                self._handle(failure)

    def evaluate(self, best: float) -> None:
        """Starts an evaluation of the newest policy; its report goes to the listener.

        Args:
            best: see `RemoteEvaluator.begin`.
        """
        if _EVALUATOR not in self._slots or self._evaluating:
            return
        self._evaluating = True
        begin = functools.partial(self._begin_evaluation, best)
        self._calls.start(_LEARNER, self._learner.policy.remote(), begin)

    def request_state(self, done: Callable[[dict[str, Any]], None]) -> None:
        """Asks the learner for its state, between two of its slices."""
        self._calls.start(_LEARNER, self._learner.state.remote(), done)

    def stop(self, timeout_s: float) -> None:
        """Lets the slices that run come to their end, starting no new ones.

        Raises:
            RunFailedError: the learner died meanwhile. Other deaths do not matter any more.
        """
        self._stopping = True
        for role, slot in self._slots.items():
            if not slot.reported and role != _LEARNER:  # it may never have been placed
                self._calls.forget(role)
        deadline = time.monotonic() + timeout_s
        while len(self._calls) and time.monotonic() < deadline:
            for failure in self._calls.poll(0.2):
                if failure.role == _LEARNER:
                    raise failed(failure)
        self._calls = Calls()

    def wait_until_filled(self, timeout_s: float) -> None:
        """Gives new shards the time to get their contents, for a last checkpoint that has them too."""
        wait(self._filling, timeout_s)

    def close(self) -> None:
        """Ends the filling of shards, so that no thread asks Ray for anything after its end."""
        for future, index in self._filling.items():
            if not future.done():
                ray.kill(self._slots[_shard(index)].handle)
        self._threads.shutdown(cancel_futures=True)

    def learner_state(self, timeout_s: float) -> dict[str, Any]:
        """The learner's state.

        Raises:
            RunFailedError: it is dead, or does not answer in time.
        """
        if _LEARNER not in self._slots:
            raise RunFailedError("the learner has not begun")
        try:
            state: dict[str, Any] = ray.get(self._learner.state.remote(), timeout=timeout_s)
        except RayError as error:
            raise failed(Failure(_LEARNER, error)) from error
        return state

    def final_shard_stats(self, timeout_s: float) -> None:
        """Brings the shards' counters up to date after `stop`, as far as the shards still answer."""
        references = {shard.stats.remote(): index for index, shard in enumerate(self.shards)}
        ready, _ = ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
        for reference in ready:
            with contextlib.suppress(RayError):  # the counters stay as they were last heard
                self.listener.shard(references[reference], ray.get(reference))

    def final_evaluation(self, best: float, timeout_s: float, interrupted: Callable[[], bool]) -> None:
        """Evaluates the policy of the last broadcast, after `stop`; its report goes to the listener.

        Given up, with a line, when it takes too long, when `interrupted` says so or when the evaluator is gone.
        """
        if _EVALUATOR not in self._slots:
            return
        evaluator = self._slots[_EVALUATOR].handle
        deadline = time.monotonic() + timeout_s
        try:
            updates, references = ray.get(self._learner.policy.remote(), timeout=timeout_s)
            ray.get(evaluator.begin.remote(references, updates, best), timeout=timeout_s)
            while time.monotonic() < deadline and not interrupted():
                report = ray.get(evaluator.run.remote(_SLICE_S), timeout=timeout_s)
                if report is not None:
                    self.listener.evaluation(report)
                    return
        except RayError as error:
            self.listener.event(f"the final evaluation failed: {cause(error)}")
            return
        self.listener.event("the final evaluation was cut short")

    @property
    def _learner(self) -> Any:
        return self._slots[_LEARNER].handle

    @property
    def _actors(self) -> list[Slot]:
        slots = (self._slots.get(_actor(index)) for index in range(self._count))
        return [slot for slot in slots if slot is not None]  # some are not there yet while a run starts

    def _patience_s(self, role: str) -> float:
        """Seconds that a role's process may take for an answer."""
        hang_s = self.roles.config.ray.hang_s
        if self._slots[role].reported:
            return hang_s
        # One that has not answered yet may wait for its cores in a cluster; shards and evaluator reserve none.
        waits_for_cores = self.roles.placement.home is not None and split(role)[0] in (_ACTOR, _LEARNER)
        return math.inf if waits_for_cores else _START_PATIENCE * hang_s

    @property
    def _shards(self) -> list[Slot]:
        return [self._slots[_shard(index)] for index in range(self.roles.config.replay.shards)]

    @property
    def _filled_shards(self) -> list[Any]:
        """What actors and learner are to use: what they put into a shard that is being filled would be lost."""
        return [slot.handle if slot.predecessor is None else slot.predecessor for slot in self._shards]

    def _first_incarnation(self) -> int:
        # A resumed run must not replay the random numbers of its earlier sessions.
        return self.counters.sessions * _INCARNATIONS_PER_SESSION

    def _new_actor(self, index: int, incarnation: int, state: dict[str, Any] | None = None) -> Any:
        return self.roles.actor(index, self._count, incarnation, self._filled_shards, self._learner, state)

    def _add_actor(self, index: int, state: dict[str, Any] | None) -> None:
        incarnation = self._retired.get(index, self._first_incarnation())
        self._slots[_actor(index)] = Slot(self._new_actor(index, incarnation, state), incarnation)
        self._run_actor(index)

    def _remove_actor(self, index: int) -> None:
        slot = self._slots.pop(_actor(index))
        self._retired[index] = slot.incarnation + 1
        self._calls.forget(_actor(index))
        self.roles.placement.release(index)
        ray.kill(slot.handle)

    def _new_learner(self, state: dict[str, Any] | None) -> Any:
        return self.roles.learner(self._filled_shards, state, self.counters.weight_version)

    def _run_actor(self, index: int) -> None:
        if self._stopping:
            return
        remaining = self.limits.remaining_env_steps(self.counters)
        share = None if remaining is None else math.ceil(remaining / self._count)
        reference = self._slots[_actor(index)].handle.run.remote(_SLICE_S, share)
        self._calls.start(_actor(index), reference, lambda report: self._actor_answered(index, report))

    def _actor_answered(self, index: int, report: ActorReport) -> None:
        slot = self._slots[_actor(index)]
        slot.epsilons = (report.epsilon_low, report.epsilon_high)
        answered(slot, progress=report.env_steps > 0)
        self.listener.actor(report)
        self._run_actor(index)

    def _run_learner(self) -> None:
        if self._stopping:
            return
        reference = self._learner.run.remote(_SLICE_S, self.limits.remaining_updates(self.counters))
        self._calls.start(_LEARNER, reference, self._learner_answered)

    def _learner_answered(self, report: LearnerReport) -> None:
        answered(self._slots[_LEARNER], progress=report.updates > 0)
        self.listener.learner(report)
        self._run_learner()

    def _ask_shards(self) -> None:
        if time.monotonic() < self._next_stats or self._stopping:
            return
        self._next_stats = time.monotonic() + _STATS_INTERVAL_S
        for index, shard in enumerate(self.shards):
            if not self._calls.waits_for(_shard(index)):
                done = functools.partial(self._shard_answered, index)
                self._calls.start(_shard(index), shard.stats.remote(), done)

    def _shard_answered(self, index: int, stats: ShardStats) -> None:
        answered(self._slots[_shard(index)], progress=stats.inserts > 0)
        self.listener.shard(index, stats)

    def _begin_evaluation(self, best: float, policy: tuple[int, list[Any]]) -> None:
        updates, references = policy
        reference = self._slots[_EVALUATOR].handle.begin.remote(references, updates, best)
        self._calls.start(_EVALUATOR, reference, lambda _: self._run_evaluator())

    def _run_evaluator(self) -> None:
        if not self._stopping:
            reference = self._slots[_EVALUATOR].handle.run.remote(_SLICE_S)
            self._calls.start(_EVALUATOR, reference, self._evaluator_answered, patience=_ANIMATION_PATIENCE)

    def _evaluator_answered(self, report: EvaluationReport | None) -> None:
        answered(self._slots[_EVALUATOR], progress=True)
        if report is None:
            self._run_evaluator()
        else:
            self._evaluating = False
            self.listener.evaluation(report)

    def _handle(self, failure: Failure) -> None:
        if not is_death(failure.error):
            raise failed(failure)
        self._bury(failure)
        kind, index = split(failure.role)
        if kind == _ACTOR:
            self._replace_actor(index)
        elif kind == _SHARD:
            self._replace_shard(index)
        elif kind == _LEARNER:
            self._replace_learner()
        else:
            self._slots[_EVALUATOR].handle = self.roles.evaluator()
            self._evaluating = False

    def _bury(self, failure: Failure) -> None:
        """Counts a death and ends what is left of the process; the run with it, if the role keeps dying."""
        role, slot = failure.role, self._slots[failure.role]
        slot.deaths_in_a_row += 1
        if slot.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise RunFailedError(
                f"{named(role)} died {slot.deaths_in_a_row} times in a row without progress: {cause(failure.error)}"
            )
        slot.incarnation += 1
        slot.reported = False
        self._calls.forget(role)
        ray.kill(slot.handle)
        if self.roles.placement.home is not None:
            self.roles.placement.keep(alive_nodes())
        kind, index = split(role)
        name = kind.replace(" ", "_")
        self.counters.restarts[name] = self.counters.restarts.get(name, 0) + 1
        self.listener.event(f"{named(role)} died ({cause(failure.error)}); a new one takes its place")
        self.listener.replaced(kind, index)

    def _replace_actor(self, index: int) -> None:
        slot = self._slots[_actor(index)]
        slot.handle = self._new_actor(index, slot.incarnation)
        self._run_actor(index)

    def _replace_shard(self, index: int) -> None:
        """The others serve on while the new one is filled."""
        slot = self._slots[_shard(index)]
        if slot.predecessor is None:
            slot.predecessor = slot.handle
        slot.handle = self.roles.shard(index, slot.incarnation)
        self._filling[self._threads.submit(self.recovery.fill, index, slot.handle)] = index

    def _connect_filled_shards(self) -> None:
        filled = {future: index for future, index in self._filling.items() if future.done()}
        for future, index in filled.items():
            del self._filling[future]
            future.result()
            if index not in self._filling.values():  # else it died once more meanwhile
                self._slots[_shard(index)].predecessor = None
        if filled:
            shards = self._filled_shards
            self._learner.set_shards.remote(shards)
            for slot in self._actors:
                slot.handle.set_shards.remote(shards)

    def _replace_learner(self) -> None:
        if not self._calls.waits_for(_EVALUATOR):
            self._evaluating = False  # it was waiting for the learner's policy
        try:
            state = self.recovery.learner_state()
        except UserError as error:
            raise RunFailedError(f"the learner died and cannot be replaced: {error}") from error
        self.counters.updates = 0 if state is None else state["updates"]
        displaced = self._displace_actors()
        self._slots[_LEARNER].handle = self._new_learner(state)
        self._run_learner()
        for index in displaced:
            self._add_actor(index, None)
        for slot in self._actors:
            slot.handle.set_learner.remote(self._learner)

    def _displace_actors(self) -> range:
        """Ends the actors that a cluster which has shrunk has no room for beside the learner; returns their indices."""
        placement = self.roles.placement
        displaced = range(placement.room(keep=False) if placement.home else self._count, self._count)
        for index in displaced:
            self._remove_actor(index)
        return displaced


def _actor(index: int) -> str:
    return f"{_ACTOR} {index}"


def _shard(index: int) -> str:
    return f"{_SHARD} {index}"
