"""What the supervisor makes of deaths: real processes under a real Ray, which do nothing but answer, hang or die."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import pytest
import ray

import driver.supervisor
from actors.remote import ActorReport, EvaluationReport
from common.config import Config, EnvConfig, RayConfig, ReplayConfig
from common.types import ShardStats
from driver.calls import Calls
from driver.counters import Counters
from driver.failures import RunFailedError
from driver.limits import Limits
from driver.nodes import Node
from driver.placement import Placement
from driver.plan import Plan
from driver.slots import Listener
from driver.supervisor import Supervisor
from learner.remote import LearnerReport

pytestmark = pytest.mark.slow  # two minutes

HANG_S = 15.0  # long enough for a busy machine, on which processes that are well hang for seconds
CONFIG = Config(env=EnvConfig(name="gridworld"), replay=ReplayConfig(shards=1), ray=RayConfig(hang_s=HANG_S))


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    # A short path: those of Ray's sockets are limited to 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=2,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder)


class Part:
    """A process of any role: its slices take a moment, and what it reports of them says that it got on or not."""

    def __init__(self, works: bool) -> None:
        self._works = works
        self._slices = 0

    def pid(self) -> int:
        return os.getpid()

    def run(self, seconds: float, limit: int | None = None) -> Any:
        time.sleep(0.02)
        self._slices += 1
        return self.report()

    def report(self) -> Any:
        return None

    def set_shards(self, shards: list[Any]) -> None: ...

    def set_learner(self, learner: Any) -> None: ...


class ActorPart(Part):
    def report(self) -> ActorReport:
        return ActorReport(int(self._works), [], [], 1.0, 0.0, 1, 0.1, 0.4)


class LearnerPart(Part):
    def report(self) -> LearnerReport:
        nothing = np.zeros(0, np.float32)
        return LearnerReport(int(self._works), self._slices, 0, 1.0, 0.0, 1, nothing, 0.0, 0.0, 0.0, 0.0, 0.0, 0)

    def policy(self) -> tuple[int, list[Any]]:
        return self._slices, [ray.put(np.zeros(3, np.float32))]


class ShardPart(Part):
    def stats(self) -> ShardStats:
        return ShardStats(1, 1, 1, int(self._works), 0, 0, 0)


class EvaluatorPart(Part):
    def begin(self, weights: list[Any], updates: int, best: float) -> None: ...

    def report(self) -> EvaluationReport | None:
        return EvaluationReport({}, np.zeros(3, np.float32), 1, 1.0, None, (0, 0)) if self._slices == 3 else None


class Parts:
    """In the place of `driver.roles.Roles`."""

    def __init__(self, works: bool) -> None:
        self.config = CONFIG
        self.plan = Plan(2, "cpu", 1, 1, None)
        self.placement = Placement("here")
        self._works = works
        self.given: list[Any] = []  # to the newest actor: shards

    def _start(self, part: type) -> Any:
        decorate: Any = ray.remote
        return decorate(num_cpus=0, max_restarts=0)(part).remote(self._works)

    def shard(self, *_: Any) -> Any:
        return self._start(ShardPart)

    def learner(self, *_: Any) -> Any:
        return self._start(LearnerPart)

    def actor(self, index: int, count: int, incarnation: int, shards: list[Any], *_: Any) -> Any:
        self.given = shards
        return self._start(ActorPart)

    def evaluator(self) -> Any:
        return self._start(EvaluatorPart)


class NoRecovery:
    """Nothing was saved."""

    def __init__(self) -> None:
        self.may_fill = threading.Event()
        self.may_fill.set()

    def learner_state(self) -> None:
        return None

    def fill(self, index: int, shard: Any) -> None:
        self.may_fill.wait()


class Run:
    """A supervised run, and what it told its listener."""

    def __init__(self, works: bool = True) -> None:
        self.said: list[str] = []
        self.evaluations = 0
        self.counters = Counters()
        ignored: Callable[..., None] = lambda *_: None  # noqa: E731
        listener = Listener(ignored, ignored, ignored, self._evaluated, ignored, self.said.append)
        limits = Limits(None, None, None, None)
        roles: Any = Parts(works)
        self.roles, self.recovery = roles, NoRecovery()
        self.supervisor = Supervisor(roles, limits, self.counters, listener, self.recovery)
        self.supervisor.start(None, lambda shards: None, {})

    def _evaluated(self, report: EvaluationReport) -> None:
        self.evaluations += 1

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.supervisor.poll(0.1)

    def evaluate(self, times: int) -> None:
        """Until there were so many evaluations in all."""

        def there_were() -> bool:
            if self.evaluations < times:
                self.supervisor.evaluate(0.0)
            return self.evaluations >= times

        self.until(there_were)

    def pid(self, role: str) -> int:
        """The process of "actor 0", "learner" …; polls on until it is there."""
        handle = self.supervisor._slots[role].handle
        reference = handle.pid.remote()
        self.until(lambda: bool(ray.wait([reference], timeout=0)[0]))
        pid: Any = ray.get(reference)
        return int(pid)

    def restarts(self, role: str) -> int:
        return self.counters.restarts.get(role.split()[0] if "shard" not in role else "replay_shard", 0)

    def kill(self, *roles: str) -> None:
        """Several at once, with nobody looking before all are dead."""
        pids = [self.pid(role) for role in roles]
        handles = [self.supervisor._slots[role].handle for role in roles]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for handle in handles:
            with pytest.raises(ray.exceptions.RayActorError):
                ray.get(handle.pid.remote(), timeout=30)
        time.sleep(0.5)  # so that the calls in flight are answered too

    def end(self) -> None:
        for slot in self.supervisor._slots.values():
            ray.kill(slot.handle)


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.end()


def test_an_actor_that_dies_with_the_learner_and_gives_way_to_it_is_buried_once(run: Run) -> None:
    run.until(lambda: run.supervisor.actors_alive == 2)
    run.supervisor.roles.placement.update(
        [Node("here", "here", cpus=2, gpus=0, memory_bytes=2**30)]
    )  # room for one actor
    run.kill("learner", "actor 1")
    run.until(lambda: len(run.said) >= 2)
    run.until(lambda: run.supervisor.actors_alive == 2)
    assert run.counters.restarts == {"actor": 1, "learner": 1}
    assert sorted(line.partition(" died")[0] for line in run.said) == ["actor 1", "the learner"]


def test_an_evaluator_may_die_more_often_than_five_times_if_it_gets_on_in_between(run: Run) -> None:
    for death in range(1, 7):
        run.evaluate(death)
        run.supervisor.evaluate(0.0)
        run.kill("evaluator")
        run.until(lambda death=death: run.restarts("evaluator") == death)  # type: ignore[misc]
    assert not run.supervisor.evaluating


def test_an_evaluator_that_hangs_is_replaced(run: Run) -> None:
    run.evaluate(1)
    pid = run.pid("evaluator")
    os.kill(pid, signal.SIGSTOP)
    run.supervisor.evaluate(0.0)
    run.until(lambda: run.restarts("evaluator") == 1)
    assert run.said == [f"the evaluator died (no answer for {HANG_S:g} s); a new one takes its place"]
    run.evaluate(2)


def test_nobody_is_given_a_shard_before_it_is_filled(run: Run) -> None:
    run.until(lambda: run.supervisor.actors_alive == 2)
    run.recovery.may_fill.clear()
    before = run.supervisor.shards
    run.kill("replay shard 0")
    run.until(lambda: run.restarts("replay shard 0") == 1)
    run.kill("actor 0")
    run.until(lambda: run.restarts("actor") == 1)
    assert run.supervisor.filling
    assert run.roles.given == list(before) != list(run.supervisor.shards)
    run.recovery.may_fill.set()
    run.until(lambda: not run.supervisor.filling)
    run.kill("actor 0")
    run.until(lambda: run.restarts("actor") == 2)
    assert run.roles.given == list(run.supervisor.shards)


def test_an_evaluator_that_hangs_before_its_first_answer_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.supervisor, "_START_PATIENCE", 1.0)
    os.kill(run.pid("evaluator"), signal.SIGSTOP)
    run.supervisor.evaluate(0.0)
    run.until(lambda: run.restarts("evaluator") == 1)
    run.evaluate(1)


class LostByAnother(EvaluatorPart):
    """Fails as one does whose weights were lost with the learner that had them."""

    def begin(self, weights: list[Any], updates: int, best: float) -> None:
        raise ray.exceptions.OwnerDiedError(weights[0].hex(), None, "")


def test_what_was_lost_with_another_process_is_a_death_and_not_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.evaluate(1)
    with monkeypatch.context() as patch:
        patch.setattr(run.roles, "evaluator", lambda: run.roles._start(LostByAnother))
        run.supervisor.evaluate(0.0)
        run.kill("evaluator")
        run.until(lambda: run.restarts("evaluator") == 1)
    run.supervisor.evaluate(0.0)
    run.until(lambda: run.restarts("evaluator") == 2)
    run.evaluate(2)


def test_calls_are_overdue_after_their_own_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    calls = Calls()
    calls.start("evaluator", "a reference", print, patience=5)
    calls.start("actor 0", "another", print)
    now = 103.0
    assert [failure.role for failure in calls.overdue(lambda role: 2)] == ["actor 0"]
    now = 111.0
    late = {failure.role: str(failure.error) for failure in calls.overdue(lambda role: 2)}
    assert late == {"evaluator": "no answer for 10 s", "actor 0": "no answer for 2 s"}


@pytest.mark.parametrize("role", ["replay shard 0", "learner", "actor 1"])
def test_five_deaths_of_any_role_without_progress_end_the_run(role: str) -> None:
    run = Run(works=False)
    for death in range(1, 5):
        run.kill(role)
        run.until(lambda death=death: run.restarts(role) == death)  # type: ignore[misc]
    run.kill(role)
    with pytest.raises(RunFailedError, match=f"{role} died 5 times in a row without progress: its process is gone"):
        run.until(lambda: False)
    run.end()


def test_deaths_with_progress_in_between_do_not_add_up(run: Run) -> None:
    for death in range(1, 7):
        run.until(lambda: run.supervisor.actors_alive == 2)
        run.kill("actor 0")
        run.until(lambda death=death: run.restarts("actor") == death)  # type: ignore[misc]
