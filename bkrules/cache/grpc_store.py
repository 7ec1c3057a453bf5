"""The Remote Execution API's caches over gRPC, the client's side: Capabilities, ContentAddressableStorage, ActionCache
and ByteStream of one server.

Small blobs travel in batches, each below the limit of a message of any server, and large ones as streams, which continue
where they broke. Streams are compressed where the server and the interpreter can do that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from bkrules.cache import zstd
from bkrules.cache.breaker import BOTH, READ, WRITE, Breakable, Fault, Warn
from bkrules.cache.grpc_calls import IDLE, CallFailed, GrpcCalls
from bkrules.cache.http_store import ASK_FIRST, MOST_RESULT, UPLOAD_RATE, Receive
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import reapi
from bkrules.model.action import to_message
from bkrules.model.digest import Digest

SMALL = 64 << 10  # bytes; a larger blob is a stream
BATCH = 256 << 10  # bytes of the blobs of one batch
MOST_BATCH = (4 << 20) - (64 << 10)  # bytes of a batch that every server takes
CHUNK = 256 << 10  # bytes of one message of a stream
_MORE = 200  # bytes of a blob in a message, next to its content
_QUESTION = 5_000  # blobs of one question
_VERSION = 2  # of the API
_SHA256 = 1
_ZSTD = 1
_MESSAGES = 8  # messages and texts about one blob in an answer
_MOST_ABILITIES = 1000  # messages and numbers
_MOST_EMPTY = 16  # messages of a stream without a byte
_OK, _NOT_FOUND = 0, 5
_SERVICE = "/build.bazel.remote.execution.v2."
_STREAM = "/google.bytestream.ByteStream/"
_STORAGE = "ContentAddressableStorage"
_LACKS = "it lacks this blob"

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Abilities:
    """The abilities of a server: whether it stores results, the bytes of a batch, and the library for streams, if any."""

    stores: bool
    batch: int
    zstd: Any


class GrpcStore(Breakable):
    """The client of one server. Safe for several threads. Faults become misses, as `Breaker` describes."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._instance = options.instance
        super().__init__(options, warn)
        self._calls = GrpcCalls(options)
        self._lock = threading.Lock()
        self._known: _Abilities | str | None = None
        self._suspect: set[Digest] = set()

    def result(self, key: Digest) -> bytes | None:
        """Return the bytes of an action result from the server."""

        def get() -> bytes | None:
            self._abilities()
            try:
                data = self._ask("ActionCache/GetActionResult", action_digest=to_message(key))
            except CallFailed as error:
                if error.code == "NOT_FOUND":
                    return None
                raise error.fault(READ, lookup=True) from None
            if len(data) > MOST_RESULT:
                raise Fault(f"it sends more than {MOST_RESULT} bytes")
            return data

        return self._breaker.look_up(partial(self._attempt, READ, f"GetActionResult {key.hash}", get, None))

    def groups(self, names: Iterable[Digest]) -> list[list[Digest]]:
        """Return the blobs in groups, each for one call of `blobs` or `put_blobs`."""
        groups: list[list[Digest]] = []
        batch: list[Digest] = []
        size = 0
        for name in names:
            if name.size > SMALL:
                groups.append([name])
                continue
            if batch and size + name.size + _MORE > BATCH:
                groups.append(batch)
                batch, size = [], 0
            batch.append(name)
            size += name.size + _MORE
        return [*groups, batch] if batch else groups

    def blobs(self, names: Iterable[Digest], receive: Receive) -> set[Digest]:
        """Pass the bytes of blobs to `receive`, which raises ValueError when they do not match the digest. Return those
        that it accepted.
        """
        asked = list(names)
        is_stream = any(name.size > SMALL for name in asked)
        answers = {} if is_stream else self._batch(READ, "read", asked, partial(self._read_batch, asked))

        def read(name: Digest) -> None:
            answer = answers.get(name) if answers else None
            receive(name, self._pieces(name) if answer is None else iter([_content(answer)]))

        good = self._each(READ, "read", asked if answers is not None else (), read)
        with self._lock:
            self._suspect |= set(asked) - good
        return good

    def missing(self, names: Iterable[Digest]) -> set[Digest]:
        """Return the blobs that the server may lack. The answer may be wrong."""
        small = {name for name in names if name.size < ASK_FIRST}
        large = [name for name in names if name not in small]
        for start in range(0, len(large), _QUESTION):
            part = large[start : start + _QUESTION]
            what = f"FindMissingBlobs {part[0].hash}"
            small.update(self._attempt(WRITE, what, partial(self._find_missing, part), part))
        return small

    def put_blobs(self, paths: Mapping[Digest, str]) -> set[Digest]:
        """Store the bytes of files. Return the blobs that the server accepted.

        bazel-remote ignores the stream of a blob that it has lost without noticing, but not a batch with it.
        """
        is_stream = any(name.size > SMALL and name not in self._suspect for name in paths)
        answers = {} if is_stream else self._batch(WRITE, "write", list(paths), partial(self._write_batch, paths))

        def write(name: Digest) -> None:
            answer = answers.get(name) if answers else None
            if answer is None:
                self._upload(name, paths[name])
            else:
                _content(answer)

        return self._each(WRITE, "write", paths if answers is not None else (), write)

    def put_result(self, key: Digest, data: bytes) -> bool:
        """Store an action result whose blobs the server has."""

        def put() -> bool:
            self._storing()
            self._ask("ActionCache/UpdateActionResult", action_digest=to_message(key), action_result=data)
            return True

        return self._attempt(WRITE, f"UpdateActionResult {key.hash}", put, False)

    def close(self) -> None:
        """End the connection."""
        self._calls.close()

    def _batch(
        self, side: str, verb: str, names: list[Digest], call: Callable[[], dict[Digest, reapi.Message]]
    ) -> dict[Digest, reapi.Message] | None:
        """Return the answers of a batch; none of a blob that must be a stream. Return None after a fault."""
        if not names:
            return {}
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return self._attempt(side, f"{verb} {names[0].hash}{more}", call, None, ends_streak=False)

    def _each(self, side: str, verb: str, names: Iterable[Digest], call: Callable[[Digest], None]) -> set[Digest]:
        """Call for each blob. Return those without a fault."""

        def attempt(name: Digest) -> bool:
            call(name)
            return True

        return {name for name in names if self._attempt(side, f"{verb} {name.hash}", partial(attempt, name), False)}

    def _read_batch(self, names: list[Digest]) -> dict[Digest, reapi.Message]:
        size = sum(name.size + _MORE for name in names)
        if size > self._abilities().batch:
            return {}
        data = self._ask(f"{_STORAGE}/BatchReadBlobs", size, digests=[to_message(name) for name in names])
        return _by_digest(_decode("BatchReadBlobsResponse", data, len(names))["responses"])

    def _write_batch(self, paths: Mapping[Digest, str]) -> dict[Digest, reapi.Message]:
        if sum(name.size + _MORE for name in paths) > self._storing().batch:
            return {}
        requests = []
        for name, path in paths.items():
            with open(path, "rb") as file:
                requests.append({"digest": to_message(name), "data": file.read(name.size + 1)})
        data = self._ask(f"{_STORAGE}/BatchUpdateBlobs", requests=requests)
        return _by_digest(_decode("BatchUpdateBlobsResponse", data, len(paths))["responses"])

    def _find_missing(self, names: list[Digest]) -> list[Digest]:
        self._storing()
        data = self._ask(f"{_STORAGE}/FindMissingBlobs", blob_digests=[to_message(name) for name in names])
        answers = _decode("FindMissingBlobsResponse", data, len(names))["missing_blob_digests"]
        missing = {(answer["hash"], answer["size_bytes"]) for answer in answers}
        return [name for name in names if (name.hash, name.size) in missing]

    def _pieces(self, name: Digest) -> Iterator[bytes]:
        """Yield the bytes of a blob. A stream that breaks continues behind its last byte. Raises Fault."""
        library = self._abilities().zstd
        received = 0
        most = name.size + (name.size >> 4) + CHUNK  # of a zstd stream too, which can be endless and hold no bytes
        attempts = self._calls.attempts()

        def messages() -> Iterator[bytes]:
            request = {"resource_name": self._resource(name, library), "read_offset": received}
            empty = sent = 0
            for message in self._calls.read(f"{_STREAM}Read", reapi.encode("ReadRequest", request), attempts.left):
                data = reapi.decode("ReadResponse", message)["data"]
                empty += not data
                if empty > _MOST_EMPTY:
                    raise Fault("it sends messages without a byte")
                sent += len(data)
                if sent > most:
                    raise Fault(f"it sends more than {most} bytes for a blob of {name.size}")
                yield data

        while True:
            try:
                for piece in zstd.plain(library, messages()) if library else messages():
                    received += len(piece)
                    if received > name.size:
                        raise Fault(f"it sends more than {name.size} bytes")
                    yield piece
                return
            except CallFailed as error:
                if error.code == "NOT_FOUND":
                    raise Fault(_LACKS, lacks=True) from None
                attempts.pause(error)

    def _upload(self, name: Digest, path: str) -> None:
        """Send a file as a stream. One that breaks continues where the server has stored it; a compressed one restarts."""
        library = self._storing().zstd
        attempts = self._calls.attempts()
        resource, offset = self._new_resource(name, library), 0
        wait = IDLE + name.size / UPLOAD_RATE
        while True:
            try:
                messages = _messages(resource, path, offset, library)
                data = self._calls.write(f"{_STREAM}Write", messages, attempts.left, wait)
                break
            except CallFailed as error:
                if error.code == "ALREADY_EXISTS":
                    return
                attempts.pause(error)
            if library:
                resource = self._new_resource(name, library)
            else:
                offset = self._stored(resource, name.size)
        stored = reapi.decode("WriteResponse", data)["committed_size"]
        if not library and stored != name.size:  # of a compressed stream, the number says nothing
            raise Fault(f"it stored {stored} of {name.size} bytes")

    def _stored(self, resource: str, size: int) -> int:
        """Return how many bytes of an upload the server has, as it claims."""
        try:
            data = self._calls.ask(
                f"{_STREAM}QueryWriteStatus", reapi.encode("QueryWriteStatusRequest", {"resource_name": resource})
            )
        except CallFailed:
            return 0
        stored: int = reapi.decode("QueryWriteStatusResponse", data)["committed_size"]
        return stored if 0 <= stored <= size else 0

    def _resource(self, name: Digest, library: Any) -> str:
        kind = "compressed-blobs/zstd" if library else "blobs"
        return f"{self._instance}/{kind}/{name.hash}/{name.size}".removeprefix("/")

    def _new_resource(self, name: Digest, library: Any) -> str:
        prefix = f"{self._instance}/uploads/{uuid4()}/".removeprefix("/")
        return prefix + self._resource(name, library).removeprefix(f"{self._instance}/" if self._instance else "")

    def _ask(self, method: str, expected: int = 0, **fields: Any) -> bytes:
        """Return the answer to a request of the service whose name is that of the method and `Request`."""
        kind = f"{method.rpartition('/')[2]}Request"
        request = reapi.encode(kind, {"instance_name": self._instance, **fields})
        return self._calls.ask(_SERVICE + method, request, expected)

    def _attempt(self, side: str, what: str, call: Callable[[], _T], otherwise: _T, *, ends_streak: bool = True) -> _T:
        def attempt() -> _T:
            try:
                return call()
            except CallFailed as error:
                raise error.fault(side) from None

        return self._breaker.attempt(side, what, attempt, otherwise, ends_streak=ends_streak)

    def _storing(self) -> _Abilities:
        """Return the abilities of a server that stores results. Raises Fault for any other."""
        abilities = self._abilities()
        if not abilities.stores:
            what = "it takes no results from this client (--remote_upload_local_results=no asks it for none)"
            raise Fault(what, final=[WRITE])
        return abilities

    def _abilities(self) -> _Abilities:
        """Return the abilities of the server, which is asked once. Raises Fault for one that is no such cache."""
        with self._lock:
            if self._known is None:
                try:
                    self._known = self._ask_abilities()
                    self._breaker.answered()
                except (CallFailed, Fault, OSError, ValueError) as error:
                    self._known = str(error)
            if isinstance(self._known, str):
                instance = f" of the instance {self._instance!r}" if self._instance else ""
                raise Fault(f"GetCapabilities{instance}: {self._known}", final=BOTH)
            return self._known

    def _ask_abilities(self) -> _Abilities:
        answer = reapi.decode("ServerCapabilities", self._ask("Capabilities/GetCapabilities"), _MOST_ABILITIES)
        low, high = answer["low_api_version"], answer["high_api_version"]
        if (high and high["major"] < _VERSION) or (low and low["major"] > _VERSION):
            raise Fault(f"it does not speak version {_VERSION} of the Remote Execution API")
        cache = answer["cache_capabilities"]
        if cache is None:
            raise Fault("it is not a cache")
        if _SHA256 not in cache["digest_functions"]:
            raise Fault("it does not support SHA-256")
        updates = cache["action_cache_update_capabilities"]
        most = cache["max_batch_total_size_bytes"]
        return _Abilities(
            stores=bool(updates and updates["update_enabled"]),
            batch=min(MOST_BATCH, most) if most > 0 else MOST_BATCH,
            zstd=zstd.library() if _ZSTD in cache["supported_compressors"] else None,
        )


