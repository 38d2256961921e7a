"""The learner on a GPU beside the learner on the CPU; the first updates run without a graph, later ones from it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.config import Config
from common.precision import Precision
from learner.factory import build_learner
from learner.learner import Learner
from tests.random_batches import MARIO_SPEC, VECTOR_SPEC, random_batch
from tests.test_learner import learning_rate, make_learner, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

_UPDATES = 8  # more than the graph's warm-up
OPTIONS: dict[str, dict[str, Any]] = {
    "double": {},
    "plain": {"double": False},
    "target network": {"target_update_period": 2},
    "duelling": {"dueling": True},
    "Munchausen": {"munchausen": 0.9},
    "quantiles": {"quantiles": 8},
    "Munchausen with quantiles": {"munchausen": 0.9, "quantiles": 8},
    "late target epsilon": {"target_epsilon": 0.02, "target_epsilon_late": 0.3, "target_epsilon_late_update": 5},
    "decaying step size": {"learning_rate_final": 1e-5, "learning_rate_decay_updates": 6},
    "average": {"average_decay": 0.9},
    "clipping": {"max_grad_norm": 0.1},
}


def on_both(**settings: Any) -> tuple[Learner, Learner]:
    """The same learner on the GPU and on the CPU."""
    # Where a gradient is nearly zero Adam makes whole steps of its rounding, unless this is large beside it.
    settings = {"adam_epsilon": 1e-2, **settings}
    return make_learner(device="cuda", **settings), make_learner(device="cpu", **settings)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_learns_what_it_learns_on_the_cpu(options: dict[str, Any]) -> None:
    on_gpu, on_cpu = on_both(**options)
    for seed in range(_UPDATES):
        batch = random_batch(VECTOR_SPEC, seed)
        ours, expected = on_gpu.update(batch), on_cpu.update(batch)
        np.testing.assert_allclose(ours.td_error, expected.td_error, atol=1e-4)
        np.testing.assert_allclose(ours[1:], expected[1:], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(on_gpu.weights(), on_cpu.weights(), atol=1e-5)
    np.testing.assert_allclose(on_gpu.policy_weights(), on_cpu.policy_weights(), atol=1e-5)


def default_learner(device: str, precision: Precision, random_shift: int = 0) -> Learner:
    """The default preset's: the small normalised network, quantiles, Munchausen targets, an average of the weights."""
    settings = replace(Config().learner, precision=precision, random_shift=random_shift, adam_epsilon=1e-2)
    return build_learner(spec=MARIO_SPEC, agent=Config().agent, learner=settings, seed=7, device=device)


@pytest.fixture
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch lets a GPU's float32 convolutions compute in TF32, with 10 bits of mantissa."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("exact_convolutions")
@pytest.mark.parametrize("random_shift", [0, 4])
def test_the_default_preset_learns_what_it_learns_on_the_cpu(random_shift: int) -> None:
    on_gpu, on_cpu = (default_learner(device, "float32", random_shift) for device in ("cuda", "cpu"))
    for seed in range(_UPDATES):
        batch = random_batch(MARIO_SPEC, seed, size=8)
        ours, expected = on_gpu.update(batch), on_cpu.update(batch)
        np.testing.assert_allclose(ours.td_error, expected.td_error, atol=2e-3)
        assert ours.q_mean == pytest.approx(expected.q_mean, abs=2e-3)
    np.testing.assert_allclose(on_gpu.weights(), on_cpu.weights(), atol=1e-4)
    np.testing.assert_allclose(on_gpu.policy_weights(), on_cpu.policy_weights(), atol=1e-4)


def test_bfloat16_is_as_near_to_float32_as_on_the_cpu() -> None:
    batch = random_batch(MARIO_SPEC, seed=0, size=64)
    exact = default_learner("cpu", "float32").update(batch).td_error
    errors = {
        device: np.square(default_learner(device, "bfloat16").update(batch).td_error - exact).mean() ** 0.5
        for device in ("cuda", "cpu")
    }
    assert 0 < errors["cuda"] < 2 * errors["cpu"]


