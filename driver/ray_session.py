"""Starts a private Ray, or joins the cluster that the user means; quiet either way."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ray

from common.errors import UserError, first_line
from driver.temporary import temporary_folder

_log = logging.getLogger("apex-mario")


class ClusterSize(NamedTuple):
    """What a Ray consists of now."""

    nodes: int
    cpus: int
    gpus: int
    memory_bytes: int  # that Ray may give to processes, all nodes together

    @property
    def description(self) -> str:
        """Such as "3 nodes, 17 CPUs, 1 GPU"."""
        parts = [_count(self.nodes, "node"), _count(self.cpus, "CPU")]
        return ", ".join([*parts, _count(self.gpus, "GPU")] if self.gpus else parts)


def cluster_size() -> ClusterSize:
    """The Ray that this process is connected to, as far as its nodes are alive."""
    resources = ray.cluster_resources()
    return ClusterSize(
        nodes=sum(node["Alive"] for node in ray.nodes()),
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
    )


class Session(NamedTuple):
    """The Ray that carries the run."""

    address: str | None  # None: private to this run
    size: ClusterSize  # at its start
    folder: str | None  # of a private Ray's files


@contextlib.contextmanager
def ray_session(address: str | None, *, private_cpus: int, object_store_mb: int) -> Iterator[Session]:
    """Connects for the duration of the block.

    Args:
        address: the cluster to join, None for a private Ray (`driver.ray_address`).
        private_cpus: logical CPUs of a private Ray.
        object_store_mb: shared memory of a private Ray, megabytes.

    Raises:
        UserError: Ray does not start, or the cluster cannot be joined.
    """
    with contextlib.ExitStack() as stack:
        folder = None if address is not None else stack.enter_context(temporary_folder())
        stack.callback(ray.shutdown)  # also where starting is interrupted
        _keep_off_the_terminal()
        if folder is not None:
            _start_private(folder, private_cpus, object_store_mb)
        else:
            _join(str(address))
        yield Session(address, cluster_size(), folder)


def _keep_off_the_terminal() -> None:
    """Ray prints pages of a dead node's log, and has no setting against it: our log gets the first line."""
    worker: Any = ray._private.worker

    def write(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
        _log.info("Ray: %s", first_line("\n".join(data["lines"])))

    worker.print_to_stdstream = write


def _start_private(folder: str, cpus: int, object_store_mb: int) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=object_store_mb * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
        )
    except Exception as error:
        raise UserError(f"Ray could not be started on this machine: {first_line(error)}") from error


def _join(address: str) -> None:
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        raise UserError(f"could not join the Ray cluster at {address}: {first_line(error)}") from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
