"""One update of the networks on the device; the host is never waited for."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.networks import QNetwork
from learner.loss import (
    double_dqn_target,
    dqn_target,
    greedy_policy,
    huber,
    munchausen_bonus,
    munchausen_target,
    quantile_huber,
    quantile_target,
    window_epsilon,
)

SCALARS = 3


class UpdateInputs(NamedTuple):
    """A batch on the device; `C` and the rest of a state's shape are those of `common.networks.to_inputs`."""

    s_tm1: Tensor  # [B, C, ...], the networks' type
    s_t: Tensor  # [B, C, ...], the networks' type
    a_tm1: Tensor  # int64 [B]
    r_t: Tensor  # float32 [B]
    discount_t: Tensor  # float32 [B]
    weight: Tensor  # float32 [B], importance weights


class TargetValues(NamedTuple):
    """What the target network says of a batch."""

    q_tm1: Tensor | None  # float32 [B, A]; only for Munchausen targets
    z_t: Tensor  # float32 [B, A, N], quantiles, or Q-values where N is 1
    version: int  # of the target network


class UpdateStep:
    """Online and target network, Adam, and what one update does to them.

    The networks compute in `dtype`, their last layer, the loss and Adam in float32. Each update casts the online
    network's weights once, for both of its passes; the target network's are cast when they change.

    Args:
        online: the network that learns, on its device; it is changed in place.
        double: double DQN targets; else plain DQN.
        munchausen: alpha of Munchausen targets, which take the place of the others; 0: none.
        munchausen_temperature: their policy's.
        expects_exploration: whether the targets are values of a policy that explores, by `set_target_epsilon`.
        tree_backup: whether the n-step returns have the random actions of all states but the last in them already.
        gamma: discount per step; only for `expects_exploration`.
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
        munchausen: float,
        munchausen_temperature: float,
        expects_exploration: bool,
        tree_backup: bool,
        gamma: float,
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
            online.parameters(), self._rate(learning_rate), eps=adam_epsilon, fused=True, capturable=self._on_gpu
        )
        self._double = double
        self._munchausen = munchausen
        self._temperature = munchausen_temperature
        self._learning_rate = learning_rate
        self._epsilon = torch.zeros((), device=self._parameters[0].device) if expects_exploration else None
        self._epsilon_set = 0.0  # the value in it
        self._tree_backup = tree_backup
        self._gamma = gamma
        self._huber_delta = huber_delta
        self._max_grad_norm = max_grad_norm
        # Its version and what it computes with: one value, because another thread may read it meanwhile.
        self._target_cast = (0, _detached(self.target.cast(dtype)))
        # 1 once a loss or a gradient was not finite. Adam looks at it on the device, and then changes nothing.
        self._failed = torch.zeros((), device=self._parameters[0].device)
        self.optimizer.found_inf = self._failed  # type: ignore[attr-defined]

    @torch.no_grad()
    def target_values(self, inputs: UpdateInputs) -> TargetValues:
        """The target network's share of an update; on a CPU, for any thread at any time."""
        version, weights = self._target_cast
        q_tm1 = self.target.values(inputs.s_tm1, weights) if self._munchausen else None
        return TargetValues(q_tm1, self.target.quantiles(inputs.s_t, weights), version)

    def run(self, inputs: UpdateInputs, target_values: TargetValues | None = None) -> Tensor:
        """One step of gradient descent; after a loss or gradient that is not finite, none until `forgive`.

        Args:
            inputs: the batch.
            target_values: of these inputs; computed here where they are missing or of an earlier target network.

        Returns:
            float32 [B + SCALARS]: TD errors, loss, mean Q-value of the actions taken, gradient norm before clipping.
        """
        weights = self.online.cast(self.dtype)
        target = self._bootstrap_target(inputs, weights, target_values)  # [B, N]
        z_tm1 = take_quantiles(self.online.quantiles(inputs.s_tm1, weights), inputs.a_tm1)  # [B, N]
        q_tm1 = z_tm1.mean(dim=1)
        td_error = target.mean(dim=1) - q_tm1
        if self.online.num_quantiles > 1:
            losses = quantile_huber(z_tm1, target, self._huber_delta)
        else:
            losses = huber(td_error, self._huber_delta)
        loss = (inputs.weight * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        self._failed.logical_or_(~torch.isfinite(loss.detach() + grad_norm))
        # Adam divides the gradients by this, which spares a pass over them.
        self.optimizer.grad_scale = (grad_norm / self._max_grad_norm).clamp(min=1)  # type: ignore[attr-defined]
        self.optimizer.step()
        return torch.cat([td_error.detach(), torch.stack([loss.detach(), q_tm1.detach().mean(), grad_norm])])

    def set_learning_rate(self, value: float) -> None:
        """Adam's step size from now on."""
        if value == self._learning_rate:
            return
        self._learning_rate = value
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def set_target_epsilon(self, value: float) -> None:
        """Random actions per step of the policy whose value the targets are from now on; 0 before the first call."""
        if self._epsilon is not None and value != self._epsilon_set:
            self._epsilon_set = value
            self._epsilon.fill_(value)

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
            # The state may come from another device.
            group["capturable"] = self._on_gpu
            self._learning_rate = float(group["lr"])
            group["lr"] = self._rate(self._learning_rate)
        self._cast_target()

    def _rate(self, value: float) -> float | Tensor:
        """A step size as Adam wants it; on a GPU a captured graph reads it from memory."""
        return torch.tensor(value, device=self._parameters[0].device) if self._on_gpu else value

    def _cast_target(self) -> None:
        version, weights = self._target_cast
        cast = _detached(self.target.cast(self.dtype))
        if self._on_gpu:  # in place, because a captured graph reads this memory
            for weight, changed in zip(weights.values(), cast.values(), strict=True):
                weight.copy_(changed)
        else:
            weights = cast
        self._target_cast = (version + 1, weights)

    @torch.no_grad()
    def _bootstrap_target(
        self, inputs: UpdateInputs, weights: dict[str, Tensor], target_values: TargetValues | None
    ) -> Tensor:
        """[B, N]"""
        if target_values is None or target_values.version != self._target_cast[0]:
            target_values = self.target_values(inputs)
        epsilon = None
        if self._epsilon is not None:
            epsilon = (
                self._epsilon.expand_as(inputs.discount_t)
                if self._tree_backup
                else window_epsilon(inputs.discount_t, self._epsilon, self._gamma)
            )
        if self.online.num_quantiles > 1:
            return self._quantile_target(inputs, weights, target_values, epsilon)
        q_t_target = target_values.z_t.squeeze(2)
        if target_values.q_tm1 is not None:
            target = munchausen_target(
                inputs.r_t,
                inputs.discount_t,
                inputs.a_tm1,
                target_values.q_tm1,
                q_t_target,
                alpha=self._munchausen,
                temperature=self._temperature,
                epsilon=epsilon,
            )
        elif self._double:
            q_t_online = self.online.values(inputs.s_t, weights)
            target = double_dqn_target(inputs.r_t, inputs.discount_t, q_t_online, q_t_target, epsilon=epsilon)
        else:
            target = dqn_target(inputs.r_t, inputs.discount_t, q_t_target, epsilon=epsilon)
        return target.unsqueeze(1)

    def _quantile_target(
        self, inputs: UpdateInputs, weights: dict[str, Tensor], target_values: TargetValues, epsilon: Tensor | None
    ) -> Tensor:
        """[B, N]"""
        r_t, z_t = inputs.r_t, target_values.z_t
        entropy: Tensor | float = 0.0
        if target_values.q_tm1 is not None:
            bonus = munchausen_bonus(
                inputs.a_tm1, target_values.q_tm1, alpha=self._munchausen, temperature=self._temperature
            )
            r_t = r_t + bonus
            log_policy = torch.log_softmax(z_t.mean(dim=2) / self._temperature, dim=1)
            policy = log_policy.exp()
            entropy = -self._temperature * (policy * log_policy).sum(dim=1)
        else:
            policy = greedy_policy(self.online.values(inputs.s_t, weights) if self._double else z_t.mean(dim=2))
        return quantile_target(r_t, inputs.discount_t, policy, entropy, z_t, epsilon)


def take_quantiles(z: Tensor, action: Tensor) -> Tensor:
    """[B, N], the quantiles [B, A, N] of one action, int64 [B], each."""
    return z.gather(1, action.view(-1, 1, 1).expand(-1, 1, z.shape[2])).squeeze(1)


def _detached(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies, where casting has only passed the parameters on."""
    return {name: weight.detach().clone() for name, weight in weights.items()}
