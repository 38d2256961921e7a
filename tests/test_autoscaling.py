"""A cluster whose head has the learner's core alone grows by what a run asks of Ray's own autoscaler."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.launching import GRID, descendants, finish, progress, start, wait_for
from tests.stopping import kill_all

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))
WORKER_CPUS = 2
PROVIDER = {
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
    "launch_multiple": True,
    "head_node_id": FAKE_HEAD_NODE_ID,
}
CONFIG = {
    "cluster_name": "apex-mario",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": WORKER_CPUS}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "auth": {},
    "cluster_synced_files": [],
    "docker": {},
    "file_mounts": {},
    **{
        name: []
        for name in (
            *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
            *("head_start_ray_commands", "worker_start_ray_commands"),
        )
    },
}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with one core, and an autoscaler whose workers are processes of this machine."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = CONFIG | {"provider": PROVIDER | {"gcs_address": f"127.0.0.1:{port}"}}
    (folder / "autoscaling.yaml").write_text(json.dumps(config))
    for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}.items():
        monkeypatch.setenv(name, value)
    environment = os.environ | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    options = [
        "--node-ip-address=127.0.0.1",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
    ]
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--autoscaling-config={folder}/autoscaling.yaml"]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment, cwd=folder, text=True)
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "log").read_text(), head)
        yield f"127.0.0.1:{port}"
    finally:
        kill_all([*descendants(head.pid), head.pid])
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("count", "at_first", "in_the_end"), [("auto", 0, WORKER_CPUS), ("3", 0, 3)])
def test_workers_come_for_actors_that_have_no_core(
    count: str, at_first: int, in_the_end: int, address: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--actors.count", count, "--ray.address", address)
    wait_for(lambda: bool(progress(run)) and progress(run)[-1]["actors_alive"] == in_the_end, process, 240)
    before = progress(run)[-1]
    wait_for(lambda: progress(run)[-1]["updates"] > before["updates"] + 20, process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert f"1 node, 1 CPU: {at_first} actors" in out
    assert "warning: this cluster asks nobody for a token" in out
