"""Ray's server keeps records of calls, hundreds of megabytes of them, for `ray.timeline`: not of ours."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.launching import GRID, finish, progress, start, wait_for
from tests.ray_cluster import ray_cluster


def recorded_names() -> list[str]:
    """Of all calls and their parts that Ray's server has records of."""
    events: Any = ray.timeline()
    return [event["name"] for event in events]


class _Other:
    def recorded(self) -> None:
        """So that it is known that this cluster keeps records."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.delenv("RAY_task_events_report_interval_ms", raising=False)
    with ray_cluster(monkeypatch, head_cpus=3) as made:
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()


@pytest.mark.slow
def test_a_cluster_that_keeps_records_of_calls_has_none_of_a_run(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *GRID, "--ray.address", cluster.address)
    wait_for(lambda: any(line["updates"] > 200 for line in progress(run)), process)
    decorate: Any = ray.remote(num_cpus=0)
    other = decorate(_Other).remote()
    ray.get(other.recorded.remote())
    wait_for(lambda: "recorded" in recorded_names(), process)
    names = recorded_names()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0
    assert "__init__" in names  # of the other one
    assert not {"ping", "insert", "sample", "run", "weights"} & set(names)
    assert len(names) < 100
