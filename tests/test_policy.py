import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from common.actions import COMPLEX_MOVEMENT, RIGHT_ONLY, SIMPLE_MOVEMENT
from common.errors import UserError
from common.networks import QNetwork, build_network, flatten
from common.policy import load_policy, save_policy
from common.types import EnvironmentSpec
from tests.random_batches import VECTOR_SPEC

SPEC = EnvironmentSpec((84, 84), 4, RIGHT_ONLY)
METADATA: dict[str, object] = {"env": {"stages": ["1-1"], "actions": "right_only"}, "env_steps": 12}


@pytest.fixture(scope="module")
def network() -> QNetwork:
    return build_network(SPEC, dueling=False, seed=3)


@pytest.fixture
def saved(tmp_path: Path, network: QNetwork) -> Path:
    path = tmp_path / "best.pt"
    save_policy(path, network, SPEC, METADATA)
    return path


def save_bare(path: Path, actions: int, *, stack: int = 4, dueling: bool = False) -> QNetwork:
    network = QNetwork((stack, 84, 84), actions, dueling=dueling)
    torch.save(network.state_dict(), path)
    return network


def edit_sidecar(policy: Path, **changes: Any) -> None:
    path = policy.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(path: Path, **options: Any) -> str:
    """The one line that a user sees."""
    with pytest.raises(UserError) as error:
        load_policy(path, **options)
    message = str(error.value)
    assert message.startswith(str(path.parent))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("spec", [SPEC, VECTOR_SPEC])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("architecture", ["nature", "nips"])
@pytest.mark.parametrize("quantiles", [1, 4])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_policy_round_trip(
    tmp_path: Path,
    spec: EnvironmentSpec,
    dueling: bool,
    architecture: Literal["nature", "nips"],
    layer_norm: bool,
    quantiles: int,
) -> None:
    network = build_network(spec, dueling, 3, architecture, layer_norm, quantiles)
    path = tmp_path / "policy.pt"
    save_policy(path, network, spec, METADATA)
    policy = load_policy(path)
    assert policy.spec == spec
    assert policy.metadata == METADATA
    assert not policy.network.training
    np.testing.assert_array_equal(flatten(policy.network), flatten(network))
    values = policy.q_values(np.zeros((2, *spec.state_shape), np.uint8))
    assert values.shape == (2, spec.num_actions)
    assert values.dtype == np.float32


def test_policy_file_is_a_plain_state_dict_of_contiguous_tensors(saved: Path, network: QNetwork) -> None:
    weights = torch.load(saved, weights_only=True)
    assert type(weights) is dict
    assert list(weights) == list(network.state_dict())
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in weights.values())


def test_saving_leaves_two_files_and_no_temporary_one(saved: Path) -> None:
    assert sorted(os.listdir(saved.parent)) == ["best.json", "best.pt"]


def test_saving_again_replaces_both_files(saved: Path) -> None:
    other = build_network(SPEC, dueling=False, seed=4)
    save_policy(saved, other, SPEC, {"env_steps": 99})
    policy = load_policy(saved)
    assert policy.metadata == {"env_steps": 99}
    np.testing.assert_array_equal(flatten(policy.network), flatten(other))


