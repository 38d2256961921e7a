from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from common.networks import QNetwork, build_network, flatten, q_values, to_inputs, unflatten_
from common.types import EnvironmentSpec
from tests.random_batches import MARIO_SPEC, VECTOR_SPEC

TUTORIAL_KEYS = [
    f"{layer}.{kind}" for layer in ("conv.0", "conv.2", "conv.4", "fc.0", "fc.2") for kind in ("weight", "bias")
]


def random_states(spec: EnvironmentSpec, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *spec.state_shape), np.uint8)


def test_tutorial_network_has_its_parameters_under_their_names() -> None:
    network = build_network(MARIO_SPEC, dueling=False, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_687_719
    assert list(network.state_dict()) == TUTORIAL_KEYS


def test_tutorial_network_computes_what_the_plain_layers_compute() -> None:
    network = build_network(MARIO_SPEC, dueling=False, seed=1)
    plain = nn.Sequential(
        nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 7),
    )  # fmt: skip
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    states = random_states(MARIO_SPEC)
    with torch.no_grad():
        expected = plain(torch.tensor(states, dtype=torch.float32) / 255)
    np.testing.assert_allclose(q_values(network, states), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frame_shape", [(36, 36), (37, 38), (39, 85), (87, 42)])
def test_frames_of_any_size_meet_the_plain_convolution(frame_shape: tuple[int, int]) -> None:
    spec = EnvironmentSpec(frame_shape=frame_shape, frame_stack=3, action_names=("a", "b"))
    network, states = build_network(spec, dueling=False, seed=1), random_states(spec)
    with torch.no_grad():
        expected = network.fc(network.conv(torch.tensor(states, dtype=torch.float32) / 255).flatten(1))
    np.testing.assert_allclose(q_values(network, states), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_gradients_reach_the_parameters_as_through_the_plain_layers() -> None:
    network, states = build_network(MARIO_SPEC, dueling=False, seed=1), torch.from_numpy(random_states(MARIO_SPEC))
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(network(states).square().sum(), parameters)
    plain = network.fc(network.conv(states.float() / 255).flatten(1))
    for gradient, expected in zip(gradients, torch.autograd.grad(plain.square().sum(), parameters), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_bytes_are_exact_inputs_in_both_precisions() -> None:
    states = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for dtype in (torch.float32, torch.bfloat16):
        assert sorted(to_inputs(states, dtype).flatten().tolist()) == list(range(256))


@pytest.mark.parametrize("spec", [MARIO_SPEC, VECTOR_SPEC])
@pytest.mark.parametrize("dueling", [False, True])
def test_every_network_maps_byte_states_to_float32_q_values(spec: EnvironmentSpec, dueling: bool) -> None:
    values = q_values(build_network(spec, dueling, seed=0), random_states(spec))
    assert values.shape == (3, spec.num_actions)
    assert values.dtype == np.float32


def test_dueling_is_value_plus_advantage_less_its_mean() -> None:
    network = build_network(VECTOR_SPEC, dueling=True, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("value.2.bias").copy_(torch.tensor([10.0]))
        network.get_parameter("advantage.2.bias").copy_(torch.tensor([1.0, 2.0, 6.0]))
    # the advantages' mean is 3
    np.testing.assert_allclose(q_values(network, random_states(VECTOR_SPEC, 1)), [[8.0, 9.0, 13.0]])


@pytest.mark.parametrize("dueling", [False, True])
def test_last_layer_stays_float32_under_autocast(dueling: bool) -> None:
    network = build_network(VECTOR_SPEC, dueling, seed=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        values = network(torch.from_numpy(random_states(VECTOR_SPEC, 32)))
    assert values.dtype == torch.float32
    assert not torch.equal(values, values.bfloat16().float())


def test_initialisation_is_pytorchs_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = flatten(QNetwork(VECTOR_SPEC.state_shape, 3))
    before = torch.get_rng_state()
    network = build_network(VECTOR_SPEC, dueling=False, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(flatten(network), expected)
    assert not np.array_equal(flatten(build_network(VECTOR_SPEC, dueling=False, seed=6)), expected)


def test_flat_parameters_round_trip_through_a_read_only_view(recwarn: pytest.WarningsRecorder) -> None:
    source, copy = (build_network(VECTOR_SPEC, dueling=True, seed=seed) for seed in (1, 2))
    flat = flatten(source)
    assert flat.dtype == np.float32
    flat.setflags(write=False)
    unflatten_(copy, flat)
    for name, tensor in source.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name
    assert not recwarn.list


def test_flat_parameters_follow_the_order_of_the_state_dict() -> None:
    network = build_network(VECTOR_SPEC, dueling=True, seed=1)
    expected = np.concatenate([tensor.numpy().ravel() for tensor in network.state_dict().values()])
    np.testing.assert_array_equal(flatten(network), expected)


def test_flat_parameters_are_copies_both_ways() -> None:
    network = build_network(VECTOR_SPEC, dueling=False, seed=1)
    flat = flatten(network)
    before = flat.copy()
    unflatten_(network, flat)
    flat[:] = 0
    np.testing.assert_array_equal(flatten(network), before)


def test_flat_parameters_of_another_network_are_refused() -> None:
    network = build_network(VECTOR_SPEC, dueling=False, seed=1)
    with pytest.raises(ValueError, match="do not fit"):
        unflatten_(network, flatten(network)[:-1])


@pytest.mark.parametrize(("shape", "message"), [((4, 35, 84), "too small"), ((4, 3, 84, 84), "one axis or two")])
def test_frames_that_no_network_fits_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QNetwork(shape, 5)


def test_q_values_takes_read_only_states_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    states = random_states(VECTOR_SPEC)
    states.setflags(write=False)
    q_values(build_network(VECTOR_SPEC, dueling=False, seed=0), states)
    assert not recwarn.list


@pytest.mark.parametrize("dueling", [False, True])
def test_network_of_2013_computes_what_the_plain_layers_compute(dueling: bool) -> None:
    network = build_network(MARIO_SPEC, dueling, 1, "nips")
    states = random_states(MARIO_SPEC)
    with torch.no_grad():
        features = network.conv(torch.tensor(states, dtype=torch.float32) / 255).flatten(1)
        if dueling:
            value, advantage = network.value(features), network.advantage(features)
            expected = value + advantage - advantage.mean(1, keepdim=True)
        else:
            expected = network.fc(features)
    np.testing.assert_allclose(q_values(network, states), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert [tuple(weight.shape) for weight in network.conv.parameters()] == [
        (16, 4, 8, 8),
        (16,),
        (32, 16, 4, 4),
        (32,),
    ]
    assert features.shape == (3, 32 * 9 * 9)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("architecture", ["nature", "nips"])
def test_normalised_network_computes_what_plain_layer_normalisation_computes(
    architecture: Literal["nature", "nips"], dueling: bool
) -> None:
    network = build_network(MARIO_SPEC, dueling, 1, architecture, layer_norm=True)
    states = random_states(MARIO_SPEC)

    def head(layers: nn.Sequential, features: torch.Tensor) -> torch.Tensor:
        hidden = layers[0](features)
        return layers[2](functional.layer_norm(hidden, hidden.shape[1:]).relu())  # type: ignore[no-any-return]

    with torch.no_grad():
        features = torch.tensor(states, dtype=torch.float32) / 255
        for layer in network.conv:
            features = layer(features)
            if isinstance(layer, nn.Conv2d):
                features = functional.layer_norm(features, features.shape[1:])
        features = features.flatten(1)
        if dueling:
            value, advantage = head(network.value, features), head(network.advantage, features)
            expected = value + advantage - advantage.mean(1, keepdim=True)
        else:
            expected = head(network.fc, features)
    np.testing.assert_allclose(q_values(network, states), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_gains_and_biases_of_the_normalisation_are_used() -> None:
    network = build_network(MARIO_SPEC, False, 1, "nips", layer_norm=True)
    states = random_states(MARIO_SPEC)
    for name, weight in network.norm.named_parameters():
        before = q_values(network, states)
        weight.data += torch.linspace(0.1, 0.5, len(weight))
        assert not np.allclose(q_values(network, states), before), name
