"""Whatever stands in a checkpoint's files under right checksums is refused in one line, or can be gone on from."""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.environment import environment_spec
from common.config import ActorsConfig, Config, EnvConfig, LearnerConfig, ReplayConfig
from common.errors import UserError
from driver.actor_states import read_actor_states
from driver.checkpoints import check_fits, read_start
from driver.counters import Counters
from driver.run_directory import RunDirectory
from driver.run_settings import settings_writer
from driver.serial import SerialRun
from learner.checkpoint import save_checkpoint, torch_bytes
from learner.factory import build_learner
from learner.manifest import MANIFEST, write_manifest
from replay.client import merge
from replay.shard import validate_chunk
from replay.snapshot import Tables, read_snapshot, write_snapshot
from tests.checkpoints import make_run
from tests.random_batches import random_batch

# NumPy and PyTorch warn of odd numbers that they take all the same, which is no error of a run.
pytestmark = pytest.mark.filterwarnings("ignore")

SPEC = environment_spec(name="gridworld")
CONFIG = Config(
    env=EnvConfig(name="gridworld"),
    actors=ActorsConfig(envs_per_actor=2, chunk_length=16),
    replay=ReplayConfig(capacity=400, min_size=100),
    learner=LearnerConfig(batch_size=16),
)
TENSORS = ("policy.pt", "online.pt", "target.pt", "optimizer.pt", "actors.pt")
JSON = ("state.json", "policy.json")
REPLAY = "replay-0.bin"


class Scene(NamedTuple):
    """A run with one checkpoint, and those who go on from it."""

    run: RunDirectory
    checkpoint: Path
    serial: SerialRun


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    run = make_run(tmp_path_factory.mktemp("fuzz") / "run", CONFIG)
    serial = SerialRun(CONFIG)
    serial.run(300)
    actors = torch_bytes({0: serial._actor.state_dict(whole=False)})
    path = save_checkpoint(
        run.checkpoints,
        serial.learner.state_dict(),
        spec=SPEC,
        metadata={"env_steps": 5},
        state={"counters": Counters(updates=serial.learner.updates).to_json(), "best": [0.5, 40.0, 1.5]},
        extra={
            "actors.pt": lambda file: _write(file, actors),
            REPLAY: lambda file: write_snapshot(serial.shards[0].snapshot(), file),
        },
    )
    yield Scene(run, path, serial)
    serial.close()


def _write(file: Any, data: bytes) -> None:
    file.write(data)


def go_on(scene: Scene, path: Path) -> None:
    """What a resume does with a checkpoint, to the first update and step.

    Raises:
        UserError: it was refused.
    """
    begin = read_start(scene.run, path)
    assert begin.data is not None
    check_fits(begin.data, CONFIG, SPEC)
    learner = build_learner(spec=SPEC, agent=CONFIG.agent, learner=CONFIG.learner, seed=0, device="cpu")
    learner.load_state_dict(begin.data.learner)
    try:
        learner.update(random_batch(SPEC, seed=0))
    except RuntimeError as error:
        if "not finite" not in str(error):  # which weights give that are too large to compute with
            raise
    for state in read_actor_states(begin.data.extra).values():
        play_on(scene, state, begin.counters)
    with contextlib.suppress(ValueError), begin.data.extra[REPLAY].open("rb") as file:  # the replay fills anew then
        scene.serial.shards[0].restore(read_snapshot(file))
    draw(scene)


def play_on(scene: Scene, state: dict[str, Any], counters: Counters) -> None:
    """What an actor does with its state and the version that the learner counts on from, until it sends chunks."""
    actor, chunks = scene.serial._actor, scene.serial._queue.chunks
    try:
        actor.load_state_dict(state)
    except ValueError:
        return  # which counts as its death: another one begins new episodes
    actor.weight_version = counters.weight_version
    chunks.clear()
    for _ in range(3 * CONFIG.actors.chunk_length):
        actor.step()
    assert chunks
    for chunk in chunks:
        validate_chunk(chunk, SPEC)


