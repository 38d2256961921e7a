"""Whether Adam can go on from a state: its fused kernels trust the shapes that they are given."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

_AVERAGES: Final = ("exp_avg", "exp_avg_sq")
_NUMBERS: Final = ("lr", "eps")
# The learner sets it by its device.
_OF_DEVICE: Final = "capturable"


def check_adam(state: Mapping[str, Any], fresh: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
    """Refuses what is no state of Adam's over these parameters.

    Args:
        state: the `state_dict` of an optimizer that loaded it.
        fresh: that of one that has made no step.
        parameters: of the network, in order.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RuntimeError: with the reason.
    """
    (group,), (own,) = state["param_groups"], fresh["param_groups"]
    for name, value in own.items():
        if name in _NUMBERS:
            _check(type(group[name]) in (int, float) and 0 <= group[name] < math.inf, f"{name} is {group[name]!r}")
        elif name != _OF_DEVICE:
            # A tensor may equal a number that its kernels do not take it for.
            _check(repr(group[name]) == repr(value), f"{name} is not {value!r}")
    if not state["state"]:
        return  # before the first step
    _check(state["state"].keys() == set(range(len(parameters))), "averages are of other parameters")
    for index, parameter in enumerate(parameters):
        entry = state["state"][index]
        for name in _AVERAGES:
            _check(_is_like(entry[name], parameter), f"{name} of parameter {index} has another shape")
        _check(bool((entry["exp_avg_sq"] >= 0).all()), f"exp_avg_sq of parameter {index} is negative")
        step = entry["step"]
        _check(step.shape == () and 0 <= float(step) < math.inf, f"step of parameter {index} is {step!r}")


def _is_like(tensor: Tensor, parameter: Tensor) -> bool:
    same_kind = tensor.dtype == parameter.dtype and tensor.layout == torch.strided and tensor.is_contiguous()
    return same_kind and tensor.shape == parameter.shape


def _check(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(f"Adam's {reason}")
