"""Which Ray a run takes: named, from the environment, from `ray start`, or its own."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from common.errors import UserError
from driver.ray_address import find_address, prepare_environment


@pytest.fixture(autouse=True)
def _no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def listening() -> Iterator[str]:
    """An address where gRPC is spoken, as Ray does; `test_launch.py` joins a real cluster."""
    with ThreadPoolExecutor(max_workers=1) as threads:
        server = grpc.server(threads)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def _write_address_file(folder: Path, address: str) -> None:
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address, encoding="utf-8")


def test_without_any_address_the_run_has_its_own_ray() -> None:
    assert find_address(None) is None


def test_the_option_beats_the_environment_and_that_the_address_file(
    listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_address_file(tmp_path, listening)
    assert find_address(None) == listening
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert find_address(None) is None
    assert find_address(listening) == listening


def test_a_stale_address_file_is_one_clear_line(tmp_path: Path) -> None:
    _write_address_file(tmp_path, "127.0.0.1:9")
    with pytest.raises(UserError, match=r"if that cluster is gone, remove .*ray_current_cluster"):
        find_address(None)
    assert find_address("local") is None


def test_another_program_at_the_address_is_not_taken_for_ray() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(UserError, match="no Ray answers"),
    ):
        find_address(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:9", "no Ray answers"), ("nonsense", "HOST:PORT"), ("auto", "any Ray"), ("host:port", "HOST:PORT")],
)
def test_a_bad_address_is_refused_with_its_source(address: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=expected) as error:
        find_address(address)
    assert "--ray.address" in str(error.value)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="RAY_ADDRESS"):
        find_address(None)


def test_each_private_ray_has_a_secret_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_USAGE_STATS_ENABLED",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
        "RAY_task_events_report_interval_ms",
        "RAY_enable_metrics_collection",
    ):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
    secrets = []
    for _ in range(2):
        prepare_environment(None)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        secrets.append(os.environ["RAY_AUTH_TOKEN"])
    assert secrets[0] != secrets[1]
    assert len(secrets[0]) == 64


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers calls with the token alone, as a Ray with token authentication does; `test_launch.py` asks a real one."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        right = ("authorization", f"Bearer {TOKEN}") in handler_call_details.invocation_metadata

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if not right:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


TOKEN = "t" * 64


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with ThreadPoolExecutor(max_workers=1) as threads:
        server = grpc.server(threads, handlers=[_Guarded()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_a_cluster_that_asks_for_a_token_turns_us_away_without_it(guarded: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"asks for its token: put it into RAY_AUTH_TOKEN, or into {tmp_path}/.ray/"):
        find_address(guarded)


def test_another_clusters_token_is_refused_by_the_name_of_its_place(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "u" * 64)
    with pytest.raises(UserError, match="the token in RAY_AUTH_TOKEN is not its own"):
        find_address(guarded)


@pytest.mark.parametrize("place", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
def test_the_right_token_is_found_where_ray_looks_and_sent(
    place: str, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "RAY_AUTH_TOKEN":
        monkeypatch.setenv(place, TOKEN)
    else:
        path = tmp_path / (".ray/auth_token" if place == "home" else "token")
        path.parent.mkdir(exist_ok=True)
        path.write_text(TOKEN + "\n")
        if place != "home":
            monkeypatch.setenv(place, str(path))
    assert find_address(guarded) == guarded
    assert os.environ["RAY_AUTH_MODE"] == "token"
