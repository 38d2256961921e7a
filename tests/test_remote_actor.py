"""The actor's shell, and its place in the ladder of exploration when there are more or fewer actors."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.remote import RemoteActor
from common.config import ActorsConfig, Config, EnvConfig, EvalConfig, ReplayConfig
from common.types import Chunk
from driver.counters import Counters
from driver.limits import Limits
from driver.placement import Placement
from driver.plan import Plan
from driver.slots import Listener
from driver.supervisor import Supervisor

EPSILON, ALPHA = 0.4, 7.0
NO_LEARNER: Any = SimpleNamespace(weights=SimpleNamespace(remote=lambda version: None))


class _Writer:
    """Takes everything."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def push(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def wait_ready(self, timeout_s: float) -> bool:
        return True

    def set_shards(self, shards: Any) -> None: ...


def config(envs_per_actor: int) -> Config:
    actors = ActorsConfig(envs_per_actor=envs_per_actor, chunk_length=4, epsilon=EPSILON, epsilon_alpha=ALPHA)
    env = EnvConfig(name="gridworld", max_steps=30)
    return Config(env=env, actors=actors, replay=ReplayConfig(shards=1), eval=EvalConfig(enabled=False))


def start(
    settings: Config, index: int, count: int, incarnation: int, state: dict[str, Any] | None, writer: _Writer
) -> RemoteActor:
    return RemoteActor(
        env=settings.env,
        agent=settings.agent,
        actors=settings.actors,
        index=index,
        count=count,
        seed=3,
        incarnation=incarnation,
        writer=writer,
        learner=NO_LEARNER,
        state=state,
    )


def test_an_actor_tells_how_many_episodes_it_goes_on_with() -> None:
    settings = config(envs_per_actor=3)
    first = start(settings, 0, 1, 0, None, _Writer())
    assert first.episodes_taken_over() == 0
    first.run(60.0, 30)
    other = start(settings, 0, 1, 1000, first.state(), _Writer())
    assert other.episodes_taken_over() == 3
    assert other.state() == first.state()


class _Here:
    """An actor's handle: its calls are answered at once, in this process; its slices are the test's."""

    def __init__(self, actor: RemoteActor) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=functools.partial(self._call, name))

    def _call(self, name: str, *arguments: Any) -> object:
        if name != "run":
            getattr(self.actor, name)(*arguments)
        return object()


class _Roles:
    """Actors that play in this process, and others that do nothing."""

    def __init__(self, settings: Config, actors: int) -> None:
        self.config = settings
        self.plan = Plan(actors, "cpu", 1, 1, None)
        self.placement = Placement()
        self.playing: dict[int, tuple[RemoteActor, _Writer]] = {}
        self.made: list[tuple[int, int]] = []  # index and incarnation

    def shard(self, *_: Any) -> Any:
        return SimpleNamespace()

    def learner(self, *_: Any) -> Any:
        return SimpleNamespace(run=SimpleNamespace(remote=lambda *_: object()))

    def actor(self, index: int, count: int, incarnation: int, shards: Any, learner: Any, state: Any) -> _Here:
        writer = _Writer()
        actor = start(self.config, index, count, incarnation, state, writer)
        self.playing[index] = actor, writer
        self.made.append((index, incarnation))
        return _Here(actor)

    def play(self, actors: int) -> list[tuple[set[int], float, float]]:
        """Of each actor, in their order, the index that its chunks bear, its highest and its lowest epsilon."""
        found = []
        for index in range(actors):
            actor, writer = self.playing[index]
            writer.chunks.clear()
            report = actor.run(60.0, 100)
            found.append(({chunk.actor for chunk in writer.chunks}, report.epsilon_high, report.epsilon_low))
        return found


def ladder(actors: int, envs: int) -> list[tuple[set[int], Any, Any]]:
    """What `_Roles.play` is to find: epsilon ** (1 + alpha * i / (N - 1)) over all environments, in their order."""
    last = max(1, actors * envs - 1)
    rungs = [EPSILON ** (1 + ALPHA * i / last) for i in range(actors * envs)]
    return [({i}, pytest.approx(rungs[i * envs]), pytest.approx(rungs[(i + 1) * envs - 1])) for i in range(actors)]


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("sizes", [[1, 3, 2, 5, 1], [4, 1, 2]])
def test_indices_and_the_ladder_are_those_of_the_present_number_of_actors(
    sizes: list[int], envs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "kill", lambda handle: None)
    roles: Any = _Roles(config(envs), sizes[0])
    ignored: Any = lambda *_: None  # noqa: E731
    listener = Listener(ignored, ignored, ignored, ignored, ignored, ignored)
    recovery: Any = SimpleNamespace(fill=ignored)
    supervisor = Supervisor(roles, Limits(None, None, None, None), Counters(), listener, recovery)
    supervisor.start(None, ignored, {})
    for size in sizes:
        supervisor.resize(size)
        assert roles.play(size) == ladder(size, envs)
    assert len(set(roles.made)) == len(roles.made)  # one that comes back has random numbers of its own
