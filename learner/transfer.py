"""From the host's memory to the device's, with as few copies as there can be."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.networks import to_tensor

_ALIGNMENT = 16  # bytes, so that a part may be read as any type


def empty_frames(shape: Sequence[int], device: torch.device) -> NDArray[np.uint8]:
    """Memory for uint8 frames that are to go to a device: pinned for a GPU, which reads it while the host goes on."""
    if device.type != "cuda":
        return np.empty(shape, np.uint8)
    pinned: NDArray[np.uint8] = torch.empty(tuple(shape), dtype=torch.uint8, pin_memory=True).numpy()
    return pinned


def frames_to_device(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The frames on a device; those of `empty_frames` are not copied on the host first."""
    if device.type == "cuda":
        tensor = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        if tensor.is_pinned():
            return tensor.to(device, non_blocking=True)
    return to_tensor(frames, device)


def together_to_device(arrays: Sequence[NDArray[np.generic]], device: torch.device) -> list[Tensor]:
    """Small arrays on a device, brought to a GPU in one copy."""
    if device.type != "cuda":
        return [to_tensor(array, device) for array in arrays]
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    staged = torch.empty(end, dtype=torch.uint8, pin_memory=True)
    memory = staged.numpy()
    for array, start in zip(arrays, starts, strict=True):
        memory[start : start + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
    moved = staged.to(device, non_blocking=True)
    return [
        moved[start : start + array.nbytes].view(_torch_type(array)).view(array.shape)
        for array, start in zip(arrays, starts, strict=True)
    ]


def _torch_type(array: NDArray[np.generic]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