def draw(scene: Scene) -> None:
    """What the learner is given of the replay."""
    (shard,) = scene.serial.shards
    assert shard.check_valid() == (True, "")
    sample = shard.sample(CONFIG.learner.batch_size)
    if sample is None:
        assert shard.can_insert(CONFIG.actors.chunk_length)
        return
    batch = merge([(0, sample)], shard.size, CONFIG.replay.importance_exponent)
    assert ((batch.weight > 0) & (batch.weight <= 1)).all()
    learner = build_learner(spec=SPEC, agent=CONFIG.agent, learner=CONFIG.learner, seed=0, device="cpu")
    shard.update_priorities(batch.ids, np.abs(learner.update(batch).td_error))
    assert shard.check_valid() == (True, "")


@contextlib.contextmanager
def changed(checkpoint: Path, name: str, change: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of which one file has other contents, and the manifest their checksum."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / checkpoint.name
        shutil.copytree(checkpoint, copy)
        change(copy / name)
        (copy / MANIFEST).unlink()
        write_manifest(copy, int(checkpoint.name.removeprefix("step-")))
        yield copy


def is_refused_or_sound(scene: Scene, name: str, change: Callable[[Path], None]) -> None:
    reason = ""
    with changed(scene.checkpoint, name, change) as copy:
        try:
            go_on(scene, copy)
        except UserError as error:
            reason = str(error)
    assert "\n" not in reason


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([10**400, -(10**400), 2**63, 2**31, 1e308, "step"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ODD_TENSORS = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.full((3,), torch.nan),
        torch.full((2, 3), -1.0),
        torch.ones(1).expand(1000),
        torch.full((3,), 1e300, dtype=torch.float64),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.bool),
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
    ]
)


def other(data: st.DataObject, tree: Any, values: st.SearchStrategy[Any]) -> Any:
    """A tree of containers of which one place has another value, or is missing."""
    if isinstance(tree, torch.Tensor) and tree.numel() and data.draw(st.booleans()):
        return other_numbers(data, tree)
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list | tuple) else []
    if not places or data.draw(st.integers(0, 5)) == 0:
        return data.draw(values)
    place = data.draw(st.sampled_from(places))
    items = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    if data.draw(st.integers(0, 5)) == 0:
        del items[place]
    else:
        items[place] = other(data, items[place], values)
    return items if isinstance(tree, dict) else type(tree)(items.values())


