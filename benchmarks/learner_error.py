"""How far the learner's update is from the same update in float64. Needs torch and numpy alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.learner_parts import SPEC, random_batch
from common.networks import QNetwork, build_network, flatten
from common.precision import Precision
from common.types import Batch
from learner.learner import Learner, PreparedBatch
from learner.update import UpdateInputs, UpdateStep

_BATCH_SIZE = 64
_GRAPHED_UPDATES = 8
# Errors beside those of plain layers in the same precision: rounding is a matter of luck, a mistake is not.
_BOUND = 2.0


def measure_error(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """One update of a fresh network: root mean square errors relative to the size of what they are errors of.

    Returns:
        `q_values`, `gradient`: the update's errors; `plain_q_values`, `plain_gradient`: those of plain layers under
        PyTorch's autocast; `within_bound`: whether ours are at most twice as large. On a GPU also `graph`, the largest
        difference of any weight between captured and plain updates, which should be 0 or nearly so.
    """
    batch = random_batch(_BATCH_SIZE, seed=0)
    name: Precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    step = _plain_step(device, dtype)
    exact = _plain_update(step.online, batch, torch.device("cpu"), torch.float64)
    plain = _plain_update(step.online, batch, device, dtype)
    output = step.run(_arrived(_nature_learner(device, name).prepare(batch))).cpu().double()
    gradient = torch.cat([p.grad.flatten() for p in step.online.parameters() if p.grad is not None]).cpu()
    ours = _Update(exact.q_tm1, output[:_BATCH_SIZE], gradient)
    result: dict[str, Any] = {"precision": name, **_errors(ours, exact, ""), **_errors(plain, exact, "plain_")}
    if device.type == "cuda":
        result["graph"] = _graph_difference(device, dtype)
    within = all(result[key] <= _BOUND * result[f"plain_{key}"] for key in ("q_values", "gradient"))
    return {**result, "within_bound": within}


class _Update(NamedTuple):
    q_tm1: Tensor  # [B], Q-values of the actions taken
    td_error: Tensor  # [B]
    gradient: Tensor  # [P]


def _errors(update: _Update, exact: _Update, prefix: str) -> dict[str, float]:
    return {
        # A TD error's rounding is its Q-values'.
        f"{prefix}q_values": _rms(update.td_error - exact.td_error) / _rms(exact.q_tm1),
        f"{prefix}gradient": _rms(update.gradient - exact.gradient) / _rms(exact.gradient),
    }


def _nature_learner(device: torch.device, precision: Precision) -> Learner:
    """Double DQN with the network of Mnih et al., 2015: the update that is written out below."""
    return Learner(
        SPEC,
        double=True,
        dueling=False,
        learning_rate=1e-4,
        adam_epsilon=1.5e-4,
        huber_delta=1.0,
        max_grad_norm=10.0,
        target_update_period=500,
        device=str(device),
        precision=precision,
        seed=0,
    )


def _plain_step(device: torch.device, dtype: torch.dtype) -> UpdateStep:
    """What `_nature_learner` runs, without a graph and without clipping, which no gradient here would need."""
    return UpdateStep(
        build_network(SPEC, dueling=False, seed=0).to(device),
        double=True,
        munchausen=0.0,
        munchausen_temperature=1.0,
        expects_exploration=False,
        tree_backup=False,
        gamma=0.99,
        learning_rate=1e-4,
        adam_epsilon=1.5e-4,
        huber_delta=1.0,
        max_grad_norm=float("inf"),
        dtype=dtype,
    )


def _plain_update(network: QNetwork, batch: Batch, device: torch.device, dtype: torch.dtype) -> _Update:
    """The update by plain layers; the target network is the online one, as in a fresh learner."""
    kept = torch.float32 if dtype == torch.bfloat16 else dtype  # of parameters and loss
    weights = {name: p.detach().to(device, kept).requires_grad_(True) for name, p in network.named_parameters()}
    a_tm1, r_t, discount_t, weight = (
        torch.from_numpy(array).to(device) for array in (batch.a_tm1, batch.r_t, batch.discount_t, batch.weight)
    )

    def values(rows: NDArray[np.int32]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return _plain_values(weights, torch.from_numpy(batch.stack(rows)).to(device, kept) / 255)

    with torch.no_grad():
        bootstrap = values(batch.s_t).max(dim=1).values
    q_tm1 = values(batch.s_tm1).gather(1, a_tm1.unsqueeze(1)).squeeze(1)
    td_error = r_t + discount_t * bootstrap - q_tm1
    losses = torch.where(td_error.abs() <= 1, td_error**2 / 2, td_error.abs() - 0.5)
    gradients = torch.autograd.grad((weight * losses).mean(), list(weights.values()))
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    return _Update(*(tensor.detach().cpu().double() for tensor in (q_tm1, td_error, flat)))


def _plain_values(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """The network of Mnih et al., 2015, layer by layer as it is written there."""
    hidden = images
    for layer, stride in (("conv.0", 4), ("conv.2", 2), ("conv.4", 1)):
        hidden = functional.conv2d(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride=stride).relu()
    hidden = functional.linear(hidden.flatten(1), weights["fc.0.weight"], weights["fc.0.bias"]).relu()
    with torch.autocast(images.device.type, enabled=False):
        return functional.linear(hidden.to(weights["fc.2.weight"].dtype), weights["fc.2.weight"], weights["fc.2.bias"])


def _arrived(batch: PreparedBatch) -> UpdateInputs:
    """The inputs, once they are on the device."""
    if batch.ready is not None:
        batch.ready.synchronize()
    return batch.inputs


def _graph_difference(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference of any weight after some updates with and without the captured graph."""
    learner = _nature_learner(device, "bfloat16" if dtype == torch.bfloat16 else "float32")
    step = _plain_step(device, dtype)
    for seed in range(_GRAPHED_UPDATES):
        batch = random_batch(_BATCH_SIZE, seed)
        learner.update(batch)
        step.run(_arrived(learner.prepare(batch)))
    return float(np.abs(learner.weights() - flatten(step.online)).max())


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
