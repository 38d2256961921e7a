"""Starts the roles, keeps them going a slice at a time, and replaces those that die or hang."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.remote import ActorReport, EvaluationReport
from common.errors import UserError
from common.types import ShardStats
from driver.calls import Calls, Failure, NoProgressError
from driver.clock import RunningClock
from driver.counters import Counters
from driver.failures import RunFailedError, cause, failed, is_death
from driver.filling import Filling
from driver.limits import Limits
from driver.nodes import alive_nodes
from driver.patience import Patience, has_place
from driver.role_names import ACTOR, EVALUATOR, LEARNER, SHARD, actor_role, named, shard_role, split
from driver.roles import Roles
from driver.slots import Listener, Recovery, Slot, answered
from driver.standstill import Standstill
from driver.taken_over import TakenOver
from learner.remote import LearnerReport

_SLICE_S = 1.0
_STATS_INTERVAL_S = 1.0
_MAX_DEATHS_IN_A_ROW = 5
_INCARNATIONS_PER_SESSION = 1_000
# The last slice of an evaluation draws its animation, which takes a multiple of a slice for a long episode.
_ANIMATION_PATIENCE = 5.0
_FRESH_STATS_S = 5.0
# In which a learner may have published weights since it was last heard, at its greatest speed: it is about one.
_UNTOLD_SLICES = 4


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
    _retired: dict[int, int] = field(default_factory=dict)  # the next incarnations of actors that were ended
    _count: int = 0  # of actors
    _most_updates: int = 0  # that a learner of this run has had
    _most_versions: int = 1  # of weights, that a learner has published between two answers
    _evaluating: bool = False
    _stopping: bool = False
    _next_stats: float = 0.0

    def __post_init__(self) -> None:
        self._filling = Filling(self.recovery.fill)
        self._patience = Patience(self.roles.config.ray.hang_s, self.roles.placement)
        self._standstill = Standstill(self.listener.event, RunningClock())
        self._taken_over = TakenOver(self.listener.event)

    @property
    def shards(self) -> tuple[Any, ...]:
        """Handles of the replay shards."""
        return tuple(slot.handle for slot in self._shards)

    @property
    def filling(self) -> bool:
        """Whether a new shard still lacks its contents, and a checkpoint would do so too."""
        return self._filling.busy

    @property
    def learner(self) -> Any:
        """The learner's handle; None before it was made."""
        return self._slots[LEARNER].handle if LEARNER in self._slots else None

    @property
    def evaluator(self) -> Any:
        """The evaluator's handle; None where there is none."""
        return self._slots[EVALUATOR].handle if EVALUATOR in self._slots else None

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
        self._count, self._most_updates = self.roles.plan.actors, self.counters.updates
        environments = self._count * self.roles.config.actors.envs_per_actor
        self._taken_over.expect(actor_states.keys() & range(self._count), environments)
        for index in range(self.roles.config.replay.shards):
            self._slots[shard_role(index)] = Slot(self.roles.shard(index, incarnation), incarnation)
        fill(self.shards)
        self._slots[LEARNER] = Slot(self._new_learner(learner_state), incarnation)
        for index in range(self._count):
            self._add_actor(index, actor_states.get(index))
        self._run_learner()
        if self.roles.config.eval.enabled:
            self._slots[EVALUATOR] = Slot(self.roles.evaluator(), incarnation)

    def resize(self, actors: int) -> None:
        """Makes the actors so many: adds some, or ends those with the highest indices; each hears of its new epsilons.

        One that was ended and is added again later has random numbers of its own.
        """
        before, self._count = self._count, actors
        for index in range(actors, before):
            self._remove_actor(index)
        for index in range(min(actors, before)):
            self._slots[actor_role(index)].handle.set_count.remote(actors)
        for index in range(before, actors):
            self._add_actor(index, None)

    def settle(self) -> None:
        """Finds other places for actors that wait in vain where they were sent to."""
        for index, slot in enumerate(self._actors):
            if not slot.reported and self.roles.placement.is_stranded(index) and not has_place(slot.handle):
                self._calls.forget(actor_role(index))
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
        return self._slots[LEARNER].reported and self.actors_alive == self._count

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
            RunFailedError: a role kept dying, or failed in a way that would only come again.
        """
        self._ask_shards()
        self._connect_filled_shards()
        failures = {failure.role: failure for failure in self._calls.poll(timeout_s)}
        for failure in self._calls.overdue(lambda role: self._patience.seconds(role, self._slots[role])):
            failures.setdefault(failure.role, failure)
        # The learner last: for a new one, actors may have to go, also those that took another's place just now.
        for failure in sorted(failures.values(), key=lambda failure: failure.role == LEARNER):
            if failure.role in self._slots:  # else it was ended meanwhile
                self._handle(failure)
        self._end_standstill()

    def evaluate(self, best: float) -> None:
        """Starts an evaluation of the newest policy; its report goes to the listener.

        Args:
            best: see `RemoteEvaluator.begin`.
        """
        if EVALUATOR not in self._slots or self._evaluating:
            return
        self._evaluating = True
        begin = functools.partial(self._begin_evaluation, best)
        self._calls.start(LEARNER, self.learner.policy.remote(), begin)

    def request_state(self, done: Callable[[dict[str, Any]], None]) -> None:
        """Asks the learner for its state, between two of its slices."""
        self._calls.start(LEARNER, self.learner.state.remote(), done)

    def stop(self, timeout_s: float) -> None:
        """Lets the slices that run come to their end, starting no new ones.

        Raises:
            RunFailedError: the learner died meanwhile. Other deaths do not matter any more.
        """
        self._stopping = True
        for role, slot in self._slots.items():
            if not slot.reported and role != LEARNER:  # it may never have been placed
                self._calls.forget(role)
        deadline = time.monotonic() + timeout_s
        while len(self._calls) and time.monotonic() < deadline:
            for failure in self._calls.poll(0.2):
                if failure.role == LEARNER:
                    raise failed(failure)
        self._calls = Calls()
        self._taken_over.tell()

    def wait_until_filled(self, timeout_s: float) -> None:
        """Gives new shards the time to get their contents, for a last checkpoint that has them too."""
        self._filling.wait(timeout_s)

    def close(self) -> None:
        """Ends the filling of shards, so that no thread asks Ray for anything after its end."""
        self._filling.close()

    @property
    def _actors(self) -> list[Slot]:
        slots = (self._slots.get(actor_role(index)) for index in range(self._count))
        return [slot for slot in slots if slot is not None]  # some are not there yet while a run starts

    @property
    def _shards(self) -> list[Slot]:
        return [self._slots[shard_role(index)] for index in range(self.roles.config.replay.shards)]

    @property
    def _filled_shards(self) -> list[Any]:
        """What actors and learner are to use: what they put into a shard that is being filled would be lost."""
        return [slot.handle if slot.predecessor is None else slot.predecessor for slot in self._shards]

    def _first_incarnation(self) -> int:
        # A resumed run must not replay the random numbers of its earlier sessions.
        return self.counters.sessions * _INCARNATIONS_PER_SESSION

    def _new_actor(self, index: int, incarnation: int, state: dict[str, Any] | None = None) -> Any:
        return self.roles.actor(index, self._count, incarnation, self._filled_shards, self.learner, state)

    def _add_actor(self, index: int, state: dict[str, Any] | None) -> None:
        incarnation = self._retired.get(index, self._first_incarnation())
        slot = self._slots[actor_role(index)] = Slot(self._new_actor(index, incarnation, state), incarnation)
        if state is not None:
            reference = slot.handle.episodes_taken_over.remote()
            self._calls.start(actor_role(index), reference, functools.partial(self._taken_over.take, index))
        self._run_actor(index)

    def _remove_actor(self, index: int) -> None:
        slot = self._slots.pop(actor_role(index))
        self._retired[index] = slot.incarnation + 1
        self._calls.forget(actor_role(index))
        self._taken_over.leave_out(index)
        self.roles.placement.release(index)
        ray.kill(slot.handle)

    def _new_learner(self, state: dict[str, Any] | None) -> Any:
        done = self.limits.fraction(self.counters)
        return self.roles.learner(self._filled_shards, state, self.counters.weight_version, done)

    def _run_actor(self, index: int) -> None:
        if self._stopping:
            return
        remaining = self.limits.remaining_env_steps(self.counters)
        share = None if remaining is None else math.ceil(remaining / self._count)
        reference = self._slots[actor_role(index)].handle.run.remote(_SLICE_S, share)
        self._calls.start(actor_role(index), reference, lambda report: self._actor_answered(index, report))

    def _actor_answered(self, index: int, report: ActorReport) -> None:
        slot = self._slots[actor_role(index)]
        slot.epsilons = (report.epsilon_low, report.epsilon_high)
        answered(slot, progress=report.env_steps > 0)
        self._standstill.take_actor(report)
        self.listener.actor(report)
        self._run_actor(index)

    def _run_learner(self) -> None:
        if self._stopping:
            return
        remaining, done = self.limits.remaining_updates(self.counters), self.limits.fraction(self.counters)
        reference = self.learner.run.remote(_SLICE_S, remaining, done)
        self._calls.start(LEARNER, reference, self._learner_answered)

    def _learner_answered(self, report: LearnerReport) -> None:
        # A learner that always falls back to its last checkpoint before it gets further makes no progress.
        answered(self._slots[LEARNER], progress=report.total_updates > self._most_updates)
        self._most_updates = max(self._most_updates, report.total_updates)
        self._most_versions = max(self._most_versions, report.version - self.counters.weight_version)
        self._standstill.take_learner(report)
        self.listener.learner(report)
        self._run_learner()

    def _ask_shards(self) -> None:
        if time.monotonic() < self._next_stats or self._stopping:
            return
        self._next_stats = time.monotonic() + _STATS_INTERVAL_S
        for index, shard in enumerate(self.shards):
            if not self._calls.waits_for(shard_role(index)):
                done = functools.partial(self._shard_answered, index)
                self._calls.start(shard_role(index), shard.stats.remote(), done)

    def _shard_answered(self, index: int, stats: ShardStats) -> None:
        answered(self._slots[shard_role(index)], progress=stats.inserts > 0)
        self.listener.shard(index, stats)

    def _begin_evaluation(self, best: float, policy: tuple[int, list[Any]]) -> None:
        updates, references = policy
        reference = self._slots[EVALUATOR].handle.begin.remote(references, updates, best)
        self._calls.start(EVALUATOR, reference, lambda _: self._run_evaluator())

    def _run_evaluator(self) -> None:
        if not self._stopping:
            reference = self._slots[EVALUATOR].handle.run.remote(_SLICE_S)
            self._calls.start(EVALUATOR, reference, self._evaluator_answered, patience=_ANIMATION_PATIENCE)

    def _evaluator_answered(self, report: EvaluationReport | None) -> None:
        answered(self._slots[EVALUATOR], progress=report is not None)
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
        if kind == ACTOR:
            self._replace_actor(index)
        elif kind == SHARD:
            self._replace_shard(index)
        elif kind == LEARNER:
            self._replace_learner()
        else:
            self._slots[EVALUATOR].hold(self.roles.evaluator())
            self._evaluating = False

    def _end_standstill(self) -> None:
        """Counts a death of the learner and of all actors where they have waited for each other for too long.

        The limiters never refuse both, so one side does not take what it could have; which, its replacement shows.
        """
        self._standstill.look()
        if not self._shards_serve():
            self._standstill.excuse()
        hang_s = self.roles.config.ray.hang_s
        if self._standstill.both_s < hang_s:
            return
        self._standstill.excuse()
        actors = [actor_role(index) for index in self.actors]
        for role in (*actors, LEARNER):
            self._handle(Failure(role, NoProgressError(f"actors and learner waited for each other for {hang_s:g} s")))

    def _shards_serve(self) -> bool:
        """Whether all shards are full and answer: those that do not are found by that."""
        now = time.monotonic()
        return all(slot.predecessor is None and now - slot.heard < _FRESH_STATS_S for slot in self._shards)

    def _bury(self, failure: Failure) -> None:
        """Counts a death and ends what is left of the process; the run with it, if the role keeps dying."""
        role, slot = failure.role, self._slots[failure.role]
        slot.deaths_in_a_row += 1
        if slot.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise RunFailedError(
                f"{named(role)} died {slot.deaths_in_a_row} times in a row without progress: {cause(failure.error)}"
            )
        slot.incarnation += 1
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
        self._taken_over.leave_out(index)
        slot = self._slots[actor_role(index)]
        slot.hold(self._new_actor(index, slot.incarnation))
        self._run_actor(index)

    def _replace_shard(self, index: int) -> None:
        """The others serve on while the new one is filled."""
        slot = self._slots[shard_role(index)]
        if slot.predecessor is None:
            slot.predecessor = slot.handle
        slot.hold(self.roles.shard(index, slot.incarnation))
        self._filling.begin(index, slot.handle)

    def _connect_filled_shards(self) -> None:
        filled = self._filling.take_filled()
        for index in filled:
            self._slots[shard_role(index)].predecessor = None
        if filled:
            shards = self._filled_shards
            self.learner.set_shards.remote(shards)
            for slot in self._actors:
                slot.handle.set_shards.remote(shards)

    def _replace_learner(self) -> None:
        if not self._calls.waits_for(EVALUATOR):
            self._evaluating = False  # it was waiting for the learner's policy
        try:
            state = self.recovery.learner_state()
        except UserError as error:
            raise RunFailedError(f"the learner died and cannot be replaced: {error}") from error
        before, self.counters.updates = self.counters.updates, 0 if state is None else state["updates"]
        if before > self.counters.updates:
            self.listener.event(f"{before - self.counters.updates:,} updates are to be made again")
        # Versions never go back, which a policy's lag counts by.
        self.counters.weight_version += _UNTOLD_SLICES * self._most_versions
        displaced = self._displace_actors()
        self._slots[LEARNER].hold(self._new_learner(state))
        self._run_learner()
        for index in displaced:
            self._add_actor(index, None)
        for slot in self._actors:
            slot.handle.set_learner.remote(self.learner)

    def _displace_actors(self) -> range:
        """Ends the actors that a cluster which has shrunk has no room for beside the learner; returns their indices."""
        placement = self.roles.placement
        displaced = range(placement.room(keep=False) if placement.home else self._count, self._count)
        for index in displaced:
            self._remove_actor(index)
        return displaced
