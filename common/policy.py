"""Policy files: the weights as a plain `state_dict` (`NAME.pt`) and what they mean (`NAME.json`) beside it."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.actions import ACTION_SETS
from common.errors import UserError
from common.files import write_all_atomically
from common.networks import Architecture, QNetwork, q_values
from common.types import EnvironmentSpec

_MARIO_FRAME = (84, 84)
_NETWORK_AXES = (1, 2)  # of a frame


@dataclass(frozen=True)
class Policy:
    """A network that is ready to play, and what it plays.

    Attributes:
        network: on the CPU, in eval mode.
        spec: frames and actions that it was trained with.
        metadata: whatever was saved with it, such as `env` (the fields of `EnvConfig`), `env_steps` and
            `updates`; empty for a bare `state_dict`.
    """

    network: QNetwork
    spec: EnvironmentSpec
    metadata: dict[str, object]

    def q_values(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Q-values, float32 [B, A], of states [B, S, *F]."""
        return q_values(self.network, states)


def save_policy(path: Path, network: QNetwork, spec: EnvironmentSpec, metadata: Mapping[str, object]) -> None:
    """Writes `path` (a `.pt` file) and its sidecar, each atomically.

    Args:
        metadata: must be JSON: no NaN, no arrays.

    Raises:
        ValueError: the path does not end in `.pt`, or the metadata is not JSON.
        OSError: the disk is full or the folder cannot be written.
    """
    save_weights(path, network.state_dict(), spec, metadata)


def save_weights(
    path: Path, weights: Mapping[str, Tensor], spec: EnvironmentSpec, metadata: Mapping[str, object]
) -> None:
    """As `save_policy`, from a snapshot of the network's `state_dict`."""
    if path.suffix != ".pt":
        raise ValueError(f"a policy file is called NAME.pt, not {path.name}")
    sidecar = {
        "network": _describe(weights),
        "frame_shape": spec.frame_shape,
        "frame_stack": spec.frame_stack,
        "action_names": spec.action_names,
        "metadata": metadata,
    }
    text = json.dumps(sidecar, indent=2, allow_nan=False) + "\n"
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, buffer)
    # The sidecar first: weights must never lie there without it.
    write_all_atomically({path.with_suffix(".json"): text.encode(), path: buffer.getvalue()})


def load_policy(path: Path, *, action_names: tuple[str, ...] | None = None, frame_stack: int | None = None) -> Policy:
    """Reads a policy file; runs no code from it.

    Without a sidecar the shapes tell: 84x84 frames, the stack from `conv.0.weight`, the action set from the
    number of outputs (5, 7 or 12), dueling from the names.

    Args:
        action_names: the actions of a bare `state_dict` with another number of outputs; must agree with the
            file where the file says it.
        frame_stack: frames in a state; must agree with the file.

    Raises:
        UserError: the file is missing, damaged, not a policy, or contradicts its sidecar or the arguments.
    """
    weights = _check_weights(path, load_tensors(path))
    sidecar_path = path.with_suffix(".json")
    if sidecar_path.exists():
        spec, metadata = _read_sidecar(sidecar_path, _describe(weights))
    else:
        spec, metadata = _infer_spec(path, weights, action_names), {}
    _check_arguments(path, spec, action_names, frame_stack)
    return Policy(_build(path, spec, weights), spec, metadata)


def load_tensors(path: Path) -> object:
    """What `torch.save` wrote, onto the CPU, without running pickled code.

    Raises:
        UserError: the file is missing, damaged or holds more than tensors and plain containers.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the path of a policy file (.pt)")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        loaded: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for foreign bytes
        raise UserError(
            f"{path} is damaged or is no plain state_dict ({type(error).__name__}): give a file that torch.save wrote"
        ) from error
    return loaded


def _is_dueling(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("advantage.") for name in weights)


def _has_layer_norm(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("norm.") for name in weights)


def _architecture(weights: Mapping[str, Tensor]) -> Architecture:
    """By the convolutions' number; of no importance where there are none."""
    return "nips" if "conv.2.weight" in weights and "conv.4.weight" not in weights else "nature"


def _quantiles(weights: Mapping[str, Tensor], num_actions: int) -> int:
    """Outputs of the last layer per action; 1 where they do not divide, which its shape is then refused for."""
    bias = weights.get("advantage.2.bias", weights.get("fc.2.bias"))
    each, rest = divmod(0 if bias is None else bias.numel(), num_actions)
    return 1 if rest else max(1, each)


