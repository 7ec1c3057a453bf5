"""The storage of an engine that does not answer for a while: its client repeats requests, in bounded time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_servers import GrpcServer, grpc_server
from servers import CacheServer, Handler, cache_server

from bkrules.cache import breaker
from bkrules.cache.breaker import FAULTS
from bkrules.cache.grpc_store import GrpcStore
from bkrules.cache.http_store import HttpStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest
from bkrules.model.digest import Digest

LARGE = digest.of_bytes(bytes(1 << 20))
PATIENT = 600.0
"""Seconds that no test takes."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits short. No test measures them."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with grpc_server() as made:
        yield made


def store(server: GrpcServer, warnings: list[str], absence: float = PATIENT) -> GrpcStore:
    return GrpcStore(RemoteOptions(server.address, absence=absence), warnings.append)


def failing(server: GrpcServer, method: str, times: int, code: str = "DEADLINE_EXCEEDED") -> Callable[..., None]:
    """Answer the first requests of a method with a code: that of a call without an answer in time, or another one."""

    def answer(asked: str, _message: object, context: Any) -> None:
        if asked == method and server.count(method) <= times:
            context.abort(grpc.StatusCode[code], "not now")

    return answer


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_a_request_is_repeated_until_it_has_an_answer(server: GrpcServer, code: str) -> None:
    """Of a busy server, one call already repeats a request twice."""
    warnings: list[str] = []
    client = store(server, warnings)
    server.answer = failing(server, "FindMissingBlobs", 4, code)
    server.held[LARGE.hash] = b""
    assert client.missing([LARGE]) == set(), "the server has it"
    assert server.count("FindMissingBlobs") == 5
    assert warnings == []
    assert (client.readable, client.writable) == (True, True)
    client.close()


def test_a_question_for_a_result_is_repeated(server: GrpcServer) -> None:
    warnings: list[str] = []
    client = store(server, warnings)
    server.results[LARGE.hash] = b"any"
    server.answer = failing(server, "GetActionResult", 2)
    assert client.result(LARGE) == b"any"
    assert server.count("GetActionResult") == 3
    assert warnings == []
    client.close()


def test_a_storage_that_stays_silent_is_given_up_by_name(
    server: GrpcServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over after so many looks at a clock."""
    warnings: list[str] = []
    ticks = itertools.count()
    monkeypatch.setattr(breaker, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    client = store(server, warnings, absence=5.0)
    server.answer = failing(server, "BatchUpdateBlobs", 1 << 30)
    name, path = digest.of_bytes(b"some"), tmp_path / "blob"
    path.write_bytes(b"some")
    assert client.put_blobs({name: str(path)}) == set()
    assert server.count("BatchUpdateBlobs") > 1
    assert client.fault.startswith(f"remote cache {server.address}: write {name.hash}: no answer in ")
    assert re.search(r" s, for \d+ s$", client.fault)
    assert (client.readable, client.writable) == (False, False)
    count = len(server.requests)
    assert client.result(LARGE) is None
    assert client.put_blobs({name: str(path)}) == set()
    assert len(server.requests) == count, "the others do not wait as long again"
    assert warnings == [f"warning: {client.fault}; the engine cannot run actions without it"]
    client.close()


def test_a_server_that_has_never_answered_is_asked_once(server: GrpcServer) -> None:
    """An address is more often wrong than its server is gone."""
    warnings: list[str] = []
    client = store(server, warnings)
    server.answer = failing(server, "GetCapabilities", 1 << 30)
    assert client.result(LARGE) is None
    assert server.count("GetCapabilities") == 1
    assert not client.readable
    client.close()


def test_the_end_of_the_build_ends_the_repetitions(server: GrpcServer) -> None:
    warnings: list[str] = []
    client = store(server, warnings)
    server.answer = lambda method, _message, _context: client.repeat_no_more() if method == "GetActionResult" else None
    server.results[LARGE.hash] = b"any"
    assert client.result(LARGE) == b"any", "the build may still ask"

    server.answer = failing(server, "GetActionResult", 1 << 30)
    count = server.count("GetActionResult")
    assert client.result(LARGE) is None
    assert server.count("GetActionResult") == count + 1
    assert warnings == []
    client.close()


def test_blobs_that_are_lost_are_answers(server: GrpcServer) -> None:
    """An engine's storage that has lost many blobs is there."""
    client = store(server, [])
    lost = [Digest(f"{number:064x}", 9) for number in range(2 * FAULTS)]
    assert client.blobs(lost, lambda _name, _chunks: None) == set()
    assert client.readable
    client.close()


@pytest.fixture
def http() -> Iterator[CacheServer]:
    with cache_server() as made:
        yield made


@pytest.mark.parametrize("way", ["refused", "closed"])
def test_a_request_over_http_is_repeated(http: CacheServer, way: str) -> None:
    """bk knows that the server is there from its answer to the first question."""
    warnings: list[str] = []
    client = HttpStore(RemoteOptions(http.address, absence=PATIENT), warnings.append)
    assert client.result(LARGE) is None
    left = [None] * (2 * FAULTS)

    def answer(handler: Handler) -> bool:
        if not left:
            return False
        left.pop()
        if way == "refused":
            return handler.reply(503)
        handler.close_connection = True
        return True

    http.held[f"/ac/{LARGE.hash}"] = b"any"
    http.answer = answer
    assert client.result(LARGE) == b"any"
    assert not left
    assert warnings == []
    client.close()