def test_metadata_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path, network: QNetwork) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_policy(tmp_path / "p.pt", network, SPEC, {"mean_x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_policy_file_must_end_in_pt(tmp_path: Path, network: QNetwork) -> None:
    with pytest.raises(ValueError, match=r"NAME\.pt"):
        save_policy(tmp_path / "policy.json", network, SPEC, {})


@pytest.mark.parametrize(
    ("actions", "names"), [(5, RIGHT_ONLY), (7, SIMPLE_MOVEMENT), (12, COMPLEX_MOVEMENT)], ids=["5", "7", "12"]
)
@pytest.mark.parametrize("dueling", [False, True])
def test_bare_state_dict_is_understood_by_its_shapes(
    tmp_path: Path, actions: int, names: tuple[str, ...], dueling: bool
) -> None:
    path = tmp_path / "net.pt"
    network = save_bare(path, actions, stack=3, dueling=dueling)
    policy = load_policy(path)
    assert policy.spec == EnvironmentSpec((84, 84), 3, names)
    assert policy.metadata == {}
    np.testing.assert_array_equal(flatten(policy.network), flatten(network))


def test_bare_state_dict_with_other_actions_asks_for_the_option(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_bare(path, 6)
    assert "6 actions" in refusal(path)
    assert "--actions" in refusal(path)
    assert load_policy(path, action_names=tuple("abcdef")).spec.action_names == tuple("abcdef")


def test_bare_state_dict_and_options_that_disagree_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_bare(path, 5)
    assert "fc.2.weight has shape (5, 512) instead of (7, 512)" in refusal(path, action_names=SIMPLE_MOVEMENT)
    assert "stacks 4 frames, not 3" in refusal(path, frame_stack=3)
    assert load_policy(path, frame_stack=4).spec.frame_stack == 4


def test_options_that_contradict_the_sidecar_are_refused(saved: Path) -> None:
    assert "drop the option" in refusal(saved, action_names=SIMPLE_MOVEMENT)
    assert "drop the option" in refusal(saved, frame_stack=3)
    assert load_policy(saved, action_names=RIGHT_ONLY, frame_stack=4).spec == SPEC


def test_vector_network_without_its_sidecar_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "grid.pt"
    save_policy(path, build_network(VECTOR_SPEC, dueling=False, seed=0), VECTOR_SPEC, {})
    path.with_suffix(".json").unlink()
    assert "put the sidecar beside it" in refusal(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in _message_of(tmp_path / "none.pt")
    assert "there is no file" in _message_of(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(saved: Path, fraction: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * fraction)])
    assert "damaged" in refusal(saved)


@pytest.mark.parametrize("data", [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(500), b"PK\x03\x04" + bytes(99), b"\x80\x04."])
def test_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), {"a": torch.arange(3)}])
def test_tensors_that_are_no_state_dict_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "net.pt"
    torch.save(value, path)
    assert "no state_dict" in refusal(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(torch.nn.Linear(3, 5).state_dict(), path)
    assert "no known network" in refusal(path)


def test_weights_of_other_layers_are_refused_by_name(saved: Path) -> None:
    weights = torch.load(saved, weights_only=True)
    torch.save({**weights, "conv.2.weight": torch.zeros(64, 32, 5, 5)}, saved)
    assert "conv.2.weight has shape (64, 32, 5, 5) instead of (64, 32, 4, 4)" in refusal(saved)
    torch.save({name: tensor for name, tensor in weights.items() if name != "conv.4.bias"}, saved)
    assert "conv.4.bias has shape none" in refusal(saved)
    torch.save({**weights, "extra": torch.zeros(1)}, saved)
    assert "extra has shape (1,) instead of none" in refusal(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved: Path, value: float) -> None:
    weights = torch.load(saved, weights_only=True)
    weights["fc.0.bias"][5] = value
    torch.save(weights, saved)
    assert "NaN or infinity in fc.0.bias" in refusal(saved)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "created"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(victim), "w"))

    path = tmp_path / "net.pt"
    torch.save({"conv.0.weight": Malicious()}, path)
    assert "no plain state_dict" in refusal(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"action_names": list(SIMPLE_MOVEMENT)},
        {"frame_stack": 3},
        {"frame_shape": [100, 84]},
        {"frame_shape": [20, 20]},
        {"frame_shape": [10**9, 10**9]},
        {"frame_stack": 10**30},
        {"network": {"architecture": "nature-cnn", "dueling": True}},
        {"network": {"architecture": "mlp", "dueling": False}},
        {"network": {"architecture": "nips-cnn", "dueling": False}},
        {"network": {"architecture": "nature-cnn", "dueling": False, "layer_norm": True}},
        {"frame_shape": [84], "network": {"architecture": "mlp", "dueling": False}},
    ],
)
def test_sidecar_that_contradicts_the_weights_is_refused(saved: Path, changes: dict[str, Any]) -> None:
    edit_sidecar(saved, **changes)
    assert "sidecar" in refusal(saved) or "restore it" in refusal(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_stack": "4"},
        {"frame_stack": True},
        {"frame_stack": 0},
        {"frame_shape": 84},
        {"frame_shape": [1, 2, 3]},
        {"frame_shape": ["84", "84"]},
        {"action_names": []},
        {"action_names": "right"},
        {"action_names": [1, 2, 3, 4, 5]},
        {"metadata": None},
        {"network": "nature-cnn"},
    ],
)
def test_sidecar_with_a_wrong_field_is_refused(saved: Path, changes: dict[str, Any]) -> None:
    edit_sidecar(saved, **changes)
    assert "best.json is no sidecar" in refusal(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "[" * 100_000, "\x00"])
def test_sidecar_that_cannot_be_read_is_refused(saved: Path, text: str) -> None:
    saved.with_suffix(".json").write_text(text)
    assert "best.json is no sidecar" in refusal(saved)


def test_sidecar_that_is_no_text_is_refused(saved: Path) -> None:
    saved.with_suffix(".json").write_bytes(b"\xff\xfe\xfa")
    assert "best.json is no sidecar" in refusal(saved)


def test_sidecar_that_is_a_folder_is_refused(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    saved.with_suffix(".json").mkdir()
    assert "cannot be read" in refusal(saved)


def test_loading_leaves_the_global_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    load_policy(saved)
    assert torch.equal(torch.get_rng_state(), before)


def _message_of(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_policy(path)
    return str(error.value)
