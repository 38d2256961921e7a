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
    if not address.startswith("ray://"):
        _check_token(address)
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
    # A call that comes after the end of Ray must fail instead of starting another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # With the group `cluster` installed, a page of Ray's own metrics would ask nobody for the token.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")


def _check_token(address: str) -> None:
    """Whether the cluster takes us; Ray itself would ask for half a minute, and print a line each time.

    A cluster with token authentication answers no call without its token. Where we have that, Ray is told to send it.
    """
    with grpc.insecure_channel(address) as channel:
        if _is_let_in(channel, None):
            return
        where, token = _find_token()
        if token is None:
            raise UserError(
                f"the Ray cluster at {address} asks for its token: put it into RAY_AUTH_TOKEN, or into {where}"
            )
        if not _is_let_in(channel, token):
            raise UserError(f"the Ray cluster at {address} turns us away: the token in {where} is not its own")
    os.environ["RAY_AUTH_MODE"] = "token"


def _is_let_in(channel: grpc.Channel, token: str | None) -> bool:
    """Whether a call that every Ray answers is not refused for want of a right token."""
    call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
    metadata = None if token is None else [("authorization", f"Bearer {token}")]
    try:
        call(b"", timeout=_CONNECT_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)
    return True


def _find_token() -> tuple[str, str | None]:
    """Where Ray looks for a token first, and the token there."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN", token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return str(path), _read(path) or None


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
