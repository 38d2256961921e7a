"""Weights travel between the tutorials' notebook and this project, both ways."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import evaluate
from actors.environment import environment_spec
from common.networks import build_network
from common.policy import load_policy, save_policy
from learner.checkpoint import save_checkpoint
from learner.learner import Learner

ROOT = Path(evaluate.__file__).parent
SPEC = environment_spec(actions="simple")


class NotebookNetwork(nn.Module):
    """Layers, sizes and parameter names as in the notebook; its input is float frames in 0 … 1."""

    def __init__(self, frames: int = 4, actions: int = 7) -> None:
        super().__init__()
        relu = nn.ReLU
        shapes = ((frames, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))
        self.conv = nn.Sequential(*(layer for shape in shapes for layer in (nn.Conv2d(*shape), relu())))
        self.fc = nn.Sequential(nn.Linear(64 * 7 * 7, 512), relu(), nn.Linear(512, actions))

    def forward(self, states: Tensor) -> Tensor:
        values: Tensor = self.fc(self.conv(states).flatten(1))
        return values


def notebook_network(seed: int) -> NotebookNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return NotebookNetwork().eval()


def random_states(count: int = 16) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 256, (count, 4, 84, 84), np.uint8)


def notebook_values(network: NotebookNetwork, states: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Q-values as the notebook computes them: float32 frames, divided by 255 in the environment."""
    with torch.inference_mode():
        values: Tensor = network(torch.from_numpy(states.astype(np.float32) / 255.0))
    return values


def test_the_notebooks_file_has_the_same_q_values_here(tmp_path: Path) -> None:
    network = notebook_network(seed=5)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    policy = load_policy(tmp_path / "net.pt")
    assert policy.spec == SPEC
    states = random_states()
    np.testing.assert_allclose(policy.q_values(states), notebook_values(network, states).numpy(), atol=1e-5)


def test_the_notebooks_file_evaluates_as_at_the_notebooks_end(tmp_path: Path) -> None:
    torch.save(notebook_network(seed=5).state_dict(), tmp_path / "net.pt")
    options = "--stages 1-3 --epsilon 0.05 --episodes 2 --max-steps 12 --json result.json --video episode.gif"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "evaluate.py"), "net.pt", *options.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["protocol"]["actions"], result["protocol"]["epsilon"]) == ("simple", 0.05)
    assert list(result["stages"]) == ["1-3"]
    assert len(result["stages"]["1-3"]["per_episode"]) == 2

    with Image.open(tmp_path / "episode.gif") as image:
        shown_ms = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            shown_ms.append(image.info["duration"])
    # A screen that did not change is shown for twice as long, instead of twice.
    assert all(duration % 100 == 0 for duration in shown_ms)
    assert min(shown_ms) == 100
    assert sum(shown_ms) == 100 * (1 + 12)


@pytest.mark.parametrize("kind", ["best.pt", "checkpoint"])
def test_our_policy_file_loads_into_the_notebooks_class(kind: str, tmp_path: Path) -> None:
    if kind == "checkpoint":
        learner = Learner(
            SPEC,
            double=True,
            dueling=False,
            learning_rate=2.5e-4,
            adam_epsilon=1e-8,
            huber_delta=1.0,
            max_grad_norm=None,
            target_update_period=5_000,
            device="cpu",
            precision="float32",
            seed=11,
        )
        path = save_checkpoint(tmp_path, learner.state_dict(), spec=SPEC, metadata={}, state={}) / "policy.pt"
    else:
        path = tmp_path / "best.pt"
        save_policy(path, build_network(SPEC, dueling=False, seed=11), SPEC, {})
    network = NotebookNetwork()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    states = random_states()
    ours = build_network(SPEC, dueling=False, seed=11)
    with torch.inference_mode():
        expected = ours(torch.from_numpy(states)).numpy()
    values = notebook_values(network.eval(), states).numpy()
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert (values.argmax(axis=1) == expected.argmax(axis=1)).all()
