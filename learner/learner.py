"""The learner's core: one update step. It knows nothing of Ray, replay or files."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.networks import QNetwork, build_network, flatten, to_tensor
from common.types import Batch, EnvironmentSpec
from learner.device import Precision, resolve_device, uses_bfloat16
from learner.loss import double_dqn_target, dqn_target, huber, take_actions


class UpdateResult(NamedTuple):
    """What one update tells: TD errors for the priorities, and metrics."""

    td_error: NDArray[np.float32]  # [B], signed: target minus Q-value, before the update
    loss: float  # mean over the batch of importance weight times Huber loss
    q_mean: float  # mean Q-value of the actions taken
    grad_norm: float  # global, before clipping


class Learner:
    """Double or plain DQN with n-step targets, importance weights, Adam and a hard-synchronised target network.

    The same seed and batches give the same weights bit for bit on one CPU thread.

    Args:
        spec: the environment's frames and actions.
        double: double DQN targets; else plain DQN.
        dueling: the network's option.
        learning_rate: Adam's step size.
        adam_epsilon: Adam's denominator offset.
        huber_delta: absolute TD error at which the loss turns linear.
        max_grad_norm: global gradient norm above which gradients are scaled down; None: no clipping.
        target_update_period: updates between copies of the online into the target network.
        device: "auto", "cpu", "cuda" or "cuda:0".
        precision: arithmetic of all layers but the last; parameters, loss and Adam are always float32.
        seed: of the network's initialisation.

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
    ) -> None:
        self.device = resolve_device(device)
        self.bfloat16 = uses_bfloat16(precision, self.device)
        self.updates = 0
        self._double = double
        self._huber_delta = huber_delta
        self._max_grad_norm = float("inf") if max_grad_norm is None else max_grad_norm
        self._target_update_period = target_update_period
        self._online = build_network(spec, dueling, seed).to(self.device)
        self._target = copy.deepcopy(self._online).requires_grad_(False)
        self._optimizer = torch.optim.Adam(self._online.parameters(), learning_rate, eps=adam_epsilon, fused=True)

    def update(self, batch: Batch) -> UpdateResult:
        """One step of gradient descent on a batch.

        Raises:
            RuntimeError: the loss or its gradient is not finite; the weights stay those of the update before.
        """
        frames, a_tm1 = to_tensor(batch.frames, self.device), to_tensor(batch.a_tm1, self.device)
        target = self._bootstrap_target(frames, batch)
        s_tm1 = _stack(frames, to_tensor(batch.s_tm1, self.device))
        q_tm1 = take_actions(self._q_values(self._online, s_tm1), a_tm1)
        td_error = target - q_tm1
        loss = (to_tensor(batch.weight, self.device) * huber(td_error, self._huber_delta)).mean()
        self._optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self._online.parameters(), self._max_grad_norm)
        result = _to_host(td_error, loss, q_tm1.mean(), grad_norm)
        if not np.isfinite([result.loss, result.grad_norm]).all():
            raise RuntimeError(
                f"the loss is not finite at update {self.updates + 1} (loss {result.loss}, gradient norm "
                f"{result.grad_norm}): a smaller learning rate or gradient norm may help"
            )
        self._optimizer.step()
        self.updates += 1
        if self.updates % self._target_update_period == 0:
            self._target.load_state_dict(self._online.state_dict())
        return result

    def weights(self) -> NDArray[np.float32]:
        """The online network's parameters, float32 [P] in `state_dict` order: a copy."""
        return flatten(self._online)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, on the CPU: a copy that later updates leave alone.

        Keys: `online` and `target` (the networks' state_dicts), `optimizer` (Adam's) and `updates`.
        """
        state: dict[str, Any] = _to_cpu(
            {
                "online": dict(self._online.state_dict()),
                "target": dict(self._target.state_dict()),
                "optimizer": self._optimizer.state_dict(),
            }
        )
        return {**state, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned; Adam's settings come with it.

        Raises:
            RuntimeError: the state belongs to another network.
        """
        self._online.load_state_dict(state["online"])
        self._target.load_state_dict(state["target"])
        # Adam keeps the tensors that it is given and changes them in place.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.updates = state["updates"]

    def _bootstrap_target(self, frames: Tensor, batch: Batch) -> Tensor:
        """[B]"""
        r_t, discount_t = to_tensor(batch.r_t, self.device), to_tensor(batch.discount_t, self.device)
        s_t = _stack(frames, to_tensor(batch.s_t, self.device))
        with torch.inference_mode():
            q_t_target = self._q_values(self._target, s_t)
            if not self._double:
                target = dqn_target(r_t, discount_t, q_t_target)
            else:
                target = double_dqn_target(r_t, discount_t, self._q_values(self._online, s_t), q_t_target)
        return target.clone()  # outside of inference mode, so that autograd may save it

    def _q_values(self, network: QNetwork, states: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            values: Tensor = network(states)
        return values


def _stack(frames: Tensor, rows: Tensor) -> Tensor:
    """States [B, S, *F] from frames [M, *F] and rows int32 [B, S]."""
    return frames.index_select(0, rows.flatten()).view(*rows.shape, *frames.shape[1:])


def _to_host(td_error: Tensor, loss: Tensor, q_mean: Tensor, grad_norm: Tensor) -> UpdateResult:
    """Everything in one transfer, because each one makes the host wait for the device."""
    scalars = torch.stack([loss, q_mean, grad_norm])
    packed: NDArray[np.float32] = torch.cat([td_error, scalars]).detach().cpu().numpy()
    return UpdateResult(packed[:-3], float(packed[-3]), float(packed[-2]), float(packed[-1]))


def _to_cpu(value: Any) -> Any:
    """A deep copy with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    return copy.deepcopy(value)
