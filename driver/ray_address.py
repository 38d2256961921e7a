"""Which Ray a run uses, decided before Ray is imported: Ray reads its environment at import."""

import os
import secrets
import socket
from pathlib import Path

import grpc

from common.errors import UserError

_CONNECT_TIMEOUT_S = 3.0


def find_address(requested: str | None) -> str | None:
    """The cluster to join, None for a private Ray.

    In this order: `requested` (--ray.address), RAY_ADDRESS, the address that `ray start` left on this
    machine. "local" always means a private one. Ray's own "auto" is not used: it joins any Ray that runs
    here, another driver's private one too.

    Raises:
        UserError: nothing answers at the address, or it is none.
    """
    address_file = _address_file()
    sources = [
        ("--ray.address", requested),
        ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS")),
        (str(address_file), _read(address_file)),
    ]
    source, address = next(((name, value) for name, value in sources if value), ("", None))
    if address is None or address == "local":
        return None
    if address == "auto":
        raise UserError(
            f'{source} "auto" could join any Ray on this machine; leave it out, or give HOST:PORT or "local"'
        )
    advice = "start the cluster, or give --ray.address local for a private Ray"
    if source == str(address_file):
        advice = f"if that cluster is gone, remove {address_file}, or give --ray.address local"
    _check_answers(address, source, advice)
    return address


def prepare_environment(address: str | None) -> None:
    """Sets what Ray reads when it is imported: no usage reports, and a secret of its own for a private Ray.

    With the secret, other users of the machine can't send tasks to it, and no token file is written.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A process without a GPU sees none because it was given none; Ray would warn about how it does that.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Otherwise the GCS keeps a record of each of the hundred thousand latest calls: hundreds of megabytes.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _address_file() -> Path:
    """Where `ray start` writes its address."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _check_answers(address: str, source: str, advice: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{source}: {address!r} is no address of the form HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        # Ray would try for a minute, loudly, where another program listens: its server speaks gRPC.
        with grpc.insecure_channel(f"{host}:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_TIMEOUT_S)
    except (OSError, OverflowError, grpc.FutureTimeoutError):
        raise UserError(f"no Ray answers at {address} (named by {source}); {advice}") from None
