"""`evaluate.py` from the outside."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import driver.measuring
import evaluate
from actors.cores import resolve_core
from actors.environment import environment_spec
from actors.evaluation import evaluation_max_steps
from actors.remote import RemoteEvaluator
from common.config import AgentConfig, EnvConfig, EvalConfig, LearnerConfig
from common.errors import UserError
from common.networks import build_network
from common.policy import load_policy, save_policy
from driver.measuring import find_policy
from driver.protocol import resolve_protocol
from driver.report import weights_sha256
from learner.checkpoint import save_checkpoint
from learner.factory import build_learner

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


def save_steps(run: Path, *steps: int) -> list[Path]:
    """Checkpoints of a gridworld run after so many updates; returns their policies."""
    spec = environment_spec(name="gridworld")
    learner = build_learner(spec=spec, agent=AgentConfig(), learner=LearnerConfig(), seed=0, device="cpu")
    states = [learner.state_dict() | {"updates": step} for step in steps]
    metadata = {"env": {"name": "gridworld"}}
    root = run / "checkpoints"
    return [save_checkpoint(root, state, spec=spec, metadata=metadata, state={}) / "policy.pt" for state in states]


def damage(path: Path) -> None:
    """Changes one byte, not the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(ROOT / "evaluate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_more_episodes_are_played_than_an_evaluation_beside_training_ever_has(
    grid_policy: Path, tmp_path: Path
) -> None:
    out, episodes = tmp_path / "out.json", EvalConfig().max_episodes + 1
    assert evaluate.main([str(grid_policy), "--episodes", str(episodes), "--max-steps", "2", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["protocol"]["episodes"] == episodes


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
    assert result["weights_sha256"] == weights_sha256(load_policy(policy).network)
    assert result["protocol"] | {"randomness": ""} == {
        "env": "mario", "episodes": 3, "epsilon": 0.3, "seed": 7, "max_steps": 15, "randomness": "", "noop_max": 30,
        "sticky_actions": 0.0, "core": resolve_core("auto"), "actions": "simple", "frame_skip": 3, "frame_stack": 4,
        "show_buttons": False,
    }  # fmt: skip
    assert list(result["stages"]) == ["1-1", "1-3"]
    stage = result["stages"]["1-1"]
    assert {"episodes", "clears", "clear_rate", "clear_rate_ci95", "mean_return", "mean_x", "mean_length"} < set(stage)
    assert len(stage["per_episode"]) == 3
    assert stage["mean_x"] == sum(episode["x"] for episode in stage["per_episode"]) / 3
    assert stage["mean_length"] == 15


@pytest.mark.parametrize(("env", "shown"), [({}, False), ({"frame_skip": 4}, False), ({"show_buttons": True}, True)])
def test_a_policy_sees_buttons_only_if_it_was_trained_to(tmp_path: Path, env: dict[str, Any], shown: bool) -> None:
    policy = load_policy(save_mario(tmp_path / "p.pt", **env))
    protocol = resolve_protocol(policy, {}, epsilon=0.0, episodes=1, seed=0)
    assert protocol.env.show_buttons == shown
    game = protocol.make_environment()
    state = game.reset()[0]
    assert (not state[-1][:4, :24].any()) == shown  # black squares, or the sky
    game.close()


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


@pytest.mark.parametrize(("option", "name"), [("--json", "r.json"), ("--video", "v.mp4"), ("--video", "v.gif")])
def test_a_result_that_cannot_be_written_leaves_the_one_before_as_it_was(
    grid_policy: Path, tmp_path: Path, option: str, name: str
) -> None:
    (tmp_path / name).write_text("an earlier result")
    before = sorted(tmp_path.iterdir())
    program = [sys.executable, str(ROOT / "evaluate.py"), str(grid_policy), "--episodes", "4", "--epsilon", "1"]
    full = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh"]  # no file can grow, as on a full disk
    done = subprocess.run(
        [*full, *program, option, str(tmp_path / name)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"evaluate.py: error: {tmp_path / name} could not be written: File too large; ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / name).read_text() == "an earlier result"


def test_a_reader_that_has_seen_enough_does_not_keep_the_results_from_being_written(
    grid_policy: Path, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, str(ROOT / "evaluate.py"), str(grid_policy), "--episodes", "2", "--epsilon", "1"]
    done = subprocess.run(
        [*program, "--json", str(tmp_path / "r.json")], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.json").read_text())["stages"]


def test_results_are_written_before_a_table_that_cannot_be(
    grid_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_no_table(text: str) -> None:
        if "clear" in text:
            raise UserError("standard output cannot be written")

    monkeypatch.setattr(driver.measuring, "say", say_no_table)
    out = tmp_path / "r.json"
    assert evaluate.main([str(grid_policy), "--episodes", "2", "--epsilon", "1", "--json", str(out)]) == 2
    assert json.loads(out.read_text())["stages"]


def test_a_standard_output_that_takes_nothing_is_an_error_in_one_line(grid_policy: Path) -> None:
    program = [sys.executable, str(ROOT / "evaluate.py"), str(grid_policy), "--episodes", "2", "--epsilon", "1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "evaluate.py: error: standard output cannot be written: No space left on device\n"


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


def test_a_run_means_its_best_policy_else_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither"):
        find_policy(tmp_path)
    _, newest, unfinished = save_steps(tmp_path, 100, 200, 300)
    (unfinished.parent / "manifest.json").unlink()
    assert find_policy(tmp_path) == (newest, "the run's newest whole checkpoint; it has no best.pt yet")
    assert find_policy(newest.parent)[0] == newest
    best = save_mario(tmp_path / "best.pt")
    assert find_policy(tmp_path) == (best, "the run's best by its own evaluations")
    assert find_policy(newest) == (newest, "as given")


def test_a_checkpoint_that_is_being_replaced_comes_after_its_successor(tmp_path: Path) -> None:
    (policy,) = save_steps(tmp_path, 100)
    shutil.copytree(policy.parent, policy.parent.with_name(f"{policy.parent.name}.replaced"))
    assert find_policy(tmp_path)[0] == policy


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(tmp_path: Path) -> None:
    older, newest = save_steps(tmp_path, 100, 200)
    damage(newest)
    done = run(tmp_path, "--episodes", "1")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("evaluate.py: warning: passing over a damaged checkpoint")
    assert f"{newest.parent} is damaged: policy.pt has a wrong checksum" in done.stderr
    assert done.stdout.startswith(f"policy: {older} (the run's newest whole checkpoint")


@pytest.mark.parametrize("broken", ["policy.pt", "target.pt"])
def test_a_damaged_checkpoint_that_was_named_is_refused(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy,) = save_steps(tmp_path, 100)
    damage(policy.parent / broken)
    assert evaluate.main([str(policy.parent), "--episodes", "1"]) == 2
    assert f"{broken} has a wrong checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "max_steps"),
    [
        (EnvConfig(), 2_000),
        (EnvConfig(stages=("1-1", "8-4"), max_steps=50), 2_000),
        (EnvConfig(stages=("game",)), None),
        (EnvConfig(name="gridworld"), 100),
    ],
    ids=["stage", "stages", "game", "gridworld"],
)
def test_a_runs_evaluator_and_the_program_cut_episodes_at_the_same_step(
    env: EnvConfig, max_steps: int | None, tmp_path: Path
) -> None:
    spec = environment_spec(name=env.name)
    save_policy(tmp_path / "p.pt", build_network(spec, False, 0), spec, {"env": asdict(env)})
    policy = load_policy(tmp_path / "p.pt")
    program = resolve_protocol(policy, {}, epsilon=0.0, episodes=1, seed=0)
    in_run = RemoteEvaluator(env=env, agent=AgentConfig(), evaluation=EvalConfig(episodes=1), seed=0)
    assert [program.make_environment()._max_steps, in_run._envs[0]._max_steps] == [max_steps, max_steps]
    assert program.as_json()["max_steps"] == max_steps


@pytest.mark.parametrize("name", ["mario", "gridworld"])
def test_a_step_limit_that_was_given_stands(name: str) -> None:
    assert evaluation_max_steps(name, ("game",), 7) == 7


def test_the_grids_protocol_has_null_for_what_does_not_apply(grid_policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert evaluate.main([str(grid_policy), "--episodes", "1", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["protocol"] | {"randomness": ""} == {
        "env": "gridworld", "episodes": 1, "epsilon": 0.01, "seed": 0, "max_steps": 100, "randomness": "",
        "noop_max": None, "sticky_actions": None, "core": None, "actions": None, "frame_skip": None, "frame_stack": 1,
        "show_buttons": None,
    }  # fmt: skip


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
        (["--stages", "9-9"], "error: --stages 9-9: no such stage"),
        (["--video", "a.avi"], "neither .mp4 nor .gif"),
        (["--json", "absent/r.json"], "does not exist"),
        (["--actions", "simple"], "drop the option"),
        (["--core", "snes9x"], "snes9x"),
        (["--sticky-actions", "1"], "error: --sticky-actions 1 is out of range: it must lie between 0 and 0.99"),
        (["--epsilon", "2"], "error: --epsilon 2 is out of range"),
        (["--epsilon", "nan"], "error: --epsilon nan is out of range"),
        (["--episodes", "0"], "error: --episodes 0 is out of range"),
        (["--seed", "-1"], "error: --seed -1 is out of range"),
        (["--noop-max", "-1"], "error: --noop-max -1 is out of range"),
        (["--max-steps", "0"], "error: --max-steps 0 is out of range"),
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


@pytest.mark.parametrize(
    "env",
    [
        {"frame_skip": "four"},
        {"frame_skip": 4.5},
        {"sticky_actions": 1},
        {"show_buttons": "no"},
        {"max_steps": True},
        {"stages": ["9-9"]},
    ],
)
def test_a_damaged_sidecar_is_one_line(env: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = save_mario(tmp_path / "p.pt", **{"stages": ["1-1"]} | env)
    assert evaluate.main([str(policy)]) == 2
    assert "damaged env" in capsys.readouterr().err


def test_the_grid_has_no_stages(grid_policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(grid_policy), "--stages", "1-1"]) == 2
    assert "drop --stages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "kind"), [("--episodes", "whole number"), ("--noop-max", "whole number"), ("--epsilon", "number")]
)
def test_what_is_no_number_is_refused_in_one_line(option: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["x", option, "abc"])
    assert capsys.readouterr().err == f"evaluate.py: error: argument {option}: 'abc' is no {kind} (see --help)\n"


def test_ctrl_c_while_pytorch_is_imported_is_one_line(tmp_path: Path) -> None:
    # PyTorch's and NumPy's own code may turn the exception into another one.
    press = "try: __import__('signal').raise_signal(2)\nexcept KeyboardInterrupt: raise ImportError"
    (tmp_path / "torch.py").write_text(press, encoding="utf-8")
    done = run("x", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "evaluate.py: interrupted; no result was written\n"


def test_the_program_loads_no_ray() -> None:
    code = "import sys, driver.measuring; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
