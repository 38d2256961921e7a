"""The measurements of `benchmarks.scaling_calls`: real processes that answer, one process that calls."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import ray

from actors.chunks import ChunkBuilder
from actors.environment import make_environment
from actors.remote import ActorReport
from benchmarks.scaling_processes import cpu_seconds
from common.config import Config, EnvConfig, LearnerConfig
from common.types import Chunk, ShardSample
from driver.calls import Calls
from driver.plan import make_plan
from driver.roles import Roles
from replay.rate_limiter import RateLimiter
from replay.remote import start_shard

_CONFIG: Final = Config(env=EnvConfig(name="synthetic", step_ms=0.0), learner=LearnerConfig(device="cpu", threads=1))
_RATE: Final = 250.0  # calls/s
_TICK_S: Final = 0.02
_TRANSITIONS: Final = 50_000  # capacity of the shard
_SAMPLE: Final = 64
_DRIVER_SIZES: Final = (64, 360, 1_000)  # actors


class _StandIn:
    """Answers slices as actors do, after about as long, without playing."""

    async def run(self, seconds: float) -> ActorReport:
        """One slice."""
        await asyncio.sleep(seconds)
        return ActorReport(200, [], [], seconds, 0.0, 1, 0.001, 0.4, 0, {})


class CallCost(NamedTuple):
    """Processor time of one call."""

    name: str
    answering_us: float
    calling_us: float | None

    def rows(self) -> list[dict[str, Any]]:
        """For the results file."""
        figures = {"answering": self.answering_us, "calling": self.calling_us}
        return [
            {"name": f"{self.name}, {side}", "figure": round(us, 1), "unit": "µs/call", "ceiling": None, "ratio": None}
            for side, us in figures.items()
            if us is not None
        ]


def record_chunks(count: int) -> list[Chunk]:
    """Chunks of the default length, cut from recorded frames as an actor cuts them."""
    env = make_environment(name="synthetic", step_ms=0.0, max_steps=10**9)
    builder = ChunkBuilder(
        n_step=_CONFIG.agent.n_step,
        gamma=_CONFIG.agent.gamma,
        reward_scale=_CONFIG.agent.reward_scale,
        frame_stack=_CONFIG.env.frame_stack,
        chunk_length=_CONFIG.actors.chunk_length,
        actor=0,
    )
    builder.begin(env.reset()[0][-1:])
    chunks: list[Chunk] = []
    while len(chunks) < count:
        chunk = builder.bootstrap(0.0)
        if chunk is not None:
            chunks.append(chunk)
        state, reward, *_ = env.step(0)
        builder.add(action=0, q_tm1=0.0, weight_version=0, reward=reward, frame=state[-1], ending=None)
    return chunks


def call_costs(seconds: float) -> Iterator[CallCost]:
    """Every kind of call that grows with actors or samples, each measured for so long when it is asked for."""
    yield from _role_costs(seconds)
    for actors in _DRIVER_SIZES:
        yield _driver_cost(actors, seconds)


def _role_costs(seconds: float) -> Iterator[CallCost]:
    chunks = record_chunks(8)
    roles = Roles(_CONFIG, make_plan(_CONFIG, cpus=2, gpus=0, private=True))
    limiter = RateLimiter(1.0, 1, 1e12, max_insert=max(map(len, chunks)), max_sample=_SAMPLE)
    shard = start_shard(
        capacity=_TRANSITIONS, spec=roles.spec, priority_exponent=0.6, limiter=limiter, seed=np.random.SeedSequence(0)
    )
    learner = roles.learner([shard], None, version=0, run_fraction=0.0)
    ray.get([shard.insert.remote(chunk) for chunk in chunks])
    reference: Any = shard.sample.remote(_SAMPLE)
    sample: ShardSample = ray.get(reference)
    errors = np.ones(_SAMPLE, np.float32)
    kinds: list[tuple[str, Any, Callable[[int], Any]]] = [
        ("learner: are there newer weights?", learner, lambda i: learner.weights.remote(0)),
        ("shard: may I insert?", shard, lambda i: shard.can_insert.remote(80)),
        ("shard: insert 80 transitions", shard, lambda i: shard.insert.remote(chunks[i % len(chunks)])),
        (f"shard: sample {_SAMPLE}", shard, lambda i: shard.sample.remote(_SAMPLE)),
        (f"shard: {_SAMPLE} new priorities", shard, lambda i: shard.update_priorities.remote(sample.ids, errors)),
    ]
    for name, handle, send in kinds:
        yield _measure(name, _pid(handle), send, seconds)


def _measure(name: str, pid: int, send: Callable[[int], Any], seconds: float) -> CallCost:
    _call(send, 1.0)
    roles = {pid: "answering"}
    before, own, started = cpu_seconds(roles)["answering"], time.process_time(), time.monotonic()
    calls = _call(send, seconds)
    own = time.process_time() - own
    used = cpu_seconds(roles)["answering"] - before
    elapsed = time.monotonic() - started
    if calls < _RATE * elapsed * 0.5:
        print(f"note: {name}: only {calls / elapsed:.0f} of {_RATE:g} calls/s came through", file=sys.stderr)
    return CallCost(name, 1e6 * used / calls, 1e6 * own / calls)


def _call(send: Callable[[int], Any], seconds: float) -> int:
    """Sends calls at the rate for so long and waits for all answers; how many there were."""
    started, sent = time.monotonic(), 0
    pending: list[Any] = []
    while (now := time.monotonic() - started) < seconds:
        due = int(now * _RATE) - sent
        pending += [send(sent + i) for i in range(due)]
        sent += due
        if pending:
            ready, pending = ray.wait(pending, num_returns=len(pending), timeout=0)
            ray.get(ready)
        time.sleep(_TICK_S)
    ray.get(pending)
    return sent


def _driver_cost(actors: int, seconds: float) -> CallCost:
    """Of an answer of one of so many actors, whose next slice it starts, in the driver's process."""
    decorate: Any = ray.remote
    stand_in = decorate(num_cpus=0, max_concurrency=actors)(_StandIn).remote()
    calls, answers, rng = Calls(), 0, np.random.default_rng(0)

    def start(index: int) -> None:
        def answered(report: ActorReport) -> None:
            nonlocal answers
            answers += 1
            start(index)

        calls.start(f"actor {index}", stand_in.run.remote(float(rng.uniform(0.9, 1.1))), answered)

    for index in range(actors):
        start(index)
    _poll(calls, 3.0, lambda: answers >= actors)
    answers, before = 0, time.process_time()
    _poll(calls, seconds, lambda: answers >= actors)
    cost = 1e6 * (time.process_time() - before) / answers
    ray.kill(stand_in)
    return CallCost(f"driver: a slice of one of {actors} actors", cost, None)


def _poll(calls: Calls, seconds: float, enough: Callable[[], bool]) -> None:
    """Answers for so long, and on a busy machine until there are enough.

    Raises:
        RuntimeError: a call failed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or not enough():
        for failure in calls.poll(0.25):
            raise RuntimeError(f"{failure.role} failed: {failure.error}")


def _pid(handle: Any) -> int:
    return int(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())))
