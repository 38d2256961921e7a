"""Where the learner computes, and in which precision."""

import re
from typing import Literal

import torch

from common.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]


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


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the networks run under bfloat16 autocast; "auto" where the hardware computes in it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN's own check is true for every AVX-512 processor, where bfloat16 is emulated and slow.
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
