"""The learner's core: one update at a time. It knows nothing of Ray, replay or files."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import DivergedError
from common.networks import Architecture, build_network, flatten, to_inputs
from common.precision import Precision, uses_bfloat16
from common.schedules import linear
from common.types import Batch, EnvironmentSpec
from learner.augmentation import draw_shifts, shift
from learner.average import WeightAverage
from learner.cuda_graph import GraphedStep
from learner.device import resolve_device
from learner.transfer import empty_frames, frames_to_device, together_to_device
from learner.update import SCALARS, TargetValues, UpdateInputs, UpdateStep

# Then the step size is at its final value, with which the run's last policies still come to rest.
_DECAY_FRACTION: Final = 0.9
# By then the way is known; on two cores 12 of 30 minutes, where late caution was tried.
_LATE_FRACTION: Final = 0.4


class UpdateResult(NamedTuple):
    """What one update tells: TD errors for the priorities, and metrics."""

    td_error: NDArray[np.float32]  # [B], signed: target minus Q-value, before the update
    loss: float  # mean over the batch of importance weight times Huber loss
    q_mean: float  # mean Q-value of the actions taken
    grad_norm: float  # global, before clipping


class PreparedBatch(NamedTuple):
    """A batch on its way to the device."""

    inputs: UpdateInputs
    ready: torch.cuda.Event | None  # when it has arrived; None on a CPU
    target_values: TargetValues | None  # if they were computed ahead


class StartedUpdate:
    """An update that the device may still be busy with."""

    def __init__(self, number: int, packed: Tensor, done: torch.cuda.Event | None) -> None:
        self.number = number
        self._packed = packed  # on the host, filled once `done` has come
        self._done = done

    def read(self) -> UpdateResult:
        """Waits for the device."""
        if self._done is not None:
            self._done.synchronize()
        packed: NDArray[np.float32] = self._packed.numpy()
        return UpdateResult(packed[:-SCALARS], *packed[-SCALARS:].tolist())


class Learner:
    """Double or plain DQN with n-step targets, importance weights, Adam and a hard-synchronised target network.

    The same seed and batches give the same weights bit for bit on one CPU thread.

    Args:
        spec: the environment's frames and actions.
        double: double DQN targets; else plain DQN.
        dueling: the network's option.
        learning_rate: Adam's step size; at the first update, if it decays.
        adam_epsilon: Adam's denominator offset.
        huber_delta: absolute TD error at which the loss turns linear.
        max_grad_norm: global gradient norm above which gradients are scaled down; None: no clipping.
        target_update_period: updates between copies of the online into the target network.
        device: "auto", "cpu", "cuda" or "cuda:0".
        precision: arithmetic of all layers but the last; parameters, loss and Adam are always float32.
        seed: of the network's initialisation.
        architecture: the network's option.
        layer_norm: the network's option.
        quantiles: the network's option; above 1 quantile regression takes the place of the Huber loss.
        munchausen: alpha of Munchausen targets, which take the place of (double) DQN's; 0: none.
        munchausen_temperature: their policy's.
        target_epsilon: exploration of the policy whose value the targets are.
        target_epsilon_late: what it becomes; None: it stays.
        target_epsilon_late_update: updates until then; None: four tenths of the run, by `run_fraction`.
        tree_backup: whether the batches' n-step returns have that exploration in them, but for their last state.
        gamma: discount per step; only for `target_epsilon`.
        learning_rate_final: step size that it decays to linearly; None: it stays.
        learning_rate_decay_updates: updates until then; None: nine tenths of the run, by `run_fraction`.
        random_shift: pixels by which states, which are pictures then, are moved at most (`learner.augmentation`).
        average_decay: of the moving average of the weights that is the policy; 0: the policy is the online network.

    Attributes:
        updates: made so far.
        run_fraction: how much of the run is done, 0 … 1; whoever drives it sets it.

    Raises:
        UserError: the device is not on this machine.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        *,
        double: bool,
        dueling: bool,
        learning_rate: float,
        adam_epsilon: float,
        huber_delta: float,
        max_grad_norm: float | None,
        target_update_period: int,
        device: str,
        precision: Precision,
        seed: int,
        architecture: Architecture = "nature",
        layer_norm: bool = False,
        quantiles: int = 1,
        munchausen: float = 0.0,
        munchausen_temperature: float = 0.03,
        target_epsilon: float = 0.0,
        target_epsilon_late: float | None = None,
        target_epsilon_late_update: int | None = None,
        tree_backup: bool = False,
        gamma: float = 0.99,
        learning_rate_final: float | None = None,
        learning_rate_decay_updates: int | None = None,
        random_shift: int = 0,
        average_decay: float = 0.0,
    ) -> None:
        self.device = resolve_device(device)
        self.bfloat16 = uses_bfloat16(precision, self.device)
        self.updates = 0
        self._prepared = 0  # batches, by whose number and the seed shifts are drawn: a resumed run's are the same
        self._shift_seed = seed
        self._random_shift = random_shift
        self._on_gpu = self.device.type == "cuda"
        self._target_update_period = target_update_period
        self.run_fraction = 0.0
        last = learning_rate if learning_rate_final is None else learning_rate_final
        self._learning_rate = partial(linear, first=learning_rate, last=last)
        self._decay_updates = learning_rate_decay_updates
        self._target_epsilon = target_epsilon
        self._target_epsilon_late = target_epsilon if target_epsilon_late is None else target_epsilon_late
        self._late_update = target_epsilon_late_update
        self._tree_backup = tree_backup
        self._step = UpdateStep(
            build_network(spec, dueling, seed, architecture, layer_norm, quantiles).to(self.device),
            double=double,
            munchausen=munchausen,
            munchausen_temperature=munchausen_temperature,
            expects_exploration=self._target_epsilon > 0 or self._target_epsilon_late > 0,
            tree_backup=tree_backup,
            gamma=gamma,
            learning_rate=learning_rate,
            adam_epsilon=adam_epsilon,
            huber_delta=huber_delta,
            max_grad_norm=float("inf") if max_grad_norm is None else max_grad_norm,
            dtype=torch.bfloat16 if self.bfloat16 else torch.float32,
        )
        self._average = WeightAverage(self._step.online, average_decay) if average_decay else None
        self._graphed = self._make_graph()
        self._copies = torch.cuda.Stream(self.device) if self._on_gpu else None

    @property
    def updates_in_flight(self) -> int:
        """Updates to start before the oldest one's result is read, so that a GPU has always one to go on with."""
        return 1 if self._on_gpu else 0

    @property
    def learning_rate(self) -> float:
        """The step size of the next update."""
        if self._decay_updates is None:
            return self._learning_rate(self.run_fraction, steps=_DECAY_FRACTION)
        return self._learning_rate(self.updates, steps=self._decay_updates)

    @property
    def target_epsilon(self) -> float:
        """Exploration of the policy whose value the next update's targets are."""
        at = self._late_update
        late = self.run_fraction >= _LATE_FRACTION if at is None else self.updates >= at
        return self._target_epsilon_late if late else self._target_epsilon

    @property
    def backup_epsilon(self) -> float:
        """The same for actors' returns; 0 where they sum rewards alone."""
        return self.target_epsilon if self._tree_backup else 0.0

    def update(self, batch: Batch) -> UpdateResult:
        """One step of gradient descent on a batch.

        Raises:
            DivergedError: the loss or its gradient is not finite; the weights stay those of the update before.
        """
        return self.finish(self.start(self.prepare(batch)))

    def empty_frames(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Memory for a batch's frames, from which `prepare` brings them to the device without another copy."""
        return empty_frames(shape, self.device)

    def prepare(self, batch: Batch, *, with_target: bool = True) -> PreparedBatch:
        """Brings a batch to the device, as the networks take it; this may run in another thread than the updates.

        On a GPU it goes through pinned memory and a stream of its own, beside the update that runs there.

        Args:
            batch: from the replay.
            with_target: on a CPU, whether to compute the target network's values as well; the update takes them if
                that network is still the same, and gives the same result either way.
        """
        with torch.cuda.stream(self._copies):  # of no effect on a CPU, where it is None
            small = (batch.s_tm1, batch.s_t, batch.a_tm1, batch.r_t, batch.discount_t, batch.weight)
            rows_tm1, rows_t, *rest = together_to_device(small, self.device)
            frames = frames_to_device(batch.frames, self.device)
            inputs = UpdateInputs(*self._stack(frames, (rows_tm1, rows_t)), *rest)
            if self._copies is not None:
                return PreparedBatch(inputs, self._copies.record_event(), None)
            return PreparedBatch(inputs, None, self._step.target_values(inputs) if with_target else None)

    def start(self, batch: PreparedBatch) -> StartedUpdate:
        """Begins an update, which `finish` must be called for, in the same order."""
        self._receive(batch)
        self._step.set_learning_rate(self.learning_rate)
        self._step.set_target_epsilon(self.target_epsilon)
        packed = self._graphed.run(batch.inputs) if self._graphed else self._step.run(batch.inputs, batch.target_values)
        self.updates += 1
        if self.updates % self._target_update_period == 0:
            self._step.copy_target()
        if self._average:
            self._average.add(self._step.online, self.updates)
        if not self._on_gpu:
            return StartedUpdate(self.updates, packed, None)
        on_host = torch.empty(packed.shape, pin_memory=True).copy_(packed, non_blocking=True)
        return StartedUpdate(self.updates, on_host, torch.cuda.current_stream(self.device).record_event())

    def finish(self, started: StartedUpdate) -> UpdateResult:
        """The result of an update.

        Raises:
            DivergedError: its loss or gradient is not finite; the weights stay those of the update before, also where
                further updates were started.
        """
        result = started.read()
        if not np.isfinite([result.loss, result.grad_norm]).all():
            self.updates = started.number - 1
            self._step.forgive()
            raise DivergedError(
                f"the loss is not finite at update {started.number} (loss {result.loss}, gradient norm "
                f"{result.grad_norm}): a smaller learning rate or gradient norm may help"
            )
        return result

    def repeat_graph(self) -> None:
        """Launches a GPU's captured update once more and nothing else, to measure it; nothing counts it.

        Raises:
            ValueError: there is none: on a CPU, and before the fourth update.
        """
        if self._graphed is None:
            raise ValueError("there is no captured update on a CPU")
        self._graphed.replay()

    def weights(self) -> NDArray[np.float32]:
        """The online network's parameters, float32 [P] in `state_dict` order: a copy."""
        return flatten(self._step.online)

    def policy_weights(self) -> NDArray[np.float32]:
        """The parameters to evaluate and to keep: the moving average's or the online network's; as `weights`."""
        return flatten(self._average.network if self._average else self._step.online)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, on the CPU: a copy that later updates leave alone.

        Keys: `online` and `target` (the networks' state_dicts), `average` (too, where weights are averaged),
        `optimizer` (Adam's) and `updates`.
        """
        state: dict[str, Any] = {
            "online": dict(self._step.online.state_dict()),
            "target": dict(self._step.target.state_dict()),
            "optimizer": self._step.optimizer.state_dict(),
        }
        if self._average:
            state["average"] = dict(self._average.network.state_dict())
        return {**_to_cpu(state), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned; Adam's settings come with it.

        An average that the state does not have begins with its online network.

        Raises:
            RuntimeError: the state belongs to another network.
        """
        self._step.load(state)
        if self._average:
            self._average.network.load_state_dict(state.get("average", state["online"]))
        self._graphed = self._make_graph()  # a captured graph would go on with Adam's old state
        self.updates = self._prepared = state["updates"]

    def _stack(self, frames: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """The networks' inputs for states, rows int32 [B, S] of the frames [M, *F] each."""
        rng = np.random.default_rng((self._shift_seed, self._prepared)) if self._random_shift else None
        self._prepared += 1
        inputs = []
        for rows in states:
            stacked = frames.index_select(0, rows.flatten()).view(*rows.shape, *frames.shape[1:])
            if rng is not None:
                stacked = shift(stacked, draw_shifts(rng, len(rows), self._random_shift))
            inputs.append(to_inputs(stacked, self._step.dtype))
        return inputs

    def _make_graph(self) -> GraphedStep | None:
        return GraphedStep(self._step) if self._on_gpu else None

    def _receive(self, batch: PreparedBatch) -> None:
        """Makes the updates' stream wait for a batch, and the allocator keep it for as long as that stream needs it."""
        if batch.ready is None:
            return
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(batch.ready)
        for tensor in batch.inputs:
            tensor.record_stream(stream)


def _to_cpu(value: Any) -> Any:
    """A deep copy with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    return copy.deepcopy(value)
