"""The client of a remote cache against a server in this process, which is wrong in every way that real ones are."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from grpc_servers import GrpcServer, grpc_server
from remote_machines import KEY, SECRET, TOOL, WRONG_RESULTS, Make, flipped, maker, same
from servers import CacheServer, Handler, cache_server

from bkrules.cache import breaker, http_store
from bkrules.cache.cas import Cas
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import RemoteFailed, UsageError
from bkrules.model import digest
from bkrules.model.digest import Digest


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with cache_server() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, server: CacheServer) -> Make:
    """Makes machines, each with an empty disk cache."""
    return maker(tmp_path, server.address)


@pytest.fixture
def filled(machine: Make, server: CacheServer) -> CacheServer:
    """The server with a result of another machine."""
    first = machine()
    first.put()
    assert first.warnings == []
    server.requests.clear()
    return server


def test_a_result_comes_from_another_machine_with_its_bytes(machine: Make, filled: CacheServer) -> None:
    second = machine()

    assert same(second.ask(), second.result())
    assert second.actions.get(KEY) is not None, "it is not in the disk cache afterwards"
    assert second.warnings == []


def test_digests_are_had_without_the_bytes(machine: Make, filled: CacheServer) -> None:
    second = machine()

    found = second.ask(whole=False)

    assert same(found, machine().result())
    assert second.actions.get(KEY) is None
    trees = 2
    assert filled.count("GET", "/cas/") == trees
    assert found is not None
    assert second.actions.bring(KEY, found)
    assert Path(second.actions.cas.path(digest.of_bytes(TOOL))).read_bytes() == TOOL
    assert second.actions.get(KEY) is not None


def test_a_result_that_nobody_had_is_a_miss_without_a_word(machine: Make) -> None:
    one = machine()

    assert one.ask() is None
    assert one.warnings == []


def test_blobs_go_before_the_result(machine: Make, filled: CacheServer, server: CacheServer) -> None:
    server.held.clear()
    machine().put()

    puts = [path for method, path in server.requests if method == "PUT"]
    assert puts[-1] == f"/ac/{KEY.hash}"
    assert sum(path.startswith("/ac/") for path in puts) == 1
    assert len(puts) == len(set(puts)) == 1 + 2 + 4  # result, Trees, files; the empty file is never sent
    assert f"/cas/{digest.EMPTY.hash}" not in server.held


def test_only_a_large_blob_is_asked_for_first(machine: Make, filled: CacheServer) -> None:
    machine().put()

    assert filled.count("HEAD") == 1
    assert filled.count("PUT", f"/cas/{digest.of_bytes(TOOL).hash}") == 0
    assert filled.count("PUT", f"/cas/{digest.of_bytes(b'aa').hash}") == 1


@pytest.mark.parametrize("length", [str(len(TOOL) - 1), str(len(TOOL)), ""])
def test_a_blob_that_is_there_with_another_size_is_sent(machine: Make, filled: CacheServer, length: str) -> None:
    """A server that was killed may have a part of it."""
    filled.answer = lambda handler: handler.command == "HEAD" and handler.reply(200, Content_Length=length)
    machine().put()

    assert filled.count("PUT", cas_path(TOOL)) == (length == str(len(TOOL) - 1))


def test_a_reader_writes_nothing(machine: Make, server: CacheServer) -> None:
    machine(upload=False).put()

    assert server.requests == []


def test_a_result_whose_blob_was_refused_is_not_sent(machine: Make, server: CacheServer) -> None:
    def full(handler: Handler) -> bool:
        return handler.command == "PUT" and handler.path.startswith("/cas/") and handler.reply(507)

    server.answer = full
    one = machine()
    one.put()

    assert server.count("PUT", "/ac/") == 0
    assert len(one.warnings) == 1
    assert "status 507" in one.warnings[0]


def cas_path(data: bytes) -> str:
    return f"/cas/{digest.of_bytes(data).hash}"


def cut(handler: Handler) -> bool:
    """Promise all and send a part."""
    handler.close_connection = True
    return handler.reply(200, TOOL[:100], Content_Length=str(len(TOOL)), Connection="close")


# What a server may say instead of the bytes of TOOL.
WRONG_BLOBS: dict[str, Callable[[Handler], bool]] = {
    "deleted": lambda handler: handler.reply(404),
    "altered": lambda handler: handler.reply(200, flipped(TOOL)),
    "short": lambda handler: handler.reply(200, TOOL[:-1]),
    "long": lambda handler: handler.reply(200, TOOL + b"x"),
    "empty": lambda handler: handler.reply(200),
    "cut": cut,
    "error": lambda handler: handler.reply(500),
    "redirect": lambda handler: handler.reply(302, Location="http://127.0.0.1:9/elsewhere"),
    "page": lambda handler: handler.reply(200, b"<html>log in first</html>", Content_Type="text/html"),
    "gzip": lambda handler: handler.reply(200, TOOL, Content_Encoding="gzip"),
    "zstd": lambda handler: handler.reply(200, TOOL, Content_Encoding="zstd"),
    "no content": lambda handler: handler.reply(204),
}


@pytest.mark.parametrize("wrong", WRONG_BLOBS)
def test_a_wrong_blob_is_a_miss_that_is_said_and_healed(machine: Make, filled: CacheServer, wrong: str) -> None:
    def answer(handler: Handler) -> bool:
        return handler.command == "GET" and handler.path == cas_path(TOOL) and WRONG_BLOBS[wrong](handler)

    filled.answer = answer
    second = machine()

    assert second.ask() is None
    assert len(second.warnings) == 1
    assert digest.of_bytes(TOOL).hash in second.warnings[0]
    assert filled.address in second.warnings[0]
    assert not second.actions.cas.has(digest.of_bytes(TOOL))
    assert not list(Path(second.actions.cas.root).rglob("*.tmp"))
    assert second.actions.get(KEY) is None

    second.put()  # it ran again

    assert filled.count("HEAD", cas_path(TOOL)) == 0, "a server that lost a blob may say that it has it"
    assert filled.count("PUT", cas_path(TOOL)) == 1
    assert filled.count("PUT", "/ac/") == 1
    filled.answer = lambda _handler: False
    assert same(machine().ask(), second.result())


@pytest.mark.parametrize("wrong", WRONG_RESULTS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_wrong_result_is_a_miss_that_is_said(machine: Make, server: CacheServer, wrong: str, whole: bool) -> None:
    server.held |= WRONG_RESULTS[wrong]()
    one = machine()
    began = time.monotonic()

    assert one.ask(whole=whole) is None

    assert time.monotonic() - began < 10
    assert len(one.warnings) == 1
    assert list(Path(one.actions.root).rglob("*")) == []


def test_a_body_without_a_length_is_read_when_its_bytes_are_right(machine: Make, filled: CacheServer) -> None:
    """As a proxy may send it."""

    def chunked(handler: Handler) -> bool:
        if handler.path != cas_path(TOOL):
            return False
        handler.reply(200, Content_Length="", Transfer_Encoding="chunked")
        for part in (TOOL[:5], TOOL[5:]):
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")
        return True

    filled.answer = chunked
    second = machine()

    assert same(second.ask(), second.result())
    assert second.warnings == []


def test_a_body_without_an_end_is_left_at_its_size(machine: Make, filled: CacheServer) -> None:
    sent = 0

    def endless(handler: Handler) -> bool:
        nonlocal sent
        if handler.path != cas_path(TOOL):
            return False
        handler.reply(200, Content_Length="", Connection="close")
        while True:
            sent += handler.wfile.write(bytes(1 << 16))

    filled.answer = endless
    second = machine()

    assert second.ask() is None
    assert "sends more than" in second.warnings[0]
    assert sent < 64 << 20


def test_a_body_that_drips_is_left_when_its_time_is_over(machine: Make, filled: CacheServer) -> None:
    sent: list[int] = []

    def drip(handler: Handler) -> bool:
        if handler.path != cas_path(TOOL):
            return False
        handler.reply(200, Content_Length=str(len(TOOL)))
        for byte in TOOL:
            handler.wfile.write(bytes([byte]))
            sent.append(byte)
            time.sleep(0.02)
        return True

    filled.answer = drip
    second = machine(timeout=0.4)

    assert second.ask() is None
    assert len(sent) < len(TOOL)
    assert "not there after 0.4 s" in second.warnings[0]


def test_a_connection_that_was_closed_meanwhile_is_replaced(machine: Make, filled: CacheServer) -> None:
    """The server ends a connection that it had promised to keep, at the moment of the next request."""
    dropped: list[str] = []

    def drop(handler: Handler) -> bool:
        if not dropped and handler.path.startswith("/cas/"):
            dropped.append(handler.path)
            handler.close_connection = True
            return True
        return False

    filled.answer = drop
    second = machine()

    assert second.ask() is not None
    assert len(dropped) == 1
    assert second.warnings == []


def test_misses_and_hits_share_connections(machine: Make, filled: CacheServer) -> None:
    second = machine()
    filled.connections.clear()
    for number in range(20):
        assert second.actions.ask(digest.of_bytes(bytes([number])), whole=True) is None
    assert len(filled.connections) == 1


def test_a_server_that_keeps_failing_is_left_alone(machine: Make, server: CacheServer) -> None:
    server.answer = lambda handler: handler.reply(500)
    one = machine()

    for _ in range(3 * breaker.FAULTS):
        assert one.ask() is None

    assert server.count("GET") == breaker.FAULTS
    assert not one.remote.readable
    assert len(one.warnings) == 1


def test_an_answer_in_between_gives_it_another_chance(machine: Make, server: CacheServer) -> None:
    one = machine()
    for number in range(4 * breaker.FAULTS):
        bad = bool(number % breaker.FAULTS)
        server.answer = lambda handler, bad=bad: bad and handler.reply(500)  # type: ignore[misc]
        assert one.ask() is None

    assert server.count("GET") == 4 * breaker.FAULTS


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_read_asks_once(machine: Make, server: CacheServer, status: int) -> None:
    server.answer = lambda handler: handler.reply(status)
    one = machine()

    assert [one.ask(), one.ask()] == [None, None]
    one.put()

    assert server.requests == [("GET", f"/ac/{KEY.hash}")]


def test_who_may_not_write_may_still_read(machine: Make, filled: CacheServer) -> None:
    filled.answer = lambda handler: handler.command == "PUT" and handler.reply(401)
    second = machine()
    second.put()

    assert filled.count("PUT") == 1
    assert second.ask() is not None
    assert len(second.warnings) == 1


def test_a_server_that_is_not_there_is_asked_once(machine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    resolve = socket.getaddrinfo  # for each connection once

    def counting(host: str, *arguments: Any) -> list[Any]:
        asked.append(host)
        return resolve(host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    with socket.socket() as taken:  # a port on which nobody listens, and nobody else can
        taken.bind(("127.0.0.1", 0))
        one = machine(f"http://127.0.0.1:{taken.getsockname()[1]}")

        assert [one.ask() for _ in range(100)] == [None] * 100
        one.put()

    assert asked == ["127.0.0.1"]
    assert len(one.warnings) == 1
    assert "connection refused" in one.warnings[0]


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_silent_server_costs_one_wait(machine: Make, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(http_store, "IDLE", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        one = machine(f"http://127.0.0.1:{listening.getsockname()[1]}")
        threads = [threading.Thread(target=one.ask) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(100):
            assert one.ask() is None
        one.put()

        listening.setblocking(False)
        connections = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()
                connections += 1
    assert 1 <= connections <= at_once
    assert len(one.warnings) == 1
    assert "no answer in 0.5 s" in one.warnings[0]


def test_the_wait_for_a_silent_server_is_a_few_seconds() -> None:
    assert http_store.CONNECT + http_store.IDLE <= 10


def test_a_blob_that_several_want_comes_once(machine: Make, filled: CacheServer) -> None:
    def slow(handler: Handler) -> bool:
        if handler.path == cas_path(TOOL):
            time.sleep(0.2)
        return False

    filled.answer = slow
    second = machine()
    threads = [threading.Thread(target=second.ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert second.actions.get(KEY) is not None
    assert filled.count("GET", cas_path(TOOL)) == 1


def test_a_fault_of_a_required_cache_is_an_error(machine: Make, server: CacheServer) -> None:
    server.answer = lambda handler: handler.reply(503)
    one = machine(required=True)

    with pytest.raises(RemoteFailed) as caught:
        one.ask()
    one.actions.put(KEY, one.result())

    assert caught.value.reason == "remote-cache"
    assert "status 503" in caught.value.message
    assert "status 503" in one.remote.flush()


def test_a_miss_of_a_required_cache_is_no_error(machine: Make) -> None:
    assert machine(required=True).ask() is None


def test_a_disk_without_room_is_a_miss(machine: Make, filled: CacheServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Cas, _name: Digest, chunks: Iterator[bytes]) -> None:
        next(chunks)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cas, "receive", full)
    second = machine()

    assert second.ask() is None
    assert "No space left on device" in second.warnings[0]


@pytest.mark.parametrize("way", ["header", "url", "netrc"])
def test_credentials_reach_the_server_and_no_warning(
    machine: Make, server: CacheServer, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET if way == 'netrc' else 'another'}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answer = lambda handler: handler.reply(500)
    if way == "header":
        one = machine(headers=(("Authorization", f"Bearer {SECRET}"),))
    else:
        one = machine(server.address.replace("//", f"//me:{SECRET}@") if way == "url" else "")

    one.ask()

    import base64

    expected = f"Bearer {SECRET}" if way == "header" else f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    assert server.headers[0]["Authorization"] == expected
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert SECRET not in one.warnings[0]


def test_secrets_are_in_no_repr() -> None:
    options = RemoteOptions(f"http://me:{SECRET}@host", (("A", SECRET),))
    assert SECRET not in repr(options)
    assert options.address == "http://host"


@pytest.mark.parametrize(
    "url",
    [
        "grpc://host/a",
        "ftp://host",
        "host:80",
        "http://",
        "http://host:x",
        "http://host/?a=b",
        "http://host/#a",
        "unix:/a",
    ],
)
def test_a_url_of_another_kind_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        _ = RemoteOptions(url.replace("host", f"me:{SECRET}@host")).address
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host", "https://host:8443/a/path", "http://[::1]:80"])
def test_an_address_is_the_url(url: str) -> None:
    assert RemoteOptions(f"{url}/").address == url


@pytest.mark.parametrize("serve", [cache_server, grpc_server])
def test_no_thread_outlives_a_cache_that_is_closed(
    tmp_path: Path, serve: Callable[[], AbstractContextManager[CacheServer | GrpcServer]]
) -> None:
    with serve() as server:
        make = maker(tmp_path, server.address)
        make().put()
        before = set(threading.enumerate())
        second = make()
        assert second.ask() is not None
        second.put()
        names = ("download", "upload", "remote-idle")
        begun = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(names)]
        assert len(begun) >= 2
        second.remote.close()
        for thread in begun:
            thread.join(60)
        assert [thread for thread in begun if thread.is_alive()] == []
