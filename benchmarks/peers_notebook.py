"""A DQN loop of the tutorials' kind, in our own words: one process, one environment, everything in turn.

Act, step, keep both states as float32 stacks in a deque, then one update on a batch drawn from it: double DQN with
Huber's loss and Adam, a target copied every 5,000 steps. Drawing the screen and writing a log line per step, which the
notebook does as well, are left out in its favour.
"""

import random
import time
from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.peers_meter import Meter, Speed
from benchmarks.peers_task import BATCH_SIZE, PRESET, check_network, make_task
from common.networks import QNetwork

EPSILON: Final = 0.02  # where the notebook's schedule ends
TARGET_PERIOD: Final = 5_000  # steps


class Transition(NamedTuple):
    """One step; tensors with a leading axis of one, as `torch.cat` wants them."""

    state: Tensor  # float32 [1, 4, 84, 84], 0 to 1
    action: Tensor  # int64 [1]
    reward: Tensor  # float32 [1]
    next_state: Tensor  # float32 [1, 4, 84, 84]
    done: Tensor  # float32 [1], 0 or 1


class FloatNetwork(QNetwork):
    """The same layers for states that are scaled already, in PyTorch's default memory layout."""

    def forward(self, states: Tensor) -> Tensor:
        """Q-values, float32 [B, A], of float32 states [B, S, 84, 84]."""
        values: Tensor = self.fc(self.conv(states).flatten(1))
        return values


class NotebookLoop:
    """The agent of the loop.

    Args:
        core: emulator core.
        steps_per_update: 1 as in the notebook; 4 brings it to 8 samples per transition.
    """

    def __init__(self, core: str, steps_per_update: int) -> None:
        self._env = make_task(core)
        spec = self._env.environment_spec
        self._num_actions = spec.num_actions
        self._online = FloatNetwork(spec.state_shape, spec.num_actions)
        self._target = FloatNetwork(spec.state_shape, spec.num_actions).requires_grad_(False)
        check_network(sum(parameter.numel() for parameter in self._online.parameters()))
        self._optimizer = torch.optim.Adam(self._online.parameters(), PRESET.learner.learning_rate)
        self._memory: deque[Transition] = deque(maxlen=PRESET.replay.capacity)
        self._steps_per_update = steps_per_update
        self.transitions = 0
        self.samples = 0
        self._state = _scaled(self._env.reset()[0])

    def step(self) -> None:
        """One step, and an update where it is due."""
        action = self._act()
        state, reward, terminated, truncated, _ = self._env.step(action)
        next_state = _scaled(state)
        done = torch.tensor([float(terminated)])
        self._memory.append(
            Transition(self._state, torch.tensor([action]), torch.tensor([float(reward)]), next_state, done)
        )
        self._state = _scaled(self._env.reset()[0]) if terminated or truncated else next_state
        self.transitions += 1
        if len(self._memory) >= BATCH_SIZE and self.transitions % self._steps_per_update == 0:
            self._update()
        if self.transitions % TARGET_PERIOD == 0:
            self._target.load_state_dict(self._online.state_dict())

    def _act(self) -> int:
        if random.random() < EPSILON:
            return random.randrange(self._num_actions)
        return int(self._online(self._state).argmax())

    def _update(self) -> None:
        batch = Transition(*(torch.cat(parts) for parts in zip(*random.sample(self._memory, BATCH_SIZE), strict=True)))
        loss = td_loss(self._online, self._target, batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        loss.item()
        self.samples += BATCH_SIZE


def measure(core: str, settings: dict[str, Any], meter: Meter) -> Speed:
    """Runs the loop until the meter has what it needs.

    Args:
        core: emulator core.
        settings: `steps_per_update`, and `threads` of PyTorch (None: its default).
        meter: takes a reading after every step.
    """
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    loop = NotebookLoop(core, settings["steps_per_update"])
    while meter.read(time.perf_counter(), loop.transitions, loop.samples):
        loop.step()
    return meter.speed()


def td_loss(online: FloatNetwork, target: FloatNetwork, batch: Transition) -> Tensor:
    """Mean Huber loss of the double DQN errors, scalar."""
    with torch.no_grad():
        best = online(batch.next_state).argmax(1, keepdim=True)
        value = target(batch.next_state).gather(1, best).squeeze(1)
        goal = batch.reward + PRESET.agent.gamma * (1 - batch.done) * value
    return functional.smooth_l1_loss(online(batch.state).gather(1, batch.action[:, None]).squeeze(1), goal)


def _scaled(state: NDArray[np.uint8]) -> Tensor:
    """float32 [1, 4, 84, 84], 0 to 1."""
    return torch.from_numpy(state.astype(np.float32) / 255)[None]
