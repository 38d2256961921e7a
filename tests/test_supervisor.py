"""What the supervisor makes of deaths: real processes under a real Ray, which do nothing but answer, hang or die."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import pytest
import ray

import driver.patience
import driver.standstill
from actors.remote import ActorReport, EvaluationReport
from common.config import Config, EnvConfig, RayConfig, ReplayConfig
from common.errors import DivergedError, UserError
from common.types import ShardStats
from driver.calls import Calls
from driver.clock import RunningClock
from driver.counters import Counters
from driver.failures import RunFailedError
from driver.limits import Limits
from driver.nodes import Node
from driver.placement import Placement
from driver.plan import Plan
from driver.slots import Listener
from driver.supervisor import Supervisor
from learner.remote import LearnerReport

pytestmark = pytest.mark.slow  # minutes

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
    """A process of any role: its slices take a moment, and what it reports of them says that it got on or not.

    Args:
        works: whether it gets on.
        waits: whether it says that it waited all the time.
    """

    def __init__(self, works: bool, waits: bool) -> None:
        self._works = works
        self._waited_s = float(waits)
        self._slices = 0

    def pid(self) -> int:
        return os.getpid()

    def run(self, seconds: float, limit: int | None = None, done: float = 0.0) -> Any:
        time.sleep(0.02)
        self._slices += 1
        return self.report()

    def report(self) -> Any:
        return None

    def set_shards(self, shards: list[Any]) -> None: ...

    def set_learner(self, learner: Any) -> None: ...


class ActorPart(Part):
    def report(self) -> ActorReport:
        return ActorReport(int(self._works), [], [], 1.0, self._waited_s, 1, 0.1, 0.4, 0, {})


class LearnerPart(Part):
    def report(self) -> LearnerReport:
        done, nothing = int(self._works), np.zeros(0, np.float32)
        total = done * self._slices
        return LearnerReport(done, total, 0, 1.0, self._waited_s, 1, nothing, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-4, 0)

    def policy(self) -> tuple[int, list[Any]]:
        return self._slices, [ray.put(np.zeros(3, np.float32))]


class ShardPart(Part):
    def stats(self) -> ShardStats:
        return ShardStats(1, 1, 1, int(self._works), 0, 0, 0)


class EvaluatorPart(Part):
    def begin(self, weights: list[Any], updates: int, best: float) -> None: ...

    def report(self) -> EvaluationReport | None:
        done = self._works and self._slices == 3
        return EvaluationReport({}, np.zeros(3, np.float32), 1, 1.0, None, (0, 0)) if done else None


class Parts:
    """In the place of `driver.roles.Roles`."""

    def __init__(self, works: bool, waits: bool, hang_s: float) -> None:
        self.config = replace(CONFIG, ray=RayConfig(hang_s=hang_s))
        self.plan = Plan(2, "cpu", 1, 1, None)
        self.placement = Placement("here")
        self._state = (works, waits)
        self.given: list[Any] = []  # to the newest actor: shards

    def start(self, part: type, cpus: int = 0) -> Any:
        decorate: Any = ray.remote
        return decorate(num_cpus=cpus, max_restarts=0)(part).remote(*self._state)

    def shard(self, *_: Any) -> Any:
        return self.start(ShardPart)

    def learner(self, *_: Any) -> Any:
        return self.start(LearnerPart)

    def actor(self, index: int, count: int, incarnation: int, shards: list[Any], *_: Any) -> Any:
        self.given = shards
        return self.start(ActorPart)

    def evaluator(self) -> Any:
        return self.start(EvaluatorPart)


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

    def __init__(self, works: bool = True, waits: bool = False, hang_s: float = HANG_S) -> None:
        self.said: list[str] = []
        self.evaluations = 0
        self.counters = Counters()
        ignored: Callable[..., None] = lambda *_: None  # noqa: E731
        listener = Listener(ignored, ignored, ignored, self._evaluated, ignored, self.said.append)
        limits = Limits(None, None, None, None)
        roles: Any = Parts(works, waits, hang_s)
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

    def until_reported(self, role: str) -> None:
        """Until a process of the role has answered; the evaluator is given something to do."""

        def reported() -> bool:
            self.supervisor.evaluate(0.0)
            return self.supervisor._slots[role].reported

        self.until(reported)

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
    monkeypatch.setattr(driver.patience, "_START", 1.0)
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
        patch.setattr(run.roles, "evaluator", lambda: run.roles.start(LostByAnother))
        run.supervisor.evaluate(0.0)
        run.kill("evaluator")
        run.until(lambda: run.restarts("evaluator") == 1)
    run.supervisor.evaluate(0.0)
    run.until(lambda: run.restarts("evaluator") == 2)
    run.evaluate(2)


def test_calls_are_overdue_after_their_own_patience() -> None:
    now = 100.0
    calls = Calls(lambda: now)
    calls.start("evaluator", "a reference", print, patience=5)
    calls.start("actor 0", "another", print)
    now = 103.0
    assert [failure.role for failure in calls.overdue(lambda role: 2)] == ["actor 0"]
    now = 111.0
    late = {failure.role: str(failure.error) for failure in calls.overdue(lambda role: 2)}
    assert late == {"evaluator": "no answer for 10 s", "actor 0": "no answer for 2 s"}


def test_what_a_paused_driver_could_not_hear_makes_no_call_overdue() -> None:
    now = 100.0
    calls = Calls(RunningClock(lambda: now))
    calls.start("actor 0", "a reference", print)
    now += 3_600.0
    assert calls.overdue(lambda role: 5) == []
    for _ in range(4):
        now += 1.0
        late = calls.overdue(lambda role: 5)
    assert [failure.role for failure in late] == ["actor 0"]


@pytest.mark.parametrize("role", ["replay shard 0", "learner", "actor 1", "evaluator"])
def test_five_deaths_of_any_role_without_progress_end_the_run(role: str) -> None:
    run = Run(works=False)
    for death in range(1, 6):
        run.until_reported(role)  # which is no progress
        run.kill(role)
        if death < 5:
            run.until(lambda death=death: run.restarts(role) == death)  # type: ignore[misc]
    with pytest.raises(RunFailedError, match=f"{role} died 5 times in a row without progress: its process is gone"):
        run.until(lambda: False)
    run.end()


def test_a_new_learner_says_what_it_lacks_and_its_weights_are_newer_than_any_that_the_dead_one_may_have_published(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_at: list[int] = []

    def learner(shards: Any, state: Any, version: int, run_fraction: float) -> Any:
        begun_at.append(version)
        return run.roles.start(LearnerPart)

    run.until_reported("learner")  # version 1, where the counters have 0
    monkeypatch.setattr(run.roles, "learner", learner)
    run.counters.updates = 1_010
    run.kill("learner")
    run.until(lambda: bool(begun_at))
    assert run.said[-1] == "1,010 updates are to be made again"
    assert begun_at[-1] > 1 + 1
    assert run.counters.weight_version == begun_at[-1]


def test_deaths_with_progress_in_between_do_not_add_up(run: Run) -> None:
    for death in range(1, 7):
        run.until(lambda: run.supervisor.actors_alive == 2)
        run.kill("actor 0")
        run.until(lambda death=death: run.restarts("actor") == death)  # type: ignore[misc]


class Slipping(LearnerPart):
    """Falls back to where it began, as one does that dies before its next checkpoint."""

    def report(self) -> LearnerReport:
        return super().report()._replace(total_updates=1)


def test_a_learner_that_never_gets_further_than_before_makes_no_progress(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.roles, "learner", lambda *_: run.roles.start(Slipping))
    run.until_reported("learner")
    for death in range(1, 5):
        run.kill("learner")
        run.until(lambda death=death: run.restarts("learner") == death)  # type: ignore[misc]
        run.until_reported("learner")
    run.kill("learner")
    with pytest.raises(RunFailedError, match="learner died 5 times in a row without progress"):
        run.until(lambda: False)


class Failing:
    """In the place of a part's `run`, or of a shard's `stats`."""

    error: Exception = OSError(24, "Too many open files")

    def run(self, *_: Any) -> Any:
        raise self.error

    def stats(self) -> Any:
        raise self.error


class FailingActor(Failing, ActorPart): ...


class FailingLearner(Failing, LearnerPart): ...


class FailingShard(Failing, ShardPart): ...


class FailingEvaluator(Failing, EvaluatorPart): ...


FAILING = [
    ("actor 1", "actor", FailingActor),
    ("learner", "learner", FailingLearner),
    ("replay shard 0", "shard", FailingShard),
    ("evaluator", "evaluator", FailingEvaluator),
]


@pytest.mark.parametrize(("role", "maker", "failing"), FAILING)
def test_an_error_that_a_role_raises_is_told_and_another_process_takes_its_place(
    role: str, maker: str, failing: type, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run.roles, maker, lambda *_: run.roles.start(failing))
        run.supervisor.evaluate(0.0)
        run.kill(role)
        run.until(lambda: run.restarts(role) == 1)
    run.supervisor.evaluate(0.0)
    run.until(lambda: run.restarts(role) == 2)
    assert run.said[-1].endswith(f"{role} died (OSError: [Errno 24] Too many open files); a new one takes its place")
    run.until_reported(role)
    assert len(run.said) == 2


@pytest.mark.parametrize(("role", "maker", "failing"), FAILING)
def test_an_error_that_comes_again_and_again_ends_the_run(
    role: str, maker: str, failing: type, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.roles, maker, lambda *_: run.roles.start(failing))
    run.supervisor.evaluate(0.0)
    run.kill(role)

    def ended() -> bool:
        run.supervisor.evaluate(0.0)
        return False

    with pytest.raises(RunFailedError, match=f"{role} died 5 times in a row without progress: OSError: .*open files"):
        run.until(ended)
    assert run.restarts(role) == 4


class Diverging(Failing, LearnerPart):
    error = DivergedError("the loss is not finite")


class Mistaken(Failing, LearnerPart):
    error = UserError("give another number")


@pytest.mark.parametrize(
    ("failing", "cause"),
    [(Diverging, "DivergedError: the loss is not finite"), (Mistaken, "UserError: give another number")],
)
def test_what_would_only_come_again_ends_the_run_at_once(
    failing: type, cause: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.roles, "learner", lambda *_: run.roles.start(failing))
    run.kill("learner")
    with pytest.raises(RunFailedError, match=f"the learner failed: {cause}"):
        run.until(lambda: False)
    assert run.restarts("learner") == 1


def test_actors_and_learner_that_wait_for_each_other_are_replaced_and_end_the_run_the_fifth_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver.standstill, "_LONG_S", 1.0)
    run = Run(works=False, waits=True, hang_s=5.0)
    run.until(lambda: run.counters.restarts == {"actor": 2, "learner": 1})
    assert run.said[-1].startswith("the learner died (actors and learner waited for each other for 5 s); a new one")
    with pytest.raises(RunFailedError, match=r"died 5 times in a row .*: actors and learner waited for each other"):
        run.until(lambda: False, timeout_s=120)
    assert run.counters.restarts == {"actor": 8, "learner": 4}
    run.end()


def test_actors_and_learner_may_wait_for_as_long_as_a_shard_is_being_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.standstill, "_LONG_S", 1.0)
    run = Run(works=False, waits=True, hang_s=5.0)
    run.until(lambda: run.supervisor.actors_alive == 2)
    run.recovery.may_fill.clear()
    run.kill("replay shard 0")
    run.until(lambda: run.restarts("replay shard 0") == 1)
    end = time.monotonic() + 15
    run.until(lambda: time.monotonic() > end)
    assert run.counters.restarts == {"replay_shard": 1}
    run.recovery.may_fill.set()
    run.until(lambda: run.restarts("learner") == 1)
    run.end()


class Stuck(ActorPart):
    """Hangs while it starts; leaves its process id where it was told to."""

    path = ""

    def __init__(self, *_: bool) -> None:
        Path(self.path).write_text(str(os.getpid()))
        time.sleep(1e6)


def test_on_a_cluster_an_actor_may_wait_for_its_cores_for_ever_but_not_hang_while_it_starts(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.until(lambda: run.supervisor.complete)
    monkeypatch.setattr(driver.patience, "_START", 1.0)
    run.supervisor.roles.placement.update([Node("here", "here", cpus=9, gpus=0, memory_bytes=2**30)])
    stuck = type("Stuck", (Stuck,), {"path": str(tmp_path / "pid")})
    made = {0: lambda: run.roles.start(stuck), 1: lambda: run.roles.start(ActorPart, cpus=99)}
    with monkeypatch.context() as patch:
        patch.setattr(run.roles, "actor", lambda index, *_: made[index]())
        run.kill("actor 0", "actor 1")
        run.until(lambda: run.restarts("actor") == 2)
    run.until(lambda: run.restarts("actor") == 3)
    pid = int((tmp_path / "pid").read_text())
    run.until(lambda: not Path(f"/proc/{pid}").exists())
    assert run.said[-1].startswith("actor 0 died (no answer for ")
    run.until(lambda: run.supervisor.actors_alive == 1)
    end = time.monotonic() + HANG_S
    run.until(lambda: time.monotonic() > end)
    assert run.restarts("actor") == 3
