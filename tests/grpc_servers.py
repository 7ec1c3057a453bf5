"""A server of the Remote Execution API's caches in this process, which can be told to be wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from bkrules.model import digest, reapi

SERVICE = "/build.bazel.remote.execution.v2."
STREAM = "/google.bytestream.ByteStream/"
ABILITIES: reapi.Message = {
    "cache_capabilities": {"digest_functions": [1], "action_cache_update_capabilities": {"update_enabled": True}},
    "low_api_version": {"major": 2},
    "high_api_version": {"major": 2, "minor": 3},
}
Answer = Callable[[str, reapi.Message, Any], Any]


@dataclass
class GrpcServer:
    """What the server holds, by digest or upload, and the requests so far.

    `answer` may answer a request itself, with bytes, or with their iterator where the answer is a stream; None leaves it
    to the server.
    """

    address: str = ""
    results: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    abilities: reapi.Message = field(default_factory=lambda: dict(ABILITIES))
    requests: list[tuple[str, reapi.Message]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    answer: Answer = lambda _method, _message, _context: None
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """The address, as that of a bazel-remote."""
        return self.address

    def count(self, method: str) -> int:
        """How many requests of a method there were."""
        return sum(one == method for one, _ in self.requests)

    def unary(self, method: str, kind: str, data: bytes, context: Any) -> Any:
        """The answer to a message."""
        message = reapi.decode(kind, data)
        self.requests.append((method, message))
        self.metadata.append(dict(context.invocation_metadata()))
        found = self.answer(method, message, context)
        return found if found is not None else getattr(self, f"on_{method}")(message, context)

    def on_GetCapabilities(self, _message: reapi.Message, _context: Any) -> bytes:  # noqa: N802 - the API's names
        return reapi.encode("ServerCapabilities", self.abilities)

    def on_GetActionResult(self, message: reapi.Message, context: Any) -> bytes:  # noqa: N802
        name = message["action_digest"]["hash"]
        if name not in self.results:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such result")
        return self.results[name]

    def on_UpdateActionResult(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        data = reapi.encode("ActionResult", message["action_result"])
        self.results[message["action_digest"]["hash"]] = data
        return data

    def on_FindMissingBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        missing = [name for name in message["blob_digests"] if name["hash"] not in self.held]
        return reapi.encode("FindMissingBlobsResponse", {"missing_blob_digests": missing})

    def on_BatchUpdateBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        for item in message["requests"]:
            self.held[item["digest"]["hash"]] = item["data"]
        return reapi.encode(
            "BatchUpdateBlobsResponse", {"responses": [{"digest": item["digest"]} for item in message["requests"]]}
        )

    def on_BatchReadBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        responses = []
        for name in message["digests"]:
            found = self.held.get(name["hash"])
            status = {"code": 0} if found is not None else {"code": 5}
            responses.append({"digest": name, "data": found or b"", "status": status})
        return reapi.encode("BatchReadBlobsResponse", {"responses": responses})

    def on_Read(self, message: reapi.Message, context: Any) -> Iterator[bytes]:  # noqa: N802
        name = message["resource_name"].split("/")[-2]
        if name not in self.held:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        data = self.held[name][message["read_offset"] :]
        for start in range(0, len(data), 1 << 16):
            yield reapi.encode("ReadResponse", {"data": data[start : start + (1 << 16)]})

    def write(self, requests: Iterator[bytes], context: Any) -> bytes:
        """Store the messages of an upload."""
        resource = ""
        for data in requests:
            message = reapi.decode("WriteRequest", data)
            if message["resource_name"]:
                resource = message["resource_name"]
                self.requests.append(("Write", message))
                self.metadata.append(dict(context.invocation_metadata()))
            found = self.answer("Write", {**message, "resource_name": resource}, context)
            if found is not None:
                return bytes(found)
            kept = self.uploads.get(resource, b"")
            if message["write_offset"] != len(kept):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{len(kept)} bytes are here")
            self.uploads[resource] = kept + message["data"]
        data = self.uploads.pop(resource)
        self.held[digest.of_bytes(data).hash] = data
        return reapi.encode("WriteResponse", {"committed_size": len(data)})

    def on_Execute(self, _message: reapi.Message, context: Any) -> None:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "it is no engine")

    def on_WaitExecution(self, _message: reapi.Message, context: Any) -> None:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "it is no engine")

    def on_QueryWriteStatus(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        size = len(self.uploads.get(message["resource_name"], b""))
        return reapi.encode("QueryWriteStatusResponse", {"committed_size": size})

    def service(self, details: Any) -> Any:
        """The handler of a method, as grpcio asks for it."""
        method = details.method.rpartition("/")[2]
        if details.method == f"{STREAM}Write":
            return grpc.stream_unary_rpc_method_handler(self.write)
        if not details.method.startswith((SERVICE, STREAM)) or not hasattr(self, f"on_{method}"):
            return None

        def handle(data: bytes, context: Any) -> Any:
            return self.unary(method, f"{method}Request", data, context)

        if method in ("Read", "Execute", "WaitExecution"):
            return grpc.unary_stream_rpc_method_handler(handle)
        return grpc.unary_unary_rpc_method_handler(handle)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    def __init__(self, cache: GrpcServer) -> None:
        self._cache = cache

    def service(self, details: Any) -> Any:
        """The handler of a method."""
        return self._cache.service(details)


@contextmanager
def grpc_server(credentials: Any = None, **options: int) -> Iterator[GrpcServer]:
    """A server on a free port of the loopback, with options of grpcio such as `max_send_message_length`."""
    cache = GrpcServer()
    settings = {"max_send_message_length": -1, "so_reuseport": 0, **options}
    server = grpc.server(
        ThreadPoolExecutor(64),
        (_Handlers(cache),),
        options=[(f"grpc.{name}", value) for name, value in settings.items()],
    )
    if credentials is None:
        cache.address = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        cache.address = f"grpcs://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield cache
    finally:
        cache.stopped.set()
        server.stop(0).wait()
