"""One update of the networks on the device; the host is never waited for."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.networks import QNetwork
from learner.loss import double_dqn_target, dqn_target, huber, take_actions

SCALARS = 3


class UpdateInputs(NamedTuple):
    """A batch on the device; `C` and the rest of a state's shape are those of `common.networks.to_inputs`."""

    s_tm1: Tensor  # [B, C, ...], the networks' type
    s_t: Tensor  # [B, C, ...], the networks' type
    a_tm1: Tensor  # int64 [B]
    r_t: Tensor  # float32 [B]
    discount_t: Tensor  # float32 [B]
    weight: Tensor  # float32 [B], importance weights


class UpdateStep:
    """Online and target network, Adam, and what one update does to them.

    The networks compute in `dtype`, their last layer, the loss and Adam in float32. Each update casts the online
    network's weights once, for both of its passes; the target network's are cast when they change.

    Args:
        online: the network that learns, on its device; it is changed in place.
        double: double DQN targets; else plain DQN.
        learning_rate: Adam's step size.
        adam_epsilon: Adam's denominator offset.
        huber_delta: absolute TD error at which the loss turns linear.
        max_grad_norm: global gradient norm above which gradients are scaled down; infinity: no clipping.
        dtype: float32 or bfloat16.
    """

    def __init__(
        self,
        online: QNetwork,
        *,
        double: bool,
        learning_rate: float,
        adam_epsilon: float,
        huber_delta: float,
        max_grad_norm: float,
        dtype: torch.dtype,
    ) -> None:
        self.dtype = dtype
        self.online = online
        self.target = copy.deepcopy(online).requires_grad_(False)
        self._parameters = list(online.parameters())
        self._on_gpu = self._parameters[0].is_cuda
        self.optimizer = torch.optim.Adam(
            online.parameters(), learning_rate, eps=adam_epsilon, fused=True, capturable=self._on_gpu
        )
        self._double = double
        self._huber_delta = huber_delta
        self._max_grad_norm = max_grad_norm
        self._target_weights = self.target.cast(dtype)
        # 1 once a loss or a gradient was not finite. Adam looks at it on the device, and then changes nothing.
        self._failed = torch.zeros((), device=self._parameters[0].device)
        self.optimizer.found_inf = self._failed  # type: ignore[attr-defined]

    def run(self, inputs: UpdateInputs) -> Tensor:
        """One step of gradient descent; after a loss or gradient that is not finite, none until `forgive`.

        Returns:
            float32 [B + SCALARS]: TD errors, loss, mean Q-value of the actions taken, gradient norm before clipping.
        """
        weights = self.online.cast(self.dtype)
        target = self._bootstrap_target(inputs, weights)
        q_tm1 = take_actions(self.online.values(inputs.s_tm1, weights), inputs.a_tm1)
        td_error = target - q_tm1
        loss = (inputs.weight * huber(td_error, self._huber_delta)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        self._failed.logical_or_(~torch.isfinite(loss.detach() + grad_norm))
        # Adam divides the gradients by this, which spares a pass over them.
        self.optimizer.grad_scale = (grad_norm / self._max_grad_norm).clamp(min=1)  # type: ignore[attr-defined]
        self.optimizer.step()
        return torch.cat([td_error.detach(), torch.stack([loss.detach(), q_tm1.detach().mean(), grad_norm])])

    def forgive(self) -> None:
        """Lets updates change the weights again."""
        self._failed.zero_()

    def copy_target(self) -> None:
        """Makes the target network the online network's equal."""
        self.target.load_state_dict(self.online.state_dict())
        self._cast_target()

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes `online`, `target` and `optimizer`, which are state_dicts; Adam's settings come with it.

        Raises:
            RuntimeError: the state belongs to another network.
        """
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        # Adam keeps the tensors that it is given and changes them in place.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group in self.optimizer.param_groups:
            group["capturable"] = self._on_gpu  # the state may come from another device
        self._cast_target()

    def _cast_target(self) -> None:
        """In place, because a captured graph reads this memory."""
        for weight, changed in zip(self._target_weights.values(), self.target.cast(self.dtype).values(), strict=True):
            weight.copy_(changed)

    @torch.no_grad()
    def _bootstrap_target(self, inputs: UpdateInputs, weights: dict[str, Tensor]) -> Tensor:
        """[B]"""
        q_t_target = self.target.values(inputs.s_t, self._target_weights)
        if not self._double:
            return dqn_target(inputs.r_t, inputs.discount_t, q_t_target)
        q_t_online = self.online.values(inputs.s_t, weights)
        return double_dqn_target(inputs.r_t, inputs.discount_t, q_t_online, q_t_target)
