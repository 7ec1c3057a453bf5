"""The client of a gRPC cache against a server in this process, which is wrong in every way that it can be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_servers import ABILITIES, GrpcServer, grpc_server
from remote_machines import KEY, SECRET, TOOL, WRONG_RESULTS, Make, flipped, maker, same
from servers import free_port, silent_server

from bkrules.cache import breaker, grpc_calls, grpc_store, zstd
from bkrules.cache.grpc_store import GrpcStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import RemoteFailed
from bkrules.model import digest, reapi
from bkrules.model.digest import Digest

TOOL_NAME = digest.of_bytes(TOOL)
LARGE = os.urandom(3 << 20)
SMALL_BATCH = 300  # bytes


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with grpc_server() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, server: GrpcServer) -> Make:
    """Makes machines, each with an empty disk cache."""
    return maker(tmp_path, server.address)


@pytest.fixture
def filled(machine: Make, server: GrpcServer) -> GrpcServer:
    """The server with a result of another machine."""
    first = machine()
    first.put()
    assert first.warnings == []
    server.requests.clear()
    return server


def store(server: GrpcServer, warnings: list[str], **options: object) -> GrpcStore:
    return GrpcStore(RemoteOptions(server.address, **options), warnings.append)  # type: ignore[arg-type]


def keep(kept: dict[Digest, bytes]) -> Callable[[Digest, Iterator[bytes]], None]:
    """Keep blobs whose bytes are right, as a disk cache does."""

    def receive(name: Digest, chunks: Iterator[bytes]) -> None:
        kept[name] = b"".join(digest.checked(name, chunks))

    return receive


def test_a_result_comes_from_another_machine_with_its_bytes(machine: Make, filled: GrpcServer) -> None:
    second = machine()

    assert same(second.ask(), second.result())
    assert second.actions.get(KEY) is not None, "it is not in the disk cache afterwards"
    assert second.warnings == []
    assert filled.count("GetCapabilities") == 1
    assert filled.count("BatchReadBlobs") == 2  # the Trees, and what they name
    assert filled.count("Read") == 1


def test_a_result_that_nobody_had_is_a_miss_without_a_word(machine: Make) -> None:
    one = machine()

    assert one.ask() is None
    assert one.warnings == []


def test_blobs_go_before_the_result_and_only_a_large_one_is_asked_for(machine: Make, filled: GrpcServer) -> None:
    machine().put()

    methods = [method for method, _ in filled.requests]
    assert methods == ["GetCapabilities", "FindMissingBlobs", "BatchUpdateBlobs", "UpdateActionResult"]
    assert [name["hash"] for name in filled.requests[1][1]["blob_digests"]] == [TOOL_NAME.hash]
    assert digest.EMPTY.hash not in filled.held


def test_a_reader_writes_nothing(machine: Make, server: GrpcServer) -> None:
    machine(upload=False).put()

    assert server.requests == []


def test_an_instance_is_in_every_request(machine: Make, server: GrpcServer) -> None:
    first, second = machine(instance="a/b"), machine(instance="a/b")
    first.put()

    assert same(second.ask(), second.result())
    assert first.warnings == second.warnings == []
    names = [str(message.get("instance_name", message.get("resource_name"))) for _, message in server.requests]
    assert {name[:4] for name in names} == {"a/b", "a/b/"}
    [read] = [message["resource_name"] for method, message in server.requests if method == "Read"]
    assert read == f"a/b/blobs/{TOOL_NAME.hash}/{TOOL_NAME.size}"


def test_groups_are_below_the_limit_of_a_message() -> None:
    warnings: list[str] = []
    asked = GrpcStore(RemoteOptions("grpc://host"), warnings.append)
    names = [Digest(f"{number:064x}", number * 97 % 100_000) for number in range(3000)]

    groups = asked.groups(names)

    assert sorted(name for group in groups for name in group) == sorted(names)
    assert max(sum(name.size for name in group) for group in groups if len(group) > 1) <= grpc_store.BATCH
    assert all(len(group) == 1 for group in groups if group[0].size > grpc_store.SMALL)
    assert len(groups) < len(names) / 2


@pytest.mark.parametrize("most", [SMALL_BATCH, 50_000])
def test_a_server_with_small_batches_gets_streams(machine: Make, server: GrpcServer, most: int) -> None:
    cache = {**ABILITIES["cache_capabilities"], "max_batch_total_size_bytes": most}
    server.abilities["cache_capabilities"] = cache
    first, second = machine(), machine()
    first.put()

    assert same(second.ask(), second.result())
    assert first.warnings == second.warnings == []
    for method, message in server.requests:
        names = [item["digest"] for item in message.get("requests", [])] + message.get("digests", [])
        assert sum(name["size_bytes"] for name in names) <= most, method
    assert (server.count("Write") > 1) == (most == SMALL_BATCH)


@pytest.mark.parametrize("size", [1, 5 << 20])
def test_streams_are_compressed_where_both_can(server: GrpcServer, tmp_path: Path, size: int) -> None:
    cache = {**ABILITIES["cache_capabilities"], "supported_compressors": [2, 1], "max_batch_total_size_bytes": 1}
    server.abilities["cache_capabilities"] = cache
    library = zstd.library()
    assert library is not None
    data = os.urandom(size // 2) + b"x" * (size - size // 2)
    name, path, kept, warnings = digest.of_bytes(data), tmp_path / "blob", {}, []  # type: ignore[var-annotated]
    path.write_bytes(data)

    one = store(server, warnings)
    assert one.put_blobs({name: str(path)}) == {name}
    [sent] = server.held.values()
    assert b"".join(zstd.plain(library, [sent])) == data
    server.held[name.hash] = sent

    assert one.blobs([name], keep(kept)) == {name}
    assert kept == {name: data}
    assert warnings == []
    assert all(
        "compressed-blobs/zstd/" in message["resource_name"]
        for message in (server.requests[1][1], server.requests[2][1])
    )


def refused(code: str, details: str = "no") -> Callable[[Any], None]:
    return lambda context: context.abort(getattr(grpc.StatusCode, code), details)


def read_response(data: bytes) -> bytes:
    return reapi.encode("ReadResponse", {"data": data})


def endless(data: bytes) -> Iterator[bytes]:
    while True:
        yield read_response(data)


def cut(context: Any) -> Iterator[bytes]:
    yield read_response(TOOL[:100])
    refused("DATA_LOSS")(context)


# What a server may say instead of the bytes of TOOL.
WRONG_BLOBS: dict[str, Callable[[Any], Any]] = {
    "deleted": refused("NOT_FOUND"),
    "altered": lambda _context: iter([read_response(flipped(TOOL))]),
    "short": lambda _context: iter([read_response(TOOL[:-1])]),
    "long": lambda _context: iter([read_response(TOOL + b"x")]),
    "nothing": lambda _context: iter(()),
    "endless": lambda _context: endless(bytes(1 << 16)),
    "without a byte": lambda _context: endless(b""),
    "no message": lambda _context: iter([b"\xff"]),
    "larger than any message": lambda _context: iter([read_response(bytes(5 << 20))]),
    "cut": cut,
    "error": refused("INTERNAL"),
    "busy": refused("RESOURCE_EXHAUSTED"),
    "away": refused("UNAVAILABLE"),
}


@pytest.mark.parametrize("wrong", WRONG_BLOBS)
def test_a_wrong_blob_is_a_miss_that_is_said_and_healed(machine: Make, filled: GrpcServer, wrong: str) -> None:
    filled.answer = lambda method, _message, context: WRONG_BLOBS[wrong](context) if method == "Read" else None
    second = machine()

    assert second.ask() is None
    assert len(second.warnings) == 1
    assert TOOL_NAME.hash in second.warnings[0]
    assert filled.address in second.warnings[0]
    assert not second.actions.cas.has(TOOL_NAME)
    assert not list(Path(second.actions.cas.root).rglob("*.tmp"))
    assert second.actions.get(KEY) is None

    second.put()  # it ran again

    assert filled.count("FindMissingBlobs") == 0, "a server that lost a blob may say that it has it"
    assert filled.count("Write") == 0, "a server that lost a blob may ignore its stream"
    assert filled.count("UpdateActionResult") == 1
    filled.answer = lambda _method, _message, _context: None
    assert same(machine().ask(), second.result())


def batch(**fields: object) -> Callable[[reapi.Message], bytes]:
    """An answer in which each blob of the batch has these fields."""

    def encode(message: reapi.Message) -> bytes:
        responses = [{"digest": name, **fields} for name in message["digests"]]
        return reapi.encode("BatchReadBlobsResponse", {"responses": responses})

    return encode


WRONG_BATCHES: dict[str, Callable[[reapi.Message], bytes]] = {
    "no message": lambda _message: b"\xff\xff",
    "lost": batch(status={"code": 5}),
    "failed": batch(status={"code": 13, "message": "x" * 1000}),
    "other bytes": batch(data=b"other"),
    "compressed": batch(data=b"other", compressor=1),
    "no bytes": batch(),
    "other blobs": lambda _message: reapi.encode(
        "BatchReadBlobsResponse",
        {"responses": [{"digest": {"hash": "../../x", "size_bytes": -1}, "data": b"x"}, {"data": b"y"}]},
    ),
}


@pytest.mark.parametrize("wrong", WRONG_BATCHES)
def test_a_wrong_batch_is_a_miss_or_a_stream(machine: Make, filled: GrpcServer, wrong: str) -> None:
    filled.answer = lambda method, message, _context: (
        WRONG_BATCHES[wrong](message) if method == "BatchReadBlobs" else None
    )
    second = machine()

    found = second.ask()

    if wrong == "other blobs":  # bk asks again for those that have no answer
        assert same(found, second.result())
        assert second.warnings == []
    else:
        assert found is None
        assert len(second.warnings) == 1


@pytest.mark.parametrize("wrong", WRONG_RESULTS)
def test_a_wrong_result_is_a_miss_that_is_said(machine: Make, server: GrpcServer, wrong: str) -> None:
    for path, data in WRONG_RESULTS[wrong]().items():
        (server.results if path.startswith("/ac/") else server.held)[path.rpartition("/")[2]] = data
    one = machine()
    began = time.monotonic()

    assert one.ask() is None

    assert time.monotonic() - began < 10
    assert len(one.warnings) == 1
    assert list(Path(one.actions.root).rglob("*")) == []


def cache(**fields: object) -> reapi.Message:
    return {**ABILITIES, "cache_capabilities": {**ABILITIES["cache_capabilities"], **fields}}


WRONG_ABILITIES: dict[str, tuple[reapi.Message, str]] = {
    "no cache": ({}, "not a cache"),
    "no SHA-256": (cache(digest_functions=[2, 9]), "does not support SHA-256"),
    "no digests at all": (cache(digest_functions=[]), "does not support SHA-256"),
    "another version": ({**ABILITIES, "low_api_version": {"major": 3}}, "does not speak version 2"),
    "an old version": ({**ABILITIES, "high_api_version": {"major": 1}}, "does not speak version 2"),
}


@pytest.mark.parametrize("wrong", WRONG_ABILITIES)
def test_a_server_that_is_no_such_cache_is_asked_once(machine: Make, server: GrpcServer, wrong: str) -> None:
    server.abilities, said = WRONG_ABILITIES[wrong]
    one = machine()

    assert [one.ask() for _ in range(10)] == [None] * 10
    one.put()

    assert [method for method, _ in server.requests] == ["GetCapabilities"]
    assert len(one.warnings) == 1
    assert said in one.warnings[0]


def test_a_wrong_instance_is_named(machine: Make, server: GrpcServer) -> None:
    server.answer = lambda _method, message, context: (
        refused("INVALID_ARGUMENT", "no instance of that name")(context) if message["instance_name"] == "x" else None
    )
    one = machine(instance="x", required=True)

    with pytest.raises(RemoteFailed) as caught:
        one.ask()

    assert "GetCapabilities of the instance 'x': status INVALID_ARGUMENT: no instance of that name" in str(caught.value)


def test_a_server_that_takes_no_results_is_read(machine: Make, filled: GrpcServer) -> None:
    filled.abilities = cache(action_cache_update_capabilities={"update_enabled": False})
    second = machine()

    second.put()
    second.put()

    assert [method for method, _ in filled.requests] == ["GetCapabilities"]
    assert len(second.warnings) == 1
    assert "it takes no results from this client" in second.warnings[0]
    assert machine().ask() is not None


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"])
def test_who_may_not_write_may_still_read(machine: Make, filled: GrpcServer, code: str) -> None:
    writes = ("FindMissingBlobs", "BatchUpdateBlobs", "UpdateActionResult")
    filled.answer = lambda method, _message, context: refused(code)(context) if method in writes else None
    second = machine()
    second.put()
    second.put()

    assert sum(filled.count(method) for method in writes) == 1
    assert second.ask() is not None
    assert len(second.warnings) == 1
    assert code in second.warnings[0]


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_who_may_not_read_asks_once(machine: Make, server: GrpcServer, code: str) -> None:
    server.answer = lambda method, _message, context: refused(code)(context) if method != "GetCapabilities" else None
    one = machine()

    assert [one.ask(), one.ask()] == [None, None]
    one.put()

    assert [method for method, _ in server.requests] == ["GetCapabilities", "GetActionResult"]


def test_a_server_that_lies_about_missing_blobs_is_healed(machine: Make, server: GrpcServer) -> None:
    """It claims to have all, takes the result, and cannot give the blob."""
    other = {"hash": "f" * 64, "size_bytes": 7}
    server.answer = lambda method, _message, _context: (
        reapi.encode("FindMissingBlobsResponse", {"missing_blob_digests": [other, {}]})
        if method == "FindMissingBlobs"
        else None
    )
    machine().put()
    assert TOOL_NAME.hash not in server.held
    second = machine()

    assert second.ask() is None
    second.put()

    assert TOOL_NAME.hash in server.held
    assert same(machine().ask(), second.result())


def test_a_stream_that_breaks_continues_behind_its_last_byte(server: GrpcServer) -> None:
    name, kept, warnings, offsets = digest.of_bytes(LARGE), {}, [], []  # type: ignore[var-annotated]
    server.held[name.hash] = LARGE

    def answer(method: str, message: reapi.Message, context: Any) -> Any:
        if method != "Read":
            return None
        offsets.append(message["read_offset"])

        def part() -> Iterator[bytes]:
            yield read_response(LARGE[message["read_offset"] :][: 1 << 20])
            if len(offsets) < 3:
                refused("UNAVAILABLE", "the server restarts")(context)
            yield read_response(LARGE[2 << 20 :][1 << 20 :])

        return part()

    server.answer = answer
    assert store(server, warnings).blobs([name], keep(kept)) == {name}
    assert kept == {name: LARGE}
    assert offsets == [0, 1 << 20, 2 << 20]
    assert warnings == []


def test_an_upload_that_breaks_continues_where_the_server_stored_it(server: GrpcServer, tmp_path: Path) -> None:
    name, path, warnings = digest.of_bytes(LARGE), tmp_path / "blob", []  # type: ignore[var-annotated]
    path.write_bytes(LARGE)
    broken: list[int] = []

    def answer(method: str, message: reapi.Message, context: Any) -> Any:
        if method == "Write" and message["write_offset"] >= 1 << 20 and len(broken) < 2:
            broken.append(message["write_offset"])
            refused("UNAVAILABLE", "the server restarts")(context)
        return None

    server.answer = answer
    assert store(server, warnings).put_blobs({name: str(path)}) == {name}
    assert server.held == {name.hash: LARGE}
    assert warnings == []
    starts = [message["write_offset"] for method, message in server.requests if method == "Write"]
    assert starts == [0, 1 << 20, 1 << 20]


@pytest.mark.parametrize("stored", [0, 1, len(LARGE) - 1, len(LARGE) + 1, -1])
def test_an_upload_that_the_server_stored_in_part_is_a_fault(server: GrpcServer, tmp_path: Path, stored: int) -> None:
    name, path, warnings = digest.of_bytes(LARGE), tmp_path / "blob", []  # type: ignore[var-annotated]
    path.write_bytes(LARGE)
    server.answer = lambda method, _message, _context: (
        reapi.encode("WriteResponse", {"committed_size": stored}) if method == "Write" else None
    )

    assert store(server, warnings).put_blobs({name: str(path)}) == set()
    assert f"it stored {stored} of {len(LARGE)} bytes" in warnings[0]


def test_a_file_that_cannot_be_read_is_a_fault(
    server: GrpcServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    warnings: list[str] = []
    one = store(server, warnings)
    for data in (b"small", LARGE):
        assert one.put_blobs({digest.of_bytes(data): str(tmp_path / "none")}) == set()
    assert "No such file" in warnings[0]
    assert capfd.readouterr().err == ""


def test_a_busy_server_is_asked_again(machine: Make, filled: GrpcServer) -> None:
    busy: dict[str, int] = {}

    def answer(method: str, _message: reapi.Message, context: Any) -> None:
        busy[method] = busy.get(method, 0) + 1
        if busy[method] < 3:
            refused("RESOURCE_EXHAUSTED" if busy[method] == 1 else "UNAVAILABLE")(context)

    filled.answer = answer
    second = machine()

    assert same(second.ask(), second.result())
    assert second.warnings == []
    assert busy["GetActionResult"] == 3


def test_a_server_that_keeps_failing_is_left_alone(machine: Make, server: GrpcServer) -> None:
    server.answer = lambda method, _message, context: (
        refused("INTERNAL")(context) if method != "GetCapabilities" else None
    )
    one = machine()

    for _ in range(3 * breaker.FAULTS):
        assert one.ask() is None

    assert server.count("GetActionResult") == breaker.FAULTS
    assert not one.remote.readable
    assert len(one.warnings) == 1


@pytest.mark.parametrize(
    ("slow", "required", "asked"), [(lambda _: True, False, 3), (lambda _: True, True, 9), (lambda n: n % 3, False, 9)]
)
def test_a_slow_server_is_asked_no_more_when_no_answer_is_quick(
    machine: Make,
    filled: GrpcServer,
    monkeypatch: pytest.MonkeyPatch,
    slow: Callable[[int], Any],
    required: bool,
    asked: int,
) -> None:
    """Each answer is right. The clock is that of the server, whose slow answers take six seconds."""
    clock = [0.0]
    monkeypatch.setattr(breaker, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def answer(method: str, _message: reapi.Message, _context: Any) -> None:
        if method == "GetActionResult":
            clock[0] += 6.0 if slow(filled.count(method)) else 0.5

    filled.answer = answer
    one = machine(required=required)

    found = [one.ask() for _ in range(9)]

    assert [same(each, one.result()) for each in found if each is not None] == [True] * asked
    assert filled.count("GetActionResult") == asked
    assert ["an answer takes 6.0 s" in line for line in one.warnings] == [True] * (asked == 3)
    assert one.remote.readable


def test_time_in_which_several_questions_wait_counts_once(machine: Make, filled: GrpcServer) -> None:
    """A hundred questions of six seconds at once are six seconds."""
    counted = breaker.Breaker(RemoteOptions(filled.address), pytest.fail)
    for _ in range(100):
        counted._time(0.0, 6.0)
    assert counted.look_up(lambda: "answer") == "answer"


def test_threads_send_a_blob_once(machine: Make, server: GrpcServer, tmp_path: Path) -> None:
    """The second thread sends what is its own, and waits for what the first one sends."""
    paths = {}
    for text in ("shared", "own"):
        (tmp_path / text).write_text(text)
        paths[digest.of_bytes(text.encode())] = str(tmp_path / text)
    shared, own = paths
    first_came, second_came = threading.Event(), threading.Event()

    def answer(method: str, message: reapi.Message, _context: Any) -> None:
        if method == "BatchUpdateBlobs":
            if message["requests"][0]["digest"]["hash"] == shared.hash:
                first_came.set()
                assert second_came.wait(60)
            else:
                second_came.set()

    server.answer = answer
    one = machine()
    good: list[bool] = []
    first = threading.Thread(target=lambda: good.append(one.remote.send({shared: paths[shared]})))
    first.start()
    assert first_came.wait(60)
    good.append(one.remote.send(paths))
    first.join()

    assert good == [True, True]
    sent = [message["requests"] for method, message in server.requests if method == "BatchUpdateBlobs"]
    assert [[item["digest"]["hash"] for item in items] for items in sent] == [[shared.hash], [own.hash]]


def test_all_threads_know_that_a_blob_was_refused(machine: Make, server: GrpcServer, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("blob")
    paths = {digest.of_bytes(b"blob"): str(tmp_path / "blob")}
    server.answer = lambda method, _message, context: (
        refused("INTERNAL")(context) if method == "BatchUpdateBlobs" else None
    )
    one = machine()

    assert [one.remote.send(paths), one.remote.send(paths)] == [False, False]


@pytest.mark.alone
def test_a_server_that_is_not_there_is_asked_once(machine: Make) -> None:
    one = machine(f"grpc://127.0.0.1:{free_port()}")
    began = time.monotonic()

    assert [one.ask() for _ in range(100)] == [None] * 100
    one.put()

    assert time.monotonic() - began < 3
    assert len(one.warnings) == 1
    assert "connection refused" in one.warnings[0]


@pytest.mark.alone
@pytest.mark.parametrize("at_once", [1, 16])
def test_a_silent_server_costs_one_wait(machine: Make, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(grpc_calls, "IDLE", 0.5)
    with silent_server() as url:
        one = machine(url.replace("http", "grpc"))
        began = time.monotonic()
        threads = [threading.Thread(target=one.ask) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(100):
            assert one.ask() is None
        one.put()

    assert 0.4 < time.monotonic() - began < 2
    assert len(one.warnings) == 1
    assert "no answer in 0.5 s" in one.warnings[0]


@pytest.mark.alone
@pytest.mark.parametrize("method", ["GetActionResult", "BatchReadBlobs", "Read"])
def test_a_server_that_becomes_silent_costs_an_idle_time(
    machine: Make, filled: GrpcServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(grpc_calls, "IDLE", 0.3)

    def silent() -> Iterator[bytes]:
        yield read_response(TOOL[:10])
        filled.stopped.wait()

    def answer(asked: str, _message: reapi.Message, _context: Any) -> Any:
        if asked != method:
            return None
        return silent() if method == "Read" else filled.stopped.wait()

    filled.answer = answer
    second = machine()
    began = time.monotonic()

    assert second.ask() is None
    assert time.monotonic() - began < 10
    assert len(second.warnings) == 1
    assert ("no byte in 0.3 s" if method == "Read" else "no answer in ") in second.warnings[0]


@pytest.mark.alone
def test_a_stream_that_drips_is_left_when_its_time_is_over(machine: Make, filled: GrpcServer) -> None:
    def drip() -> Iterator[bytes]:
        for byte in TOOL:
            yield read_response(bytes([byte]))
            time.sleep(0.02)

    filled.answer = lambda method, _message, _context: drip() if method == "Read" else None
    second = machine(timeout=0.6)
    began = time.monotonic()

    assert second.ask() is None
    assert time.monotonic() - began < 4
    assert "not there after 0.6 s" in second.warnings[0]


@pytest.mark.alone
def test_an_upload_that_nobody_reads_ends_after_an_idle_time(
    server: GrpcServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_calls, "IDLE", 0.3)
    path = tmp_path / "blob"
    path.write_bytes(LARGE * 20)
    warnings: list[str] = []
    server.answer = lambda method, _message, _context: server.stopped.wait() if method == "Write" else None
    name = digest.of_file(path)
    began = time.monotonic()

    assert store(server, warnings).put_blobs({name: str(path)}) == set()

    assert time.monotonic() - began < 5
    assert "no byte in 0.3 s" in warnings[0]


def test_the_wait_for_a_silent_server_is_a_few_seconds() -> None:
    assert grpc_calls.CONNECT + grpc_calls.IDLE <= 10


@pytest.mark.parametrize("way", ["header", "url", "netrc"])
def test_credentials_reach_the_server_and_no_warning(
    machine: Make, server: GrpcServer, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET if way == 'netrc' else 'another'}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    server.answer = lambda _method, _message, context: refused("INTERNAL", f"who is {SECRET} or {encoded}?\x1b[31m")(
        context
    )
    if way == "header":
        one = machine(headers=(("Authorization", f"Bearer {SECRET}"), ("X-Team", "a b")))
    else:
        one = machine(server.address.replace("//", f"//me:{SECRET}@") if way == "url" else "")

    one.ask()

    expected = f"Bearer {SECRET}" if way == "header" else f"Basic {encoded}"
    assert server.metadata[0]["authorization"] == expected
    assert server.metadata[0].get("x-team", "a b") == "a b"
    shown = one.warnings[0]
    assert SECRET not in shown
    assert encoded not in shown or way == "header"  # bk cannot know that it is a secret
    assert "\x1b" not in shown
    assert "status INTERNAL: who is" in shown


def test_a_header_that_cannot_be_sent_is_a_fault_without_its_value(machine: Make) -> None:
    one = machine(headers=(("X-Token", f"{SECRET}\n"),))
    assert one.ask() is None
    assert "Invalid metadata" in one.warnings[0]
    assert SECRET not in one.warnings[0]


def certificates(authority: Path) -> tuple[bytes, bytes, bytes]:
    return tuple((authority / name).read_bytes() for name in ("ca.pem", "server.key", "server.pem"))  # type: ignore[return-value]


def test_tls_and_the_clients_certificate(machine: Make, authority: Path, tmp_path: Path) -> None:
    ca, key, chain = certificates(authority)
    credentials = grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
    trusting = {"certificate": str(authority / "ca.pem")}
    files = (str(authority / "server.pem"), str(authority / "server.key"))
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with grpc_server(credentials) as server:
        good = machine(server.address, client=files, **trusting)
        good.put()
        assert same(machine(server.address, client=files, **trusting).ask(), good.result())
        assert good.warnings == []
        wrong: list[tuple[dict[str, object], str]] = [
            ({"client": files}, "its certificate is not trusted"),
            (dict(trusting), ""),  # the server ends the handshake, in many ways
            ({**trusting, "client": (str(broken), files[1])}, f"the client's certificate {broken} with the key"),
            ({**trusting, "client": (files[0], str(broken))}, f"with the key {broken} cannot be used"),
            ({"certificate": str(broken)}, f"the authorities {broken} cannot be read"),
        ]
        for options, said in wrong:
            one = machine(server.address, **options)
            assert [one.ask(), one.ask()] == [None, None]
            assert len(one.warnings) == 1
            assert said in one.warnings[0]
            assert not one.remote.readable
        plain = machine(server.address.replace("grpcs", "grpc"))
        assert plain.ask() is None
        other = machine(server.address.replace("127.0.0.1", "localhost"), client=files, **trusting)
        assert [other.ask(), other.ask()] == [None, None]
        assert len(other.warnings) == 1
        # `localhost` may have a second address, on which nobody listens.
        assert "its certificate is for another name" in other.warnings[0] or "refused" in other.warnings[0]


def test_tls_to_a_server_without_it_is_a_fault(machine: Make, server: GrpcServer) -> None:
    one = machine(server.address.replace("grpc", "grpcs"))
    assert one.ask() is None
    assert len(one.warnings) == 1


def test_a_proxy_opens_a_tunnel_and_the_loopback_has_none(
    machine: Make, server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peers import peer

    with peer(lambda connection, _head: connection.sendall(b"HTTP/1.1 403 no\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
        assert machine().ask() is None
        assert proxy.heads == []
        far = machine("grpc://cache.example.com:7")
        assert far.ask() is None
        assert proxy.heads[0].startswith("CONNECT cache.example.com:7 ")
        assert proxy.header("Proxy-Authorization")[0].startswith("Basic ")
        assert SECRET not in far.warnings[0]
        monkeypatch.setenv("HTTPS_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        other = machine("grpc://cache.example.com:7")
        assert other.ask() is None
        assert "gRPC needs a proxy of http" in other.warnings[0]


def test_a_required_cache_that_fails_is_an_error(machine: Make, server: GrpcServer) -> None:
    failing = ("GetActionResult", "UpdateActionResult")
    server.answer = lambda method, _message, context: refused("INTERNAL")(context) if method in failing else None
    one = machine(required=True)

    with pytest.raises(RemoteFailed) as caught:
        one.ask()
    one.actions.put(KEY, one.result())

    assert caught.value.reason == "remote-cache"
    assert "status INTERNAL" in caught.value.message
    assert "status INTERNAL" in one.remote.flush()


def test_sixteen_threads_get_the_right_bytes(server: GrpcServer) -> None:
    blobs = {digest.of_bytes(data): data for data in (os.urandom(number * 977 % 90_000 + 1) for number in range(400))}
    server.held |= {name.hash: data for name, data in blobs.items()}
    warnings: list[str] = []
    one, kept = store(server, warnings), {}  # type: ignore[var-annotated]
    groups = one.groups(blobs)
    threads = [
        threading.Thread(target=lambda part=part: [one.blobs(group, keep(kept)) for group in part])
        for part in (groups[start::16] for start in range(16))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert kept == blobs
    assert warnings == []


def test_a_process_that_forks_while_calls_are_under_way_continues(server: GrpcServer, tmp_path: Path) -> None:
    """As bk does: for the zygote, for commands, and for its trial of namespaces."""
    server.held = {digest.of_bytes(LARGE).hash: LARGE}
    script = tmp_path / "forks.py"
    script.write_text(f"""
import os, subprocess, sys, threading
from bkrules.cache.grpc_store import GrpcStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest
name = digest.Digest("{digest.of_bytes(LARGE).hash}", {len(LARGE)})
store = GrpcStore(RemoteOptions("{server.address}"), lambda line: sys.exit(line))
done = []
def read():
    for _ in range(10):
        store.blobs([name], lambda one, chunks: done.append(digest.of_chunks(chunks)))
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads: thread.start()
for _ in range(30):
    subprocess.run(["true"], check=True)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
for thread in threads: thread.join()
assert done == [name] * 40, done
print("done")
""")
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert done.stderr == ""
