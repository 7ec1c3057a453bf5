"""bk asks buildctl when a daemon answers its own requests in any other way than buildkitd does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bkrules.cell import control_api
from bkrules.cell.control_api import Unanswered
from bkrules.plugin.worker import Backend, Tls

CALLS = (control_api.prune, control_api.usage, control_api.history)


class _Control(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service that knows no method but one."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method.endswith("/DiskUsage"):
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        return None


@contextmanager
def _answering(path: Path, answer: bytes) -> Iterator[None]:
    """Serve one connection: send bytes in answer to the request, and end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("call", CALLS)
def test_another_server_is_not_believed(tmp_path: Path, call: Callable[[Backend, float], object]) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=(_Control(),))
    server.add_insecure_port(f"unix://{tmp_path}/socket")
    server.start()
    try:
        with pytest.raises(Unanswered):
            call(Backend(f"unix://{tmp_path}/socket", ""), 60)
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "backend",
    [
        Backend("tcp://127.0.0.1:1", ""),
        Backend("unix:///nowhere/socket", ""),
        Backend("unix:///nowhere/socket", "", tls=Tls(cacert="/ca.pem")),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_daemon_out_of_reach(backend: Backend, call: Callable[[Backend, float], object]) -> None:
    with pytest.raises(Unanswered):
        call(backend, 60)


SUCCESS = b"\0\0\x0c\1\5\0\0\0\1\x40" + control_api.SUCCESS


def _data(message: bytes, compressed: int = 0) -> bytes:
    data = bytes((compressed,)) + len(message).to_bytes(4) + message
    return len(data).to_bytes(3) + b"\0\0\0\0\0\1" + data


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        SUCCESS,
        _data(b""),
        _data(b"", compressed=1) + SUCCESS,
        _data(b"")[:-1] + SUCCESS,
        _data(b"") + _data(b"") + SUCCESS,
        _data(b"\x0d0000") + SUCCESS,
        _data(b"\x0a") + SUCCESS,
    ],
)
def test_an_odd_answer(tmp_path: Path, answer: bytes) -> None:
    with _answering(tmp_path / "socket", answer), pytest.raises(Unanswered):
        control_api.usage(Backend(f"unix://{tmp_path}/socket", ""), 60)


def test_records_are_returned_sorted(tmp_path: Path) -> None:
    pieces = _data(b"\x0a\3\x0a\1b\x0a\3\x0a\1a")
    with _answering(tmp_path / "socket", b"\0\0\0\4\0\0\0\0\0" + pieces + SUCCESS):
        records = control_api.usage(Backend(f"unix://{tmp_path}/socket", ""), 60)
    assert records == [b"\x0a\1a", b"\x0a\1b"]


def test_a_history_of_many_builds(tmp_path: Path) -> None:
    count = 200_000
    events = (b"\x12\x08\x0a\x06%06d" % number for number in reversed(range(count)))
    body = b"".join(b"\0" + len(event).to_bytes(4) + event for event in events)
    frames = (body[at : at + 16384] for at in range(0, len(body), 16384))
    answer = b"".join(len(frame).to_bytes(3) + b"\0\0\0\0\0\1" + frame for frame in frames)
    with _answering(tmp_path / "socket", answer + SUCCESS):
        found = control_api.history(Backend(f"unix://{tmp_path}/socket", ""), 60)
    assert found == [b"%06d" % number for number in range(count)]