def _messages(resource: str, path: str, offset: int, library: Any) -> Iterator[bytes]:
    """Yield the messages of an upload, from a byte of the file to its end. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(offset)
        chunks = iter(partial(file.read, CHUNK), b"")
        message: reapi.Message = {"resource_name": resource, "write_offset": offset}
        for chunk in zstd.compressed(library, chunks) if library else chunks:
            yield reapi.encode("WriteRequest", {**message, "data": chunk})
            message = {"write_offset": message["write_offset"] + len(chunk)}
        yield reapi.encode("WriteRequest", {**message, "finish_write": True})


def _decode(kind: str, data: bytes, blobs: int) -> reapi.Message:
    """Return an answer about so many blobs. Raises ValueError, also for one about more: a message of 4 MiB can hold a
    million answers, which take hundreds of MiB.
    """
    return reapi.decode(kind, data, _MESSAGES * (blobs + 1))


def _by_digest(answers: list[reapi.Message]) -> dict[Digest, reapi.Message]:
    """Return the answers of a batch by their digests, which may be any texts."""
    named = [(answer["digest"], answer) for answer in answers if answer["digest"]]
    return {Digest(name["hash"], name["size_bytes"]): answer for name, answer in named}


def _content(answer: reapi.Message) -> bytes:
    """Return the bytes of an answer about a blob; none of a blob that was stored. Raises Fault."""
    status = answer["status"] or {"code": _OK}
    if status["code"] == _NOT_FOUND:
        raise Fault(_LACKS, lacks=True)
    if status["code"] != _OK:
        raise Fault(f"status {status['code']} of a blob in a batch")
    if answer.get("compressor"):
        raise Fault("it answers with an unsolicited compression")
    data: bytes = answer.get("data", b"")
    return data
