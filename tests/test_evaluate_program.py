"""`evaluate.py` from the outside."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import evaluate
from actors.environment import environment_spec
from common.errors import UserError
from common.networks import build_network
from common.policy import save_policy

ROOT = Path(evaluate.__file__).parent


@pytest.fixture
def grid_policy(tmp_path: Path) -> Path:
    spec = environment_spec(name="gridworld")
    path = tmp_path / "grid.pt"
    save_policy(path, build_network(spec, False, 0), spec, {"env": {"name": "gridworld"}, "env_steps": 5})
    return path


def save_mario(path: Path, **env: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = environment_spec(actions=env.get("actions", "right_only"))
    save_policy(path, build_network(spec, False, 0), spec, {"env": env} if env else {})
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(ROOT / "evaluate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_same_command_gives_the_same_json_and_prints_the_table_alone(tmp_path: Path) -> None:
    policy = save_mario(tmp_path / "p.pt", actions="simple", stages=["1-2"], frame_skip=3)
    options = ["--stages", "1-1", "1-3", "--episodes", "3", "--epsilon", "0.3", "--seed", "7", "--max-steps", "15"]
    outputs = []
    for name in ("a.json", "b.json"):
        done = run(policy, *options, "--json", tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append((done.stdout, (tmp_path / name).read_bytes()))
    assert outputs[0] == outputs[1]
    lines = outputs[0][0].splitlines()
    assert lines[0] == f"policy: {policy} (as given)"
    assert lines[1].startswith("randomness: a random action with probability 0.3; 0 to 30 raw frames")
    assert [line.split()[0] for line in lines[2:]] == ["stage", "1-1", "1-3"]
    result = json.loads(outputs[0][1])
    assert result["checkpoint"] == str(policy)
    assert result["protocol"] | {"randomness": ""} == {
        "env": "mario", "episodes": 3, "epsilon": 0.3, "seed": 7, "max_steps": 15, "randomness": "", "noop_max": 30,
        "sticky_actions": 0.0, "core": "nes-py", "actions": "simple", "frame_skip": 3, "frame_stack": 4,
    }  # fmt: skip
    assert list(result["stages"]) == ["1-1", "1-3"]
    stage = result["stages"]["1-1"]
    assert {"episodes", "clears", "clear_rate", "clear_rate_ci95", "mean_return", "mean_x", "mean_length"} < set(stage)
    assert len(stage["per_episode"]) == 3
    assert stage["mean_x"] == sum(episode["x"] for episode in stage["per_episode"]) / 3
    assert stage["mean_length"] == 15


def test_another_seed_gives_other_episodes(grid_policy: Path, tmp_path: Path) -> None:
    results = []
    for seed in ("1", "2"):
        assert evaluate.main([str(grid_policy), "--seed", seed, "--epsilon", "1", "--json", str(tmp_path / "r")]) == 0
        results.append(json.loads((tmp_path / "r").read_text())["stages"])
    assert results[0] != results[1]


@pytest.mark.parametrize("name", ["v.mp4", "v.gif"])
def test_the_video_is_of_the_best_episode(
    grid_policy: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(grid_policy), "--episodes", "4", "--epsilon", "1", "--video", str(tmp_path / name)]) == 0
    assert (tmp_path / name).stat().st_size > 500
    assert "(grid, episode " in capsys.readouterr().out


def test_settings_come_from_training_unless_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = save_mario(tmp_path / "p.pt", stages=["2-1"], sticky_actions=0.25, frame_skip=2, noop_max=7, max_steps=9)
    out = tmp_path / "r.json"
    common = [str(policy), "--episodes", "1", "--max-steps", "3", "--json", str(out)]
    assert evaluate.main(common) == 0
    result = json.loads(out.read_text())
    assert list(result["stages"]) == ["2-1"]
    protocol = result["protocol"]
    assert (protocol["frame_skip"], protocol["sticky_actions"], protocol["noop_max"]) == (2, 0.25, 30)
    assert evaluate.main([*common, "--noop-max", "0", "--sticky-actions", "0", "--epsilon", "0"]) == 0
    assert json.loads(out.read_text())["protocol"]["randomness"].startswith("none: the emulator is deterministic")
    assert "prove nothing" in capsys.readouterr().out


def test_a_run_means_its_best_policy_else_its_newest_complete_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither"):
        evaluate.find_policy(tmp_path)
    for step in ("step-000000000100", "step-000000000200", "step-000000000300"):
        save_mario(tmp_path / "checkpoints" / step / "policy.pt")
        if not step.endswith("300"):
            (tmp_path / "checkpoints" / step / "manifest.json").write_text("{}")
    newest = tmp_path / "checkpoints" / "step-000000000200" / "policy.pt"
    assert evaluate.find_policy(tmp_path) == (newest, "the run's newest checkpoint; it has no best.pt yet")
    assert evaluate.find_policy(newest.parent)[0] == newest
    best = save_mario(tmp_path / "best.pt")
    assert evaluate.find_policy(tmp_path) == (best, "the run's best by its own evaluations")
    assert evaluate.find_policy(newest) == (newest, "as given")


def test_a_bare_state_dict_is_understood_by_its_shapes(tmp_path: Path) -> None:
    network = build_network(environment_spec(actions="complex"), False, 0)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    out = tmp_path / "r.json"
    assert evaluate.main([str(tmp_path / "net.pt"), "--episodes", "1", "--max-steps", "2", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["protocol"]["actions"], list(result["stages"])) == ("complex", ["1-1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "9-9"], "9-9"),
        (["--video", "a.avi"], "neither .mp4 nor .gif"),
        (["--json", "absent/r.json"], "does not exist"),
        (["--actions", "simple"], "drop the option"),
        (["--core", "snes9x"], "snes9x"),
        (["--sticky-actions", "1"], "out of range"),
        (["--watch"], "there is no display to watch on; write a video instead with --video FILE.mp4"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    policy = save_mario(tmp_path / "p.pt", stages=["1-1"])
    assert evaluate.main([str(policy), "--episodes", "1", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("evaluate.py: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_missing_policy_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.startswith("evaluate.py: error: there is no ")


def test_a_damaged_sidecar_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = save_mario(tmp_path / "p.pt", frame_skip="four", stages=["1-1"])
    assert evaluate.main([str(policy)]) == 2
    assert "damaged env" in capsys.readouterr().err


def test_the_grid_has_no_stages(grid_policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(grid_policy), "--stages", "1-1"]) == 2
    assert "drop --stages" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--epsilon", "2"], ["--episodes", "0"], ["--seed", "-1"], ["--noop-max", "x"]])
def test_numbers_out_of_range_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["x", *options])
    assert options[0] in capsys.readouterr().err