def other_numbers(data: st.DataObject, tensor: torch.Tensor) -> torch.Tensor:
    """Another shape, kind or element."""
    kind = data.draw(st.sampled_from(["transposed", "shortened", "double", "element"]))
    if kind == "transposed":
        return tensor.t() if tensor.dim() == 2 else tensor.flatten()[None]
    if kind == "shortened":
        return tensor.flatten()[1:]
    if kind == "double":
        return tensor.double()
    flat = tensor.flatten().double()
    flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(st.floats() | st.sampled_from([-1.0, 3e38]))
    return flat.reshape(tensor.shape)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_in_any_file_are_refused_or_sound(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + 1] = data.draw(st.binary(max_size=3))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)

    is_refused_or_sound(scene, data.draw(st.sampled_from([*JSON, *TENSORS, REPLAY])), change)


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_any_value_at_any_place_of_a_json_file_is_refused_or_sound(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        path.write_text(json.dumps(other(data, json.loads(path.read_text()), VALUES)))

    is_refused_or_sound(scene, data.draw(st.sampled_from(JSON)), change)


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_any_value_at_any_place_of_a_file_of_tensors_is_refused_or_sound(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        path.write_bytes(torch_bytes(other(data, torch.load(path, weights_only=True), VALUES | ODD_TENSORS)))

    is_refused_or_sound(scene, data.draw(st.sampled_from(TENSORS)), change)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_value_in_the_header_of_the_replay_is_refused_or_sound(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        snapshot = read_snapshot(io.BytesIO(path.read_bytes()))
        header = other(data, snapshot.header, VALUES)
        with path.open("wb") as file:
            write_snapshot(snapshot._replace(header=header), file)

    is_refused_or_sound(scene, REPLAY, change)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_number_in_the_tables_of_the_replay_is_refused_or_sound(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        snapshot = read_snapshot(io.BytesIO(path.read_bytes()))
        name = data.draw(st.sampled_from(Tables._fields))
        table = getattr(snapshot.tables, name).copy()
        start = data.draw(st.integers(0, len(table) - 1))
        value = data.draw(
            st.floats() | st.sampled_from([0.0, 1e-300, 1e30, 3e38, 1e308]) | st.integers(-(2**31), 2**31)
        )
        table[start : start + data.draw(st.sampled_from([1, 50]))] = np.float64(value).astype(table.dtype)
        with path.open("wb") as file:
            write_snapshot(snapshot._replace(tables=snapshot.tables._replace(**{name: table})), file)

    is_refused_or_sound(scene, REPLAY, change)


def with_weight_version(version: int) -> Callable[[Path], None]:
    """Changes the counters in `state.json`."""

    def change(path: Path) -> None:
        state = json.loads(path.read_text())
        state["counters"]["weight_version"] = version
        path.write_text(json.dumps(state))

    return change


@pytest.mark.parametrize("version", [2**30, 2**31, 2**62 - 1])
def test_a_weight_version_that_no_transition_can_have_is_refused(scene: Scene, version: int) -> None:
    with (
        changed(scene.checkpoint, "state.json", with_weight_version(version)) as copy,
        pytest.raises(UserError, match=f"weight_version is {version}"),
    ):
        go_on(scene, copy)


def test_the_last_weight_version_that_is_taken_can_be_gone_on_from(scene: Scene) -> None:
    with changed(scene.checkpoint, "state.json", with_weight_version(2**30 - 1)) as copy:
        go_on(scene, copy)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_bytes_in_the_copy_of_the_settings_are_refused_or_told(scene: Scene, data: st.DataObject) -> None:
    def change(path: Path) -> None:
        (write,) = settings_writer(scene.run).values()
        buffer = io.BytesIO()
        write(buffer)
        content = bytearray(buffer.getvalue())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + 1] = data.draw(st.binary(max_size=3))
        path.write_bytes(content)

    is_refused_or_sound(scene, "config.yaml", change)


@pytest.mark.parametrize("best", [[10**400, 1, 2], [0.5, 1], [0.5, 1, 2, 3], "123", {"0": 1}, [True, 1, 2], [-1, 1, 2]])
def test_a_best_score_that_is_none_is_refused(scene: Scene, best: Any) -> None:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"best": best}))

    with changed(scene.checkpoint, "state.json", change) as copy, pytest.raises(UserError, match="not of this version"):
        go_on(scene, copy)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step"])
def test_averages_of_other_shapes_never_reach_adam(scene: Scene, name: str) -> None:
    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state["state"][0][name] = torch.zeros(3)
        path.write_bytes(torch_bytes(state))

    with changed(scene.checkpoint, "optimizer.pt", change) as copy, pytest.raises(UserError, match="does not fit"):
        go_on(scene, copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amsgrad", torch.zeros(())),
        ("betas", (0.9, torch.tensor(0.999))),
        ("lr", torch.nan),
        ("eps", "1"),
        ("fused", 0),
    ],
)
def test_other_settings_of_adam_never_reach_it(scene: Scene, name: str, value: Any) -> None:
    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state["param_groups"][0][name] = value
        path.write_bytes(torch_bytes(state))

    with changed(scene.checkpoint, "optimizer.pt", change) as copy, pytest.raises(UserError, match="does not fit"):
        go_on(scene, copy)


def test_an_undamaged_checkpoint_is_gone_on_from(scene: Scene) -> None:
    go_on(scene, scene.checkpoint)
