"""Where the learner computes."""

import re

import torch

from common.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device called "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f'unknown learner device "{name}": take auto, cpu, cuda or cuda:0')
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'learner device "{name}" is not on this machine: take auto or cpu')
    return device