def test_a_batch_of_another_size_trains_without_the_graph_and_the_graph_goes_on() -> None:
    on_gpu, on_cpu = on_both()
    for seed, size in enumerate([16, 16, 16, 16, 16, 5, 16, 16]):
        batch = random_batch(VECTOR_SPEC, seed, size)
        np.testing.assert_allclose(on_gpu.update(batch).td_error, on_cpu.update(batch).td_error, atol=1e-4)
    np.testing.assert_allclose(on_gpu.weights(), on_cpu.weights(), atol=1e-5)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_state_goes_on_on_either_device(device: str) -> None:
    whole, _ = on_both(target_update_period=3)
    train(whole, _UPDATES)
    state = whole.state_dict()
    restored = make_learner(device=device, adam_epsilon=1e-2, target_update_period=3)
    restored.load_state_dict(state)
    np.testing.assert_array_equal(restored.weights(), whole.weights())
    train(restored, _UPDATES)
    train(whole, _UPDATES)
    np.testing.assert_allclose(restored.weights(), whole.weights(), atol=1e-5)


def test_a_graph_captured_before_another_state_is_loaded_is_not_used_with_it() -> None:
    learner, other = on_both(target_update_period=3)
    train(other, 5)
    train(learner, _UPDATES)
    learner.load_state_dict(other.state_dict())
    train(other, _UPDATES)
    train(learner, _UPDATES)
    np.testing.assert_allclose(learner.weights(), other.weights(), atol=1e-5)


def test_frames_that_the_reader_wrote_into_pinned_memory_train_alike() -> None:
    learner, other = on_both()
    for seed in range(_UPDATES):
        batch = random_batch(VECTOR_SPEC, seed)
        frames = learner.empty_frames(batch.frames.shape)
        frames[:] = batch.frames
        assert torch.from_numpy(frames).is_pinned()
        ours = learner.update(batch._replace(frames=frames))
        np.testing.assert_allclose(ours.td_error, other.update(batch).td_error, atol=1e-4)


def test_results_read_late_are_those_of_their_own_update() -> None:
    on_gpu, on_cpu = on_both()
    batches = [random_batch(VECTOR_SPEC, seed) for seed in range(_UPDATES)]
    started = [on_gpu.start(on_gpu.prepare(batch)) for batch in batches]
    for update, batch in zip(started, batches, strict=True):
        np.testing.assert_allclose(on_gpu.finish(update).td_error, on_cpu.update(batch).td_error, atol=1e-4)


def test_a_loss_that_is_not_finite_leaves_the_weights_and_updates_already_started_change_nothing() -> None:
    learner, _ = on_both()
    train(learner, _UPDATES)
    before = learner.state_dict()
    failing, good = random_batch(VECTOR_SPEC, seed=0), random_batch(VECTOR_SPEC, seed=1)
    failing.r_t[3] = np.nan
    started = [learner.start(learner.prepare(batch)) for batch in (failing, good)]
    with pytest.raises(RuntimeError, match=f"not finite at update {_UPDATES + 1}"):
        learner.finish(started[0])
    assert learner.updates == _UPDATES
    for name, tensor in before["online"].items():
        assert torch.equal(learner.state_dict()["online"][name], tensor), name
    learner.update(good)
    assert not torch.equal(learner.state_dict()["online"]["fc.2.bias"], before["online"]["fc.2.bias"])


def test_the_step_size_of_a_state_from_the_cpu_is_kept() -> None:
    _, on_cpu = on_both(learning_rate_final=2e-4, learning_rate_decay_updates=8)
    train(on_cpu, 5)
    learner, _ = on_both(learning_rate_final=2e-4, learning_rate_decay_updates=8)
    learner.load_state_dict(on_cpu.state_dict())
    train(learner, 1)
    assert learning_rate(learner) == pytest.approx(1e-3 - 5 / 8 * 8e-4)
