"""Creates the roles' processes from the settings."""

from dataclasses import dataclass, field, replace
from typing import Any

import ray

from actors.environment import environment_spec
from actors.remote import RemoteActor, RemoteEvaluator
from common.config import ActorsConfig, Config, EnvConfig
from common.seeding import role_seed
from common.types import EnvironmentSpec
from driver.placement import Placement
from driver.plan import Plan, build_limiter
from learner.remote import RemoteLearner
from replay.remote import start_shard
from replay.remote_reader import RemoteReplayReader
from replay.remote_writer import RemoteReplayWriter


def _process(role: type, **options: Any) -> Any:
    """A Ray actor class, which Ray itself never restarts: the driver decides what follows a death.

    Nor does Ray's server keep a record of its calls, which would be megabytes a minute, on any cluster.
    """
    decorate: Any = ray.remote
    return decorate(max_restarts=0, enable_task_events=False, **options)(role)


def _writer(shards: list[Any], actors: ActorsConfig) -> RemoteReplayWriter:
    """With room for the chunks that all environments may end in one step, and for those at shards that stall."""
    most = actors.max_inserts_in_flight + 2 * actors.envs_per_actor + len(shards)
    return RemoteReplayWriter(shards, max_in_flight=actors.max_inserts_in_flight, max_pending=most)


@dataclass(frozen=True)
class Roles:
    """Makes processes; handles are Ray actor handles."""

    config: Config
    plan: Plan
    placement: Placement = field(default_factory=Placement)

    @property
    def spec(self) -> EnvironmentSpec:
        """The environment's frames and actions."""
        env = self.config.env
        return environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)

    @property
    def _env(self) -> EnvConfig:
        """The environment's settings, with the one emulator core that all roles take."""
        return replace(self.config.env, core=self.plan.core or self.config.env.core)

    def shard(self, index: int, incarnation: int) -> Any:
        """An empty replay shard with its share of the capacity."""
        replay = self.config.replay
        return start_shard(
            capacity=replay.capacity // replay.shards,
            spec=self.spec,
            priority_exponent=replay.priority_exponent,
            limiter=build_limiter(self.config),
            seed=role_seed(self.config.seed, "replay", index, incarnation),
            incarnation=incarnation,
            **self.placement.beside_learner(),
        )

    def learner(self, shards: list[Any], state: dict[str, Any] | None, version: int, run_fraction: float) -> Any:
        """The learner, fresh or from a checkpoint's state, in a run of which so much is done."""
        config = self.config
        reader = RemoteReplayReader(
            shards,
            batch_size=config.learner.batch_size,
            beta=config.replay.importance_exponent,
            prefetch=config.learner.prefetch,
        )
        on_gpu = self.plan.learner_device == "cuda"
        process = _process(
            RemoteLearner,
            num_cpus=self.plan.learner_cpus,
            num_gpus=1 if on_gpu else 0,
            concurrency_groups={"control": 1},
            **self.placement.beside_learner(),
        )
        return process.remote(
            spec=self.spec,
            agent=config.agent,
            learner=config.learner,
            seed=config.seed,
            device=self.plan.learner_device,
            threads=self.plan.learner_threads,
            reader=reader,
            state=state,
            version=version,
            run_fraction=run_fraction,
        )

    def actor(
        self,
        index: int,
        count: int,
        incarnation: int,
        shards: list[Any],
        learner: Any,
        state: dict[str, Any] | None,
    ) -> Any:
        """Actor `index` of `count`, fresh or from a checkpoint's state."""
        config = self.config
        return _process(RemoteActor, num_cpus=1, **self.placement.for_actor(index)).remote(
            env=self._env,
            agent=config.agent,
            actors=config.actors,
            index=index,
            count=count,
            seed=config.seed,
            incarnation=incarnation,
            writer=_writer(shards, config.actors),
            learner=learner,
            state=state,
        )

    def evaluator(self) -> Any:
        """The evaluator beside training."""
        return _process(RemoteEvaluator, num_cpus=0, **self.placement.beside_learner()).remote(
            env=self._env, agent=self.config.agent, evaluation=self.config.eval, seed=self.config.seed
        )
