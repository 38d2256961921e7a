"""Actor, shards and learner stepped one after the other in one process: deterministic, for tests and study."""

from collections import deque

from actors.environment import environment_spec
from actors.factory import build_actor
from common.config import Config
from common.seeding import role_seed
from common.types import Chunk, Episode, Weights
from driver.plan import build_limiter
from learner.factory import build_learner
from learner.learner import Learner
from replay.client import LocalReplay
from replay.shard import ReplayShard


class _Queue:
    """Chunks that the shards have not accepted yet."""

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()

    def push(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)


class _Broadcast:
    """The learner's weights, as of its last broadcast."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.latest = Weights(0, 0, learner.weights())

    def publish(self) -> None:
        self.latest = Weights(self.latest.version + 1, self._learner.updates, self._learner.weights())

    def newer_than(self, version: int) -> Weights | None:
        return self.latest if self.latest.version > version else None


class SerialRun:
    """One actor, the configured shards and one learner on the CPU.

    The order is the one that the rate limiters enforce between processes: the actor plays for as long as its
    chunks are accepted, then the learner trains until they are. The same configuration gives the same
    weights bit for bit, on one torch thread.
    """

    def __init__(self, config: Config) -> None:
        env = config.env
        spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
        self._broadcast_period = config.learner.broadcast_period
        self.shards = [
            ReplayShard(
                config.replay.capacity // config.replay.shards,
                spec,
                config.replay.priority_exponent,
                build_limiter(config),
                role_seed(config.seed, "replay", index),
            )
            for index in range(config.replay.shards)
        ]
        self._replay = LocalReplay(self.shards, config.learner.batch_size, config.replay.importance_exponent)
        self.learner = build_learner(
            spec=spec, agent=config.agent, learner=config.learner, seed=config.seed, device="cpu"
        )
        self._broadcast = _Broadcast(self.learner)
        self._queue = _Queue()
        self._actor = build_actor(
            env=env,
            agent=config.agent,
            actors=config.actors,
            index=0,
            count=1,
            seed=config.seed,
            incarnation=0,
            writer=self._queue,
            weights=self._broadcast,
        )
        self.env_steps = 0

    def run(self, env_steps: int) -> list[Episode]:
        """Plays and trains for at least so many agent steps more; returns the episodes that ended."""
        episodes: list[Episode] = []
        end = self.env_steps + env_steps
        while self.env_steps < end:
            episodes.extend(self._actor.step())
            self.env_steps += self._actor.num_envs
            while self._queue.chunks:
                if self._replay.push(self._queue.chunks[0]):
                    self._queue.chunks.popleft()
                else:
                    self._train()
        return episodes

    def close(self) -> None:
        """Closes the environments."""
        self._actor.close()

    def _train(self) -> None:
        batch = self._replay.sample_batch()
        if batch is None:
            raise RuntimeError("neither inserting nor sampling is possible: the rate limiter's settings deadlock")
        result = self.learner.update(batch)
        self._replay.update_priorities(batch, result.td_error)
        if self.learner.updates % self._broadcast_period == 0:
            self._broadcast.publish()
