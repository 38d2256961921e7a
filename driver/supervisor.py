"""Starts the roles, keeps them going a slice at a time, and replaces the actors that die."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from actors.remote import ActorReport, EvaluationReport
from common.errors import first_line
from common.types import ShardStats
from driver.calls import Calls, Failure
from driver.counters import Counters
from driver.limits import Limits
from driver.roles import Roles
from learner.remote import LearnerReport

_SLICE_S = 1.0
_STATS_INTERVAL_S = 1.0
_MAX_DEATHS_IN_A_ROW = 5
_INCARNATIONS_PER_SESSION = 1_000


class RunFailedError(Exception):
    """The run cannot go on; the message is its cause in one line."""


@dataclass
class Listener:
    """Whom the supervisor tells what."""

    actor: Callable[[ActorReport], None]
    learner: Callable[[LearnerReport], None]
    shard: Callable[[int, ShardStats], None]
    evaluation: Callable[[EvaluationReport], None]
    event: Callable[[str], None]  # one line for the user


@dataclass
class _ActorSlot:
    """One actor index: the process that holds it now, and its predecessors."""

    handle: Any
    incarnation: int
    deaths_in_a_row: int = 0
    epsilons: tuple[float, float] = (0.0, 0.0)
    reported: bool = False  # since the last replacement


@dataclass
class Supervisor:
    """The running system. One call in flight per actor and learner; each answer starts the next slice."""

    roles: Roles
    limits: Limits
    counters: Counters
    listener: Listener
    _calls: Calls = field(default_factory=Calls)
    _shards: list[Any] = field(default_factory=list)
    _actors: dict[int, _ActorSlot] = field(default_factory=dict)
    _learner: Any = None
    _evaluator: Any = None
    _evaluating: bool = False
    _stopping: bool = False
    _next_stats: float = 0.0

    @property
    def shards(self) -> tuple[Any, ...]:
        """Handles of the replay shards."""
        return tuple(self._shards)

    def start(self, learner_state: dict[str, Any] | None, fill: Callable[[Sequence[Any]], None]) -> None:
        """Creates every process.

        Args:
            learner_state: what the learner continues from, if anything.
            fill: is given the empty shards before anybody else knows of them.
        """
        incarnation = self._first_incarnation()
        self._shards = [self.roles.shard(index, incarnation) for index in range(self.roles.config.replay.shards)]
        fill(self.shards)
        self._learner = self.roles.learner(self._shards, learner_state, self.counters.weight_version)
        for index in range(self.roles.plan.actors):
            self._actors[index] = _ActorSlot(self._new_actor(index, incarnation), incarnation)
            self._run_actor(index)
        self._run_learner()
        if self.roles.config.eval.enabled:
            self._evaluator = self.roles.evaluator()

    @property
    def actors_alive(self) -> int:
        """Actors that have answered since they were last replaced."""
        return sum(slot.reported for slot in self._actors.values())

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation is going on."""
        return self._evaluating

    @property
    def epsilons(self) -> tuple[float, float]:
        """The lowest and highest exploration of all environments."""
        pairs = [slot.epsilons for slot in self._actors.values() if slot.reported]
        return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else (0.0, 0.0)

    def poll(self, timeout_s: float) -> None:
        """Handles what is answered within the time.

        Raises:
            RunFailedError: a process died that is not replaced, or an actor kept dying.
        """
        self._ask_shards()
        for failure in self._calls.poll(timeout_s):
            self._handle(failure)

    def evaluate(self, best: float) -> None:
        """Starts an evaluation of the newest policy; its report goes to the listener.

        Args:
            best: see `RemoteEvaluator.begin`.
        """
        if self._evaluator is None or self._evaluating:
            return
        self._evaluating = True
        begin = functools.partial(self._begin_evaluation, best)
        self._calls.start("evaluator", self._learner.policy.remote(), begin)

    def request_state(self, done: Callable[[dict[str, Any]], None]) -> None:
        """Asks the learner for its state, between two of its slices."""
        self._calls.start("learner", self._learner.state.remote(), done)

    def stop(self, timeout_s: float) -> None:
        """Lets the slices that run come to their end, starting no new ones.

        Raises:
            RunFailedError: the learner died meanwhile. Other deaths do not matter any more.
        """
        self._stopping = True
        for index, slot in self._actors.items():
            if not slot.reported:  # it may never have been placed
                self._calls.forget(f"actor {index}")
        deadline = time.monotonic() + timeout_s
        while len(self._calls) and time.monotonic() < deadline:
            for failure in self._calls.poll(0.2):
                if failure.role == "learner":
                    raise _failed(failure)
        self._calls = Calls()

    def learner_state(self, timeout_s: float) -> dict[str, Any]:
        """The learner's state.

        Raises:
            RunFailedError: it is dead, or does not answer in time.
        """
        try:
            state: dict[str, Any] = ray.get(self._learner.state.remote(), timeout=timeout_s)
        except RayError as error:
            raise _failed(Failure("learner", error)) from error
        return state

    def final_shard_stats(self, timeout_s: float) -> None:
        """Brings the shards' counters up to date after `stop`, as far as the shards still answer."""
        references = {shard.stats.remote(): index for index, shard in enumerate(self._shards)}
        ready, _ = ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
        for reference in ready:
            with contextlib.suppress(RayError):  # the counters stay as they were last heard
                self.listener.shard(references[reference], ray.get(reference))

    def final_evaluation(self, best: float, timeout_s: float, interrupted: Callable[[], bool]) -> None:
        """Evaluates the policy of the last broadcast, after `stop`; its report goes to the listener.

        Given up, with a line, when it takes too long, when `interrupted` says so or when the evaluator is gone.
        """
        if self._evaluator is None:
            return
        deadline = time.monotonic() + timeout_s
        try:
            updates, references = ray.get(self._learner.policy.remote(), timeout=timeout_s)
            ray.get(self._evaluator.begin.remote(references, updates, best), timeout=timeout_s)
            while time.monotonic() < deadline and not interrupted():
                report = ray.get(self._evaluator.run.remote(_SLICE_S), timeout=timeout_s)
                if report is not None:
                    self.listener.evaluation(report)
                    return
        except RayError as error:
            self.listener.event(f"the final evaluation failed: {_cause(error)}")
            return
        self.listener.event("the final evaluation was cut short")

    def _first_incarnation(self) -> int:
        # A resumed run must not replay the random numbers of its earlier sessions.
        return self.counters.sessions * _INCARNATIONS_PER_SESSION

    def _new_actor(self, index: int, incarnation: int) -> Any:
        return self.roles.actor(index, incarnation, self._shards, self._learner)

    def _run_actor(self, index: int) -> None:
        if self._stopping:
            return
        remaining = self.limits.remaining_env_steps(self.counters)
        share = None if remaining is None else math.ceil(remaining / self.roles.plan.actors)
        reference = self._actors[index].handle.run.remote(_SLICE_S, share)
        self._calls.start(f"actor {index}", reference, lambda report: self._actor_answered(index, report))

    def _actor_answered(self, index: int, report: ActorReport) -> None:
        slot = self._actors[index]
        slot.reported = True
        slot.epsilons = (report.epsilon_low, report.epsilon_high)
        if report.env_steps:
            slot.deaths_in_a_row = 0
        self.listener.actor(report)
        self._run_actor(index)

    def _run_learner(self) -> None:
        if self._stopping:
            return
        reference = self._learner.run.remote(_SLICE_S, self.limits.remaining_updates(self.counters))
        self._calls.start("learner", reference, self._learner_answered)

    def _learner_answered(self, report: LearnerReport) -> None:
        self.listener.learner(report)
        self._run_learner()

    def _ask_shards(self) -> None:
        if time.monotonic() < self._next_stats or self._stopping:
            return
        self._next_stats = time.monotonic() + _STATS_INTERVAL_S
        for index, shard in enumerate(self._shards):
            done = functools.partial(self.listener.shard, index)
            self._calls.start(f"replay shard {index}", shard.stats.remote(), done)

    def _begin_evaluation(self, best: float, policy: tuple[int, list[Any]]) -> None:
        updates, references = policy
        self._calls.start(
            "evaluator", self._evaluator.begin.remote(references, updates, best), lambda _: self._run_evaluator()
        )

    def _run_evaluator(self) -> None:
        if not self._stopping:
            self._calls.start("evaluator", self._evaluator.run.remote(_SLICE_S), self._evaluator_answered)

    def _evaluator_answered(self, report: EvaluationReport | None) -> None:
        if report is None:
            self._run_evaluator()
        else:
            self._evaluating = False
            self.listener.evaluation(report)

    def _handle(self, failure: Failure) -> None:
        kind, _, number = failure.role.partition(" ")
        if kind != "actor" or not isinstance(failure.error, RayActorError):
            raise _failed(failure)
        self._replace_actor(int(number), failure)

    def _replace_actor(self, index: int, failure: Failure) -> None:
        slot = self._actors[index]
        slot.deaths_in_a_row += 1
        if slot.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise RunFailedError(
                f"actor {index} died {slot.deaths_in_a_row} times in a row without playing: {_cause(failure.error)}"
            )
        slot.incarnation += 1
        slot.reported = False
        self.counters.restarts["actor"] = self.counters.restarts.get("actor", 0) + 1
        self.listener.event(f"actor {index} died ({_cause(failure.error)}); a new one takes its place")
        ray.kill(slot.handle)
        slot.handle = self._new_actor(index, slot.incarnation)
        self._run_actor(index)


def _failed(failure: Failure) -> RunFailedError:
    return RunFailedError(f"the {failure.role} failed: {_cause(failure.error)}")


def _cause(error: RayError) -> str:
    """The reason in one line; Ray's own text is a page."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {first_line(error.cause)}"
    if isinstance(error, ActorDiedError) and "creation task" in str(error):
        return _last_line(str(error))
    if isinstance(error, RayActorError):
        return "its process is gone"
    return first_line(error)


def _last_line(text: str) -> str:
    return first_line("\n".join(reversed(text.splitlines())))
