"""Actor, shards and learner stepped one after the other in one process: deterministic, for tests and study."""

import functools
import io
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO

import torch

from actors.environment import environment_spec
from actors.factory import build_actor
from common.config import Config
from common.errors import UserError
from common.policy import load_tensors
from common.seeding import role_seed
from common.types import Chunk, Episode, Weights
from driver.counters import Counters
from driver.limits import Limits
from driver.plan import build_limiter
from learner.checkpoint import load_checkpoint, save_checkpoint, torch_bytes
from learner.factory import build_learner
from learner.learner import Learner
from replay.client import LocalReplay
from replay.shard import ReplayShard
from replay.snapshot import file_name, read_snapshot, write_snapshot

_ACTOR_FILE = "actor-0.pt"


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
        self.latest = Weights(0, 0, learner.backup_epsilon, learner.weights())

    def publish(self) -> None:
        learner = self._learner
        self.latest = Weights(self.latest.version + 1, learner.updates, learner.backup_epsilon, learner.weights())

    def newer_than(self, version: int) -> Weights | None:
        return self.latest if self.latest.version > version else None


class SerialRun:
    """One actor, the configured shards and one learner on the CPU.

    The order is the one that the rate limiters enforce between processes: the actor plays for as long as its
    chunks are accepted, then the learner trains until they are. The same configuration gives the same
    weights bit for bit, on one torch thread, also where a run is saved and another one goes on with it.
    """

    def __init__(self, config: Config) -> None:
        env = config.env
        self._spec = spec = environment_spec(name=env.name, actions=env.actions, frame_stack=env.frame_stack)
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
        self._limits = Limits.of(config)
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

    def save(self, root: Path) -> Path:
        """Writes all that an exact continuation needs as a checkpoint; returns its folder.

        Raises:
            CheckpointError: it could not be written.
        """
        latest = self._broadcast.latest
        actor = self._actor.state_dict(whole=True)
        actor["latest"] = {**latest._asdict(), "flat": torch.from_numpy(latest.flat)}
        state = {"env_steps": self.env_steps, "turns": self._replay.turns}
        files = {
            file_name(i): functools.partial(write_snapshot, shard.snapshot()) for i, shard in enumerate(self.shards)
        }
        return save_checkpoint(
            root,
            self.learner.state_dict(),
            spec=self._spec,
            metadata={},
            state=state,
            extra={**files, _ACTOR_FILE: functools.partial(_write_tensors, actor)},
        )

    def load(self, path: Path) -> None:
        """Goes on as the run of the same configuration that `save` wrote.

        Raises:
            UserError: it is no checkpoint of such a run, or a damaged one.
        """
        data = load_checkpoint(path)
        try:
            actor: Any = load_tensors(data.extra[_ACTOR_FILE])
            for index, shard in enumerate(self.shards):
                shard.restore(read_snapshot(io.BytesIO(data.extra[file_name(index)].read_bytes())))
            self.learner.load_state_dict(data.learner)
            latest = actor["latest"]
            self._broadcast.latest = Weights(**{**latest, "flat": latest["flat"].numpy()})
            self._actor.load_state_dict(actor)
            self.env_steps = int(data.state["env_steps"])
            next_push, turn = data.state["turns"]
            self._replay.turns = int(next_push), int(turn)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OSError) as error:
            raise UserError(f"{path} is no checkpoint of a serial run with these settings: {error}") from error

    def close(self) -> None:
        """Closes the environments."""
        self._actor.close()

    def _train(self) -> None:
        batch = self._replay.sample_batch()
        if batch is None:
            raise RuntimeError("neither inserting nor sampling is possible: the rate limiter's settings deadlock")
        # By steps and updates: not by the time, which is not the same twice.
        done = Counters(env_steps=self.env_steps, updates=self.learner.updates)
        self.learner.run_fraction = self._limits.fraction(done)
        result = self.learner.update(batch)
        self._replay.update_priorities(batch, result.td_error)
        if self.learner.updates % self._broadcast_period == 0:
            self._broadcast.publish()


def _write_tensors(value: object, file: BinaryIO) -> None:
    file.write(torch_bytes(value))
