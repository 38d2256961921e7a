"""The Q-networks, and their parameters as one flat array."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.types import EnvironmentSpec

Architecture = Literal["nature", "nips"]

_VECTOR_HIDDEN = 64


class _Convolution(NamedTuple):
    channels: int
    kernel: int
    stride: int


# Convolutions and units of the hidden layer. The first must be 8x8 with stride 4, see `to_inputs`.
_ARCHITECTURES: dict[Architecture, tuple[tuple[_Convolution, ...], int]] = {
    "nature": ((_Convolution(32, 8, 4), _Convolution(64, 4, 2), _Convolution(64, 3, 1)), 512),
    "nips": ((_Convolution(16, 8, 4), _Convolution(32, 4, 2)), 256),
}
# Their weights stay float32.
_LAST_LAYERS = ("fc.2.", "value.2.", "advantage.2.")


class QNetwork(nn.Module):
    """Q-values of every action for a batch of states.

    Image frames go through the convolutions of Mnih et al., 2015 (32@8/4, 64@4/2, 64@3/1) and a layer of
    512 units; the parameters are then named `conv.0.weight` … `fc.2.bias`, as in the Super Mario tutorials
    that this project follows; or through those of Mnih et al., 2013 (16@8/4, 32@4/2) and 256 units. Vector frames go
    through two layers of 64 units (`mlp.0.*`, `fc.0.*`, `fc.2.*`).

    With `dueling`, a `value` and an `advantage` stream take the place of `fc` (Wang et al., 2016, equation 9:
    the advantages' mean is subtracted). The paper's scaling of the gradients by 1/sqrt(2) is left out.

    Args:
        state_shape: [S, *F], see `EnvironmentSpec.state_shape`.
        num_actions: A.
        dueling: whether to use the dueling streams.
        architecture: "nature" (2015) or "nips" (2013), of image frames; no matter for vectors.
        layer_norm: whether every layer but the last is normalised before its ReLU (Ba et al., 2016), over all its
            outputs for one state; of image frames only.
        quantiles: N, of each action's distribution of returns (Dabney et al., 2018), whose mean is its Q-value; 1: the
            Q-values themselves.

    Raises:
        ValueError: frames have neither one nor two axes, or are too small for the convolutions.
    """

    def __init__(
        self,
        state_shape: Sequence[int],
        num_actions: int,
        *,
        dueling: bool = False,
        architecture: Architecture = "nature",
        layer_norm: bool = False,
        quantiles: int = 1,
    ) -> None:
        super().__init__()
        self.dueling = dueling
        self.num_quantiles = quantiles
        stack, *frame_shape = state_shape
        if len(frame_shape) == 2:
            layers, hidden = _ARCHITECTURES[architecture]
            self.conv = _convolutions(stack, layers)
            features = _conv_features(frame_shape, layers)
            if layer_norm:
                heads = ("value", "advantage") if dueling else ("fc",)
                self.norm = _norms([layer.channels for layer in layers], heads, hidden)
        elif len(frame_shape) == 1:
            self.mlp = nn.Sequential(nn.Linear(stack * frame_shape[0], _VECTOR_HIDDEN), nn.ReLU())
            features, hidden = _VECTOR_HIDDEN, _VECTOR_HIDDEN
        else:
            raise ValueError(f"a frame has one axis or two, not the shape {tuple(frame_shape)}")
        if dueling:
            self.value = _head(features, hidden, quantiles)
            self.advantage = _head(features, hidden, num_actions * quantiles)
        else:
            self.fc = _head(features, hidden, num_actions * quantiles)

    def forward(self, states: Tensor) -> Tensor:
        """Q-values, float32 [B, A], of `uint8` states [B, S, *F]."""
        return self.values(to_inputs(states, torch.float32), self.cast(torch.float32))

    def cast(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The parameters by name as `values` computes with them; gradients flow back to the parameters.

        All but the last layers' are in `dtype`. The first layer's weights hold the states' division by 255 and, for
        images, its rearrangement by `to_inputs`; the convolutions' are channels-last. Casting once for several passes
        is cheaper than autocast, which casts in each.
        """
        weights: dict[str, Tensor] = dict(self.named_parameters())
        first = "conv.0.weight" if "conv.0.weight" in weights else "mlp.0.weight"
        weights[first] = weights[first] / 255
        if first == "conv.0.weight":
            weights[first] = _space_to_depth(weights[first])
        return {
            name: weight if name.startswith(_LAST_LAYERS) else _cast(weight, dtype) for name, weight in weights.items()
        }

    def values(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Q-values, float32 [B, A]; see `quantiles`."""
        quantiles = self.quantiles(inputs, weights)
        return quantiles.mean(dim=2) if self.num_quantiles > 1 else quantiles.squeeze(2)

    def quantiles(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Quantiles of the returns, float32 [B, A, N].

        The last layer is float32 whatever the weights' type: Q-values rounded to bfloat16 tie and change the argmax.

        Args:
            inputs: states as `to_inputs` gives them, of the weights' type.
            weights: of `cast`, of this network or of another with the same layers.
        """
        features = self._features(inputs, weights)
        shape = (len(inputs), -1, self.num_quantiles)
        if not self.dueling:
            return _head_values("fc", features, weights).view(shape)
        value = _head_values("value", features, weights).view(shape)  # [B, 1, N]
        advantage = _head_values("advantage", features, weights).view(shape)  # [B, A, N]
        return value + advantage - advantage.mean(dim=1, keepdim=True)

    def _features(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        if inputs.dim() == 2:
            return functional.linear(inputs, weights["mlp.0.weight"], weights["mlp.0.bias"]).relu_()
        hidden = inputs
        # The first layer's stride is in the rearrangement of the inputs.
        for place, stride in ((0, 1), (2, 2), (4, 1)):
            if f"conv.{place}.weight" in weights:
                weight, bias = weights[f"conv.{place}.weight"], weights[f"conv.{place}.bias"]
                hidden = functional.conv2d(hidden, weight, bias, stride=stride)
                hidden = _normalise(f"conv{place}", hidden, weights).relu_()
        return hidden.flatten(1)


def to_inputs(states: Tensor, dtype: torch.dtype) -> Tensor:
    """What `QNetwork.values` computes on: the states' bytes as numbers 0 … 255 of a floating type.

    Images are rearranged from space to depth: each 4x4 block of pixels becomes 16 channels of one place. The first
    convolution, 8x8 with stride 4 on S channels, is then 2x2 with stride 1 on 16 S channels, which is the same
    arithmetic and faster on CPUs and tensor cores. Rows and columns that it does not reach are left out.

    Args:
        states: uint8 [B, S, *F].
        dtype: float32 or bfloat16, both of which hold every byte exactly.

    Returns:
        [B, 16 S, H // 4, W // 4], channels-last, for images, else [B, S * F].
    """
    if states.dim() == 3:
        return states.flatten(1).to(dtype)
    batch, stack, height, width = states.shape
    rows, columns = height // 4, width // 4
    states = states[:, :, : 4 * rows, : 4 * columns].contiguous()
    # Four neighbouring pixels move as one 32-bit word.
    words = states.view(torch.int32).view(batch, stack, rows, 4, columns)
    words = words.permute(0, 2, 4, 1, 3).contiguous()  # [B, rows, columns, S, 4]
    return words.view(torch.uint8).view(batch, rows, columns, 16 * stack).to(dtype).permute(0, 3, 1, 2)


def build_network(
    spec: EnvironmentSpec,
    dueling: bool,
    seed: int,
    architecture: Architecture = "nature",
    layer_norm: bool = False,
    quantiles: int = 1,
) -> QNetwork:
    """A freshly initialised network on the CPU, by PyTorch's default distributions.

    The global random state is left as it was; the same seed gives the same parameters.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the accelerators, which are not forked here.
        torch.default_generator.manual_seed(seed)
        return QNetwork(
            spec.state_shape,
            spec.num_actions,
            dueling=dueling,
            architecture=architecture,
            layer_norm=layer_norm,
            quantiles=quantiles,
        )


def q_values(network: QNetwork, states: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Q-values, float32 [B, A], of states [B, S, *F]; no gradients. Read-only arrays are welcome."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        values: NDArray[np.float32] = network(to_tensor(states, device)).cpu().numpy()
    return values


def flatten(network: QNetwork) -> NDArray[np.float32]:
    """All parameters in `state_dict` order as one float32 [P] array: a copy."""
    with torch.no_grad():
        flat: NDArray[np.float32] = torch.cat([parameter.flatten() for parameter in network.parameters()]).cpu().numpy()
    return flat


def unflatten_(network: QNetwork, flat: NDArray[np.float32]) -> None:
    """Copies a float32 [P] array, which may be a read-only view, into the network's parameters.

    Raises:
        ValueError: the array has another number of elements than the network has parameters.
    """
    parameters = list(network.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"{flat.shape} values do not fit a network of {sum(sizes)} parameters")
    with torch.no_grad():
        source = to_tensor(flat, parameters[0].device)
        for parameter, values in zip(parameters, torch.split(source, sizes), strict=True):
            parameter.copy_(values.view_as(parameter))


def to_tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """The array on a device; it shares the array's memory where the device is the CPU and the array is writable."""
    # torch.from_numpy warns about read-only arrays, which is what Ray's zero-copy views are.
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _convolutions(stack: int, layers: Sequence[_Convolution]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [nn.Conv2d(stack, layer.channels, layer.kernel, layer.stride), nn.ReLU()]
        stack = layer.channels
    return nn.Sequential(*modules)


def _conv_features(frame_shape: Sequence[int], layers: Sequence[_Convolution]) -> int:
    """Outputs of `_convolutions` for one state."""
    sides = list(frame_shape)
    for layer in layers:
        sides = [(side - layer.kernel) // layer.stride + 1 for side in sides]
    if min(sides) < 1:
        raise ValueError(f"frames of {frame_shape[0]}x{frame_shape[1]} are too small for the convolutions (36x36)")
    return layers[-1].channels * sides[0] * sides[1]


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _norms(channels: Sequence[int], heads: Sequence[str], hidden: int) -> nn.ModuleDict:
    """One group over all channels and places is layer normalisation, with a gain and a bias per channel."""
    sizes = {f"conv{2 * i}": size for i, size in enumerate(channels)} | dict.fromkeys(heads, hidden)
    return nn.ModuleDict({name: nn.GroupNorm(1, size) for name, size in sizes.items()})


def _normalise(layer: str, outputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    gain = weights.get(f"norm.{layer}.weight")
    return outputs if gain is None else functional.group_norm(outputs, 1, gain, weights[f"norm.{layer}.bias"])


def _space_to_depth(weight: Tensor) -> Tensor:
    """The weights [O, S, 8, 8] of a convolution with stride 4 as those [O, 16 S, 2, 2] of one with stride 1."""
    outputs, stack, _, _ = weight.shape
    blocks = weight.view(outputs, stack, 2, 4, 2, 4).permute(0, 1, 3, 5, 2, 4)  # [O, S, 4, 4, 2, 2]
    return blocks.reshape(outputs, 16 * stack, 2, 2)


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    memory_format = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    return weight.to(dtype).contiguous(memory_format=memory_format)


def _head_values(head: str, features: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """A head's output with its last layer computed in float32, whatever autocast says."""
    hidden = functional.linear(features, weights[f"{head}.0.weight"], weights[f"{head}.0.bias"])
    hidden = _normalise(head, hidden, weights).relu_()
    with torch.autocast(features.device.type, enabled=False):
        return functional.linear(hidden.float(), weights[f"{head}.2.weight"], weights[f"{head}.2.bias"])
