"""`launch.py` on a cluster: who goes where, and nodes that run other code. Several Ray nodes on this machine."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from driver.node_code import PACKAGES
from tests.launching import GRID, ROOT, finish, progress, start, wait_for
from tests.ray_cluster import join, ray_cluster, roles_on, with_code

pytestmark = pytest.mark.slow
BESIDE_LEARNER = {"RemoteLearner": 1, "RemoteReplayShard": 2, "RemoteEvaluator": 1}


def alive(run: Path) -> int:
    """Actors that answer, by the run's last line of progress."""
    lines = progress(run)
    return int(lines[-1]["actors_alive"]) if lines else 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with ray_cluster(monkeypatch, head_cpus=2) as made:
        yield made


def test_learner_shards_and_evaluator_stay_with_the_head_and_actors_take_the_workers_first(
    cluster: Cluster, tmp_path: Path
) -> None:
    workers = [join(cluster, 1), join(cluster, 2)]
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", "auto", "--ray.address", cluster.address)
    wait_for(lambda: alive(run) == 4 and "evaluation after" in (run / "mario.log").read_text(), process)
    assert roles_on(cluster.head_node) == {**BESIDE_LEARNER, "RemoteActor": 1}
    assert [roles_on(worker) for worker in workers] == [{"RemoteActor": 1}, {"RemoteActor": 2}]
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert f"Ray cluster at {cluster.address}: 3 nodes, 5 CPUs: 4 actors\n" in out


def test_a_fixed_number_of_actors_begins_with_what_fits_and_follows_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", "3", "--ray.address", cluster.address)
    wait_for(lambda: alive(run) == 1, process)
    worker = join(cluster, 4)
    wait_for(lambda: alive(run) == 3, process)
    assert roles_on(worker) == {"RemoteActor": 2}
    cluster.remove_node(worker, allow_graceful=False)
    wait_for(lambda: "2 CPUs now: 1 actor instead of 3" in (run / "mario.log").read_text(), process)
    before = progress(run)[-1]["env_steps"]
    wait_for(lambda: alive(run) == 1 and progress(run)[-1]["env_steps"] > before + 200, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert "note: 3 actors are asked for; the others start when the cluster has cores for them" in out


def test_a_replay_that_the_heads_memory_cannot_hold_is_refused_whatever_the_workers_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ray_cluster(monkeypatch, head_cpus=2, memory=2**30) as cluster:
        join(cluster, 2)
        for options, words in (
            ("--replay.capacity 1000000", "a replay of 1,000,000 transitions does not fit into memory"),
            ("--replay.shards 8", "beside the replay's contents the run takes 1.8 GiB of memory"),
        ):
            run = tmp_path / "run"
            status, _, err = finish(start(run, *GRID, *options.split(), "--ray.address", cluster.address))
            assert status == 2
            assert err.startswith(f"launch.py: error: {words}")
            assert err.count("\n") == 1
            assert not run.exists()


def install(folder: Path) -> Path:
    """A copy of this project's code."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", folder)
    return folder


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The head's code, for what is started first, and code of which one file differs."""
    ours, others = install(tmp_path / "ours"), install(tmp_path / "others")
    with (others / "actors" / "actor.py").open("a") as file:
        file.write("# later\n")
    with_code(monkeypatch, ours)
    return ours, others


def start_installed(folder: Path, run: Path, address: str) -> "subprocess.Popen[str]":
    """`launch.py` of what PYTHONPATH names, from a folder without code: Ray's workers look where the driver is, too."""
    folder.mkdir()
    code = "import sys; from launch import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["--run-dir", str(run), *GRID, "--actors.count", "auto", "--ray.address", address]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def test_a_node_with_other_code_ends_the_start_by_its_name(
    installs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_cluster(monkeypatch, head_cpus=2) as cluster:
        with_code(monkeypatch, installs[1])
        other = join(cluster, 1)
        with_code(monkeypatch, installs[0])
        status, _, err = finish(start_installed(tmp_path / "empty", tmp_path / "run", cluster.address))
    assert status == 2
    assert err.count("\n") == 1
    assert f"node {other.node_ip_address} runs other code (actors/actor.py is not the same)" in err
    assert not (tmp_path / "run").exists()


def test_a_node_that_joins_with_other_code_is_named_and_gets_no_actors(
    installs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with ray_cluster(monkeypatch, head_cpus=2) as cluster:
        process = start_installed(tmp_path / "empty", run, cluster.address)
        wait_for(lambda: alive(run) == 1, process)
        with_code(monkeypatch, installs[1])
        other = join(cluster, 2)
        wait_for(lambda: "runs other code (actors/actor.py" in (run / "mario.log").read_text(), process)
        with_code(monkeypatch, installs[0])
        same = join(cluster, 1)
        wait_for(lambda: alive(run) == 2, process)
        assert (roles_on(other), roles_on(same)) == ({}, {"RemoteActor": 1})
        process.send_signal(signal.SIGINT)
        status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert out.count(f"warning: node {other.node_ip_address} runs other code") == 1