def _describe(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """The network of the weights, as a sidecar has it."""
    name = f"{_architecture(weights)}-cnn" if "conv.0.weight" in weights else "mlp"
    norm = {"layer_norm": True} if _has_layer_norm(weights) else {}
    return {"architecture": name, "dueling": _is_dueling(weights), **norm}


def _check_weights(path: Path, loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, dict) or not loaded or not all(_is_weight(*item) for item in loaded.items()):
        raise UserError(f"{path} is no state_dict of weights: save one with torch.save(network.state_dict(), ...)")
    weights = cast(dict[str, Tensor], loaded)
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path} holds NaN or infinity in {name}: take an earlier checkpoint")
    return weights


def _is_weight(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


def _read_sidecar(path: Path, expected: dict[str, object]) -> tuple[EnvironmentSpec, dict[str, object]]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        spec, network, metadata = _parse_sidecar(fields)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise UserError(f"{path} is no sidecar of a policy file ({reason}): restore it, or remove it") from error
    if network != expected:
        raise UserError(f"{path} says network {network} but the weights are {expected}: restore it, or remove it")
    return spec, metadata


def _parse_sidecar(fields: Any) -> tuple[EnvironmentSpec, dict[str, object], dict[str, object]]:
    """Spec, network and metadata; raises ValueError, TypeError or KeyError where one is not as it should be."""
    frame_shape, frame_stack, action_names = fields["frame_shape"], fields["frame_stack"], fields["action_names"]
    network, metadata = fields["network"], fields["metadata"]
    if not isinstance(frame_shape, list) or len(frame_shape) not in _NETWORK_AXES:
        raise ValueError("frame_shape is no list of one or two numbers")
    if not all(type(size) is int and size > 0 for size in [*frame_shape, frame_stack]):
        raise ValueError("frame_shape and frame_stack must be positive whole numbers")
    if not isinstance(action_names, list) or not action_names or not all(isinstance(n, str) for n in action_names):
        raise ValueError("action_names is no list of names")
    if not isinstance(network, dict) or not isinstance(metadata, dict):
        raise ValueError("network and metadata must be objects")
    return EnvironmentSpec(tuple(frame_shape), frame_stack, tuple(action_names)), network, metadata


def _infer_spec(path: Path, weights: Mapping[str, Tensor], action_names: tuple[str, ...] | None) -> EnvironmentSpec:
    first, last = weights.get("conv.0.weight"), weights.get("advantage.2.bias", weights.get("fc.2.bias"))
    if first is None or first.dim() != 4 or last is None or last.dim() != 1:
        raise UserError(f"{path} has no known network and no sidecar {path.stem}.json: put the sidecar beside it")
    if action_names is None:
        known = {len(names): names for names in ACTION_SETS.values()}
        if len(last) not in known:
            raise UserError(f"{path} has {len(last)} actions and no sidecar: name its action set with --actions")
        action_names = known[len(last)]
    return EnvironmentSpec(_MARIO_FRAME, first.shape[1], action_names)


def _check_arguments(
    path: Path, spec: EnvironmentSpec, action_names: tuple[str, ...] | None, frame_stack: int | None
) -> None:
    if action_names is not None and action_names != spec.action_names:
        raise UserError(f"{path} plays {', '.join(spec.action_names)}, not {', '.join(action_names)}: drop the option")
    if frame_stack is not None and frame_stack != spec.frame_stack:
        raise UserError(f"{path} stacks {spec.frame_stack} frames, not {frame_stack}: drop the option")


def _build(path: Path, spec: EnvironmentSpec, weights: Mapping[str, Tensor]) -> QNetwork:
    """The network with these weights; on the meta device first, so that absurd shapes allocate nothing."""
    try:
        with torch.device("meta"):
            network = QNetwork(
                spec.state_shape,
                spec.num_actions,
                dueling=_is_dueling(weights),
                architecture=_architecture(weights),
                layer_norm=_has_layer_norm(weights),
                quantiles=_quantiles(weights, spec.num_actions),
            )
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"{path} has a sidecar for frames that no network fits: restore it, or remove it") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path} does not fit {spec.num_actions} actions and states of {spec.state_shape}: {name} has shape "
                f"{found.get(name, 'none')} instead of {expected.get(name, 'none')}; check its sidecar and options"
            )
    network.to_empty(device="cpu")
    network.load_state_dict(weights)
    return network.eval()
