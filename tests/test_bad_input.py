"""Both programs, a user's mistakes: one clear line, status 2, no traceback, and nothing written or lost."""

import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import pytest
import torch

import driver.train
import evaluate
import launch
from actors.environment import environment_spec
from common.config import AgentConfig, Config, EnvConfig, LearnerConfig
from common.networks import build_network
from common.policy import save_policy
from driver.copies import new_name, publish
from driver.counters import Counters
from driver.mirror import open_files
from driver.options import dump_config
from driver.run_directory import RunDirectory
from driver.run_settings import settings_writer
from driver.store import open_store
from learner.checkpoint import save_checkpoint
from learner.factory import build_learner
from tests.checkpoints import make_run, save_step
from tests.malicious import Malicious

SPEC = environment_spec(name="gridworld")
METADATA = {"preset": "default"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs run; a case that is accepted by mistake fails before any process starts."""

    def accepted(*arguments: Any) -> None:
        raise AssertionError("this was accepted")

    # What the program sets for its own Ray would reach the Ray of later tests.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver.train, "ray_session", accepted)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # whatever this machine has
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes by path, and the folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


Capture = pytest.CaptureFixture[str]


def refused(program: Callable[[list[str]], int], arguments: str, expected: str, folder: Path, capsys: Capture) -> None:
    before = contents(folder)
    name = "launch.py" if program is launch.main else "evaluate.py"
    try:
        status = program(arguments.split())
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert captured.err.startswith(f"{name}: error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err
    assert contents(folder) == before


OPTIONS = {
    "a value for a switch": ("--env.show-buttons true", "true"),
    "infinite": ("--learner.learning-rate inf", "--learner.learning-rate inf"),
    "negative": ("--learner.learning-rate -1", "--learner.learning-rate"),
    "fraction of a count": ("--actors.count 1.5", "--actors.count"),
    "word for auto": ("--actors.count many", "--actors.count"),
    "zero threads": ("--learner.threads 0", "--learner.threads 0"),
    "nothing prefetched": ("--learner.prefetch 0", "--learner.prefetch 0"),
    "no frame": ("--env.frame-skip 0", "--env.frame-skip 0"),
    "huge stack": ("--env.frame-stack 99", "--env.frame-stack 99"),
    "no step": ("--agent.n-step 0", "--agent.n-step 0"),
    "munchausen above one": ("--agent.munchausen 2", "--agent.munchausen 2"),
    "network": ("--agent.network resnet", "--agent.network"),
    "epsilon above one": ("--actors.epsilon 1.5", "--actors.epsilon 1.5"),
    "share above one": ("--actors.saved-starts 2", "--actors.saved-starts 2"),
    "average without end": ("--learner.average-decay 1", "--learner.average-decay 1"),
    "tree backup over uncut windows": ("--agent.no-watkins", "--agent.no-watkins"),
    "DQN's targets under Munchausen's": ("--agent.no-double", "--agent.munchausen 0"),
    "exploring targets without discount": ("--agent.target-epsilon 0.1 --agent.gamma 1", "--agent.gamma 1"),
    "sticky for ever": ("--env.sticky-actions 1", "--env.sticky-actions 1"),
    "evaluations of more episodes than they may have": ("--eval.episodes 100", "--eval.max-episodes 64 is less"),
    "evaluations that end before they begin": ("--eval.episodes 100 --eval.max-episodes 1", "--eval.max-episodes 1 is"),
    "no episodes": ("--eval.episodes 0", "--eval.episodes 0"),
    "mirror without a scheme": ("--checkpoint.uri binary", "no URI; write file:///PATH"),
    "mirror of an unknown scheme": ("--checkpoint.uri nothing://there/x", "nothing"),
    "mirror with a password": ("--checkpoint.uri sftp://a:b@host/x", "holds a password"),
    "mirror with a password in a chain": (
        "--checkpoint.uri simplecache::memory://a:secret@host/x",
        "put it where the storage's library looks instead",
    ),
    "mirror with a key": (
        "--checkpoint.uri memory://secret@host/x",
        "put it where the storage's library looks instead",
    ),
    "mirror of a run that does not fit": (
        "--checkpoint.uri file://{here}/absent --replay.capacity 100000000000 --ray.address local",
        "GiB",
    ),
    "mirror below a file": ("--checkpoint.uri file://{here}/binary/x", "cannot be written"),
    "mirror on no disk": ("--checkpoint.uri file://{here}/no-disk/x", "no-disk; mount it or make it"),
    "mirror of another run": ("--checkpoint.uri file://{here}/mirror", "holds another run's checkpoints"),
    "no checkpoint kept": ("--checkpoint.keep 0", "--checkpoint.keep 0"),
    "checkpoints all the time": ("--checkpoint.interval-s 0", "--checkpoint.interval-s 0"),
    "no time": ("--max-minutes 0", "--max-minutes 0"),
    "limit of nothing": ("--max-updates 0", "--max-updates 0"),
    "seed beyond 63 bits": ("--seed 9223372036854775808", "--seed"),
    "tiny object store": ("--ray.object-store-mb 1", "--ray.object-store-mb 1"),
    "object store beyond memory": ("--ray.object-store-mb 100000000", "half of the memory"),
    "impatience": ("--ray.hang-s 0.1", "--ray.hang-s 0.1"),
    "samples of nothing": ("--replay.samples-per-insert 0", "--replay.samples-per-insert 0"),
    "capacity beyond memory": ("--replay.capacity 100000000000", "GiB"),
    "batch beyond the replay": ("--learner.batch-size 1000000", "exceeds --replay.capacity 100000"),
    "batches beyond the replay": ("--learner.batch-size 1000000 --learner.prefetch 64", "exceeds --replay.capacity"),
    "batch beyond a replay of a size": ("--learner.batch-size 150000 --replay.capacity 100000", "lower the batch size"),
    "batch beyond the error buffer": ("--learner.batch-size 4096 --replay.error-buffer 600", "deadlock"),
    "more shards than room": ("--replay.shards 1000", "shards leaves"),
    "no such core": ("--env.core snes", "--env.core"),
    "saved states on nes-py": ("--env.core nes-py --actors.saved-starts 0.5", "saved"),
    "cuda where there is none": ("--learner.device cuda", "no GPU"),
    "ray's auto": ("--ray.address auto", "auto"),
    "no address": ("--ray.address nowhere", "nowhere"),
    "address of another program": ("--ray.address 127.0.0.1:{busy}", "no Ray answers"),
    "address where nothing answers": ("--ray.address 127.0.0.1:{port}", "no Ray answers"),
    "folder as settings": ("--config .", "cannot read"),
    "bytes as settings": ("--config binary", "YAML"),
    "run directory below a file": ("--run-dir binary/run", "binary"),
    "run directory with a run": ("--run-dir run", "add --resume"),
    "resume with other settings": ("--resume run --agent.gamma 0.5", "--agent.gamma (the run has 0.97)"),
    "resume with another stage": ("--resume run --env.stages 1-2", "--env.stages"),
    "resume with another preset": ("--resume run --preset notebook", "contradicts"),
    "resume of no mirror": ("--resume file://{here}/run", "there is no run; name what --checkpoint.uri was"),
    "resume of a damaged mirror": ("--resume file://{here}/mirror", "run.json is missing"),
    "resume of a mirror into a run": ("--resume file://{here}/mirror --run-dir run", "holds a run already"),
    "resume of a mirror from a checkpoint": (
        "--resume file://{here}/mirror --resume-from {complete}",
        "no checkpoint of",
    ),
    "resume of a complete run": ("--resume complete", "is complete"),
    "resume of damaged settings": ("--resume no-settings", "config.yaml"),
    "resume of damaged metadata": ("--resume no-metadata", "run.json is damaged"),
    "resume from no checkpoint": ("--resume-from run", "no checkpoint of a run"),
    "resume from a checkpoint that is not there": ("--resume-from run/checkpoints/step-1", "no checkpoint of a run"),
    "resume from another run's checkpoint": (
        "--resume run --resume-from {complete}",
        "is no checkpoint of --resume run",
    ),
    "resume from a damaged checkpoint": ("--resume-from {damaged}", "target.pt has"),
    "resume of damaged checkpoints": ("--resume damaged", "every checkpoint in"),
    "resume of another version's checkpoint": ("--resume old-counters", "not of this version"),
    "actors beyond memory": ("--actors.count 100000", "lower --actors.count"),
    "learning rate that is no number": ("--learner.learning-rate nan", "--learner.learning-rate nan"),
    "discount beyond floats": ("--agent.gamma 1e400", "--agent.gamma inf"),
    "digits of another script in a stage": ("--env.stages \uff11-1", "no such stage"),
    "address with a port beyond ports": ("--ray.address 127.0.0.1:99999", "no Ray answers"),
    "run directory with a long name": (f"--run-dir {'x' * 300}", "File name too long"),
    "run directory that is no UTF-8": ("--run-dir a\udcffb", "no UTF-8"),
    "settings without end": ("--config deep.yaml", "nested too deeply"),
    "settings that ask for help": ("--config help.yaml", "['--help'] is not a value"),
    "settings that smuggle an option in": ("--config smuggled.yaml", "is not a value"),
    "resume of emptied settings": ("--resume emptied", "is cut short"),
    "resume of settings cut short": ("--resume cut", "is cut short"),
    "resume of settings with a flipped bit": ("--resume flipped", "agent.gamma 0.17 instead of 0.97"),
    "resume of a checkpoint of another network": ("--resume other-network", "does not fit the run's settings"),
    "resume of a checkpoint of another environment": ("--resume other-environment", "is of another environment"),
    "resume of negative counters": ("--resume negative-counters", "env_steps is -5"),
    "resume of counters that are words": ("--resume word-counters", "counters are damaged"),
    "resume of a best score that is no number": ("--resume nan-score", "the best score is (nan"),
    "resume of a checkpoint with another one's name": ("--resume renamed", "every checkpoint in"),
    "resume of an empty checkpoint": ("--resume hollow", "every checkpoint in"),
}


GRID = Config(env=EnvConfig(name="gridworld"))


def odd_runs(folder: Path, learner: dict[str, Any]) -> None:
    """Runs of the gridworld whose files are whole, and yet not what they should be."""
    negative = Counters(env_steps=-5).to_json()
    words = dict.fromkeys(Counters().to_json(), "x")
    fine: dict[str, Any] = {"counters": Counters(updates=5).to_json(), "best": None}
    for name, config, state in (
        ("emptied", GRID, fine),
        ("cut", GRID, fine),
        ("other-network", replace(GRID, agent=AgentConfig(quantiles=7)), fine),
        ("other-environment", Config(), fine),
        ("negative-counters", GRID, fine | {"counters": negative}),
        ("word-counters", GRID, fine | {"counters": words}),
        ("nan-score", GRID, fine | {"best": [float("nan"), 1.0, 2.0]}),
        ("renamed", GRID, fine),
        ("flipped", GRID, fine),
        ("hollow", GRID, fine),
    ):
        run = RunDirectory(folder / name)
        run.create(dump_config(config), METADATA)
        save_checkpoint(
            run.checkpoints, learner | {"updates": 5}, spec=SPEC, metadata={}, state=state, extra=settings_writer(run)
        )
    flipped = folder / "flipped/config.yaml"
    flipped.write_text(flipped.read_text().replace("gamma: 0.97", "gamma: 0.17"))
    (folder / "emptied/config.yaml").write_text("")
    settings = folder / "cut/config.yaml"
    settings.write_text(settings.read_text().partition("learner:")[0])
    checkpoint = folder / "renamed/checkpoints/step-000000000005"
    checkpoint.rename(checkpoint.with_name("step-999999999999"))
    for path in (folder / "hollow/checkpoints/step-000000000005").iterdir():
        path.unlink()


@pytest.fixture
def runs(folder: Path) -> None:
    """Runs that a resume may be asked for, each with something wrong."""
    (folder / "binary").write_bytes(bytes(range(256)))
    learner = build_learner(spec=SPEC, agent=AgentConfig(), learner=LearnerConfig(), seed=0, device="cpu").state_dict()
    for name, max_updates in (("run", None), ("complete", 5), ("no-settings", None), ("no-metadata", None)):
        RunDirectory(folder / name).create(dump_config(Config(max_updates=max_updates)), METADATA)
    for name, counters in (
        ("complete", Counters(updates=5).to_json()),
        ("damaged", Counters().to_json()),
        ("old-counters", {"env_steps": 1}),
    ):
        run = RunDirectory(folder / name)
        if not run.holds_run:
            run.create(dump_config(Config()), METADATA)
        state = {"counters": counters, "best": None}
        save_checkpoint(run.checkpoints, learner | {"updates": 5}, spec=SPEC, metadata={}, state=state)
    odd_runs(folder, learner)
    (folder / "deep.yaml").write_text("a: " + "[" * 2_000)
    (folder / "help.yaml").write_text("env: {stages: ['--help']}")
    (folder / "smuggled.yaml").write_text("env: {stages: ['1-1', '--seed', '5']}")
    (folder / "no-settings/config.yaml").write_text("env: [")
    copy = folder / "mirror/step-000000000005-20261124T145020Z-3f9a"
    copy.mkdir(parents=True)
    (copy / "manifest.json").write_text('{"files": {"run.json": {"bytes": 1, "sha256": ""}}}')
    (folder / "no-metadata/run.json").write_text("{")
    next((folder / "damaged/checkpoints").glob("*/target.pt")).write_bytes(b"x")


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.usefixtures("runs")
def test_launch_refuses(case: str, folder: Path, capsys: Capture) -> None:
    arguments, expected = OPTIONS[case]
    checkpoints = {name: next((folder / name / "checkpoints").iterdir()) for name in ("complete", "damaged")}
    with socket.socket() as free, socket.create_server(("127.0.0.1", 0)) as busy:
        free.bind(("127.0.0.1", 0))
        ports = {"port": free.getsockname()[1], "busy": busy.getsockname()[1]}
        refused(launch.main, arguments.format(here=folder, **ports, **checkpoints), expected, folder, capsys)


BEYOND_SMALL_MACHINES = {
    "environments": (
        "--actors.count 2 --actors.envs-per-actor 1024",
        "lower --actors.count or --actors.envs-per-actor",
    ),
    "actors": ("--actors.count 64", "lower --actors.count or --actors.envs-per-actor"),
    "batch": ("--actors.count 1 --learner.batch-size 90000", "lower --learner.batch-size or --learner.prefetch"),
    "batches on their way": ("--actors.count 1 --learner.batch-size 4096 --learner.prefetch 64", "--learner.prefetch"),
    "shards": ("--actors.count 1 --replay.shards 100", "lower --replay.shards"),
}


@pytest.mark.parametrize("case", BEYOND_SMALL_MACHINES)
def test_launch_refuses_what_a_small_machine_cannot_hold(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(driver.train, "available_memory", lambda: 4 << 30)
    arguments, expected = BEYOND_SMALL_MACHINES[case]
    refused(launch.main, arguments, expected, folder, capsys)


def save_mario(path: Path) -> None:
    spec = environment_spec()
    save_policy(path, build_network(spec, False, 0), spec, {"env": {"stages": ["1-1"]}})


def cut_short(path: Path) -> None:
    save_mario(path)
    path.write_bytes(path.read_bytes()[:-900])


def with_sidecar(text: str, path: Path) -> None:
    save_mario(path)
    path.with_suffix(".json").write_text(text)


POLICIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "there is no"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or is no plain state_dict"),
    "text": (lambda path: path.write_text("weights"), "is damaged or is no plain state_dict"),
    "malicious pickle": (
        lambda path: path.write_bytes(pickle.dumps(Malicious(path.parent / "made-by-a-pickle"))),
        "is damaged or is no plain state_dict",
    ),
    "malicious tensors": (
        lambda path: torch.save({"conv.0.weight": Malicious(path.parent / "made-by-a-pickle")}, path),
        "is damaged or is no plain state_dict",
    ),
    "no dictionary": (lambda path: torch.save([torch.zeros(3)], path), "is no state_dict of weights"),
    "not a number": (lambda path: torch.save({"fc.0.weight": torch.full((2,), torch.nan)}, path), "holds NaN"),
    "another network": (lambda path: torch.save({"linear.weight": torch.zeros(3, 3)}, path), "no known network"),
    "wrong shapes": (
        lambda path: torch.save({"conv.0.weight": torch.zeros(1, 2, 3, 4), "fc.2.bias": torch.zeros(5)}, path),
        "p.pt",
    ),
    "cut short": (cut_short, "is damaged"),
    "sidecar of another": (partial(with_sidecar, '{"network": {}}'), "is no sidecar"),
    "sidecar cut short": (partial(with_sidecar, '{"netw'), "is no sidecar"),
}


@pytest.mark.parametrize("case", POLICIES)
def test_evaluate_refuses_files_that_are_no_policy(case: str, folder: Path, capsys: Capture) -> None:
    make, expected = POLICIES[case]
    make(folder / "p.pt")
    refused(evaluate.main, "p.pt", expected, folder, capsys)
    assert not (folder / "made-by-a-pickle").exists()


PLACES = {
    "unknown suffix": ("--video a.webm", "neither .mp4 nor .gif"),
    "video nowhere": ("--video absent/a.mp4", "absent"),
    "video is a folder": ("--video a-folder.mp4", "a-folder.mp4"),
    "json nowhere": ("--json absent/r.json", "does not exist"),
    "json is a folder": ("--json a-folder.mp4", "a-folder.mp4"),
    "video without a suffix": ("--video a", "neither .mp4 nor .gif"),
    "one file for both": ("--json a.gif --video a.gif", "give two files"),
}


@pytest.mark.parametrize("case", PLACES)
def test_evaluate_refuses_places_that_cannot_be_written(case: str, folder: Path, capsys: Capture) -> None:
    save_mario(folder / "p.pt")
    (folder / "a-folder.mp4").mkdir()
    arguments, expected = PLACES[case]
    refused(evaluate.main, f"p.pt {arguments}", expected, folder, capsys)


@pytest.mark.parametrize("damage", ["policy.pt", "policy.json", "target.pt", "state.json", "manifest.json"])
def test_evaluate_refuses_a_damaged_checkpoint_that_is_named(damage: str, folder: Path, capsys: Capture) -> None:
    learner = build_learner(spec=SPEC, agent=AgentConfig(), learner=LearnerConfig(), seed=0, device="cpu").state_dict()
    metadata = {"env": {"name": "gridworld"}}
    path = save_checkpoint(folder, learner, spec=SPEC, metadata=metadata, state={})
    data = bytearray((path / damage).read_bytes())
    data[len(data) // 2] ^= 1
    (path / damage).write_bytes(data)
    refused(evaluate.main, path.name, "is damaged", folder, capsys)


def test_ctrl_c_while_ray_starts_leaves_nothing_of_a_run_that_was_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run = make_run(folder / "run", Config(env=EnvConfig(name="gridworld", show_buttons=False)))
    with open_files(run, save_step(run, 5), {}) as files:
        publish(open_store("--resume", f"file://{folder}/whole"), new_name(5), files)
    before = contents(folder)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver.train, "ray_session", interrupted)
    status = launch.main(f"--resume file://{folder}/whole --run-dir here --ray.address local".split())
    assert (status, capsys.readouterr().err) == (130, "launch.py: interrupted before the run began\n")
    assert contents(folder) == before


def test_there_are_at_least_sixty_cases() -> None:
    assert len(OPTIONS) + len(BEYOND_SMALL_MACHINES) + len(POLICIES) + len(PLACES) + 5 >= 60
