"""An engine of the Remote Execution API that runs nothing: its slots sleep for as long as the actions of a cluster take.

    python tests/simulated_engine.py '{"slots": 200, "mean": 3.0}'

It prints its port, serves until its standard input ends, and prints what its slots did, as JSON. Slots come one by one, in a
Poisson process, and each lives for an exponential time, after which another one takes its place. Durations are
log-normal, and a few actions are stragglers. Each output of an action is a file with the action's digest; a cell passes.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import grpc.aio

from bkrules.execution.layout import RESULT
from bkrules.model import digest, reapi
from bkrules.model.action import to_message

FOLDER = "test.outputs"
"""The output of a cell that is a folder."""
_QUEUED, _EXECUTING, _COMPLETED = 2, 3, 4
_TYPES = "type.googleapis.com/build.bazel.remote.execution.v2."
_ABORTED = 10
_STORAGE = ("FindMissingBlobs", "BatchUpdateBlobs", "BatchReadBlobs", "GetActionResult")
_ABILITIES: reapi.Message = {
    "cache_capabilities": {"digest_functions": [1], "action_cache_update_capabilities": {"update_enabled": True}},
    "execution_capabilities": {"digest_function": 1, "exec_enabled": True},
    "low_api_version": {"major": 2},
    "high_api_version": {"major": 2, "minor": 3},
}


@dataclass(frozen=True)
class Cluster:
    """The cluster that is simulated. Times are in seconds.

    `mean` is of the durations, whose logarithms have the deviation `spread`; the share `stragglers` of the actions takes
    ten times as long. All `slots` are there after `arrival` or so, and each lives for `life` on average. `trip` is the
    round trip of a call. Of so many calls of the storage, one has no answer; 0: each has one.
    """

    slots: int = 200
    mean: float = 3.0
    spread: float = 0.8
    stragglers: float = 0.01
    arrival: float = 10.0
    life: float = 300.0
    trip: float = 0.02
    unanswered: int = 0
    seed: int = 1

    def duration(self, chance: random.Random) -> float:
        """The seconds of an action."""
        ordinary = self.mean / (1 + 9 * self.stragglers)
        factor = 10 if chance.random() < self.stragglers else 1
        return factor * chance.lognormvariate(math.log(ordinary) - self.spread**2 / 2, self.spread)


@dataclass
class Story:
    """What the slots did, from the first action until the last one began: a client cannot fill slots with what is not there.

    `there` and `busy` are seconds of slots, `first` and `last` are moments of the system's monotonic clock.
    """

    began: int = 0
    ended: int = 0
    lost: int = 0
    unanswered: int = 0
    requests: int = 0
    most_operations: int = 0
    first: float = 0.0
    last: float = 0.0
    there: float = 0.0
    busy: float = 0.0


@dataclass
class Operation:
    """An action in the engine, and those that follow it."""

    name: str
    action: reapi.Message
    stage: int = _QUEUED
    answer: bytes = b""
    broken: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def tell(self, stage: int, answer: bytes = b"", *, breaks: bool = False) -> None:
        """Tell all followers; `breaks` ends their streams."""
        async with self.changed:
            self.stage, self.answer = stage, answer
            self.broken += breaks
            self.changed.notify_all()

    def message(self) -> bytes:
        """The message about it."""
        metadata = reapi.encode("ExecuteOperationMetadata", {"stage": self.stage, "action_digest": self.action})
        message: reapi.Message = {
            "name": self.name,
            "metadata": {"type_url": f"{_TYPES}ExecuteOperationMetadata", "value": metadata},
        }
        if self.answer:
            answer = {"type_url": f"{_TYPES}ExecuteResponse", "value": self.answer}
            message |= {"done": True, "response": answer}
        return reapi.encode("Operation", message)


class Engine(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    """The engine, its storage and its action cache, all of them in the memory of this process."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.story = Story()
        self._chance = random.Random(cluster.seed)
        self._held: dict[str, bytes] = {}
        self._results: dict[str, bytes] = {}
        self._operations: dict[str, Operation] = {}
        self._queue: deque[Operation] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seen: set[str] = set()
        self._there = self._busy = self._open = self._stored = 0
        self._at = 0.0
        self._sums = [0.0, 0.0]

    def service(self, details: Any) -> Any:
        """The handler of a method, as grpcio asks for it."""
        name = details.method.rpartition("/")[2]
        if name == "Write":
            return grpc.stream_unary_rpc_method_handler(self._write)
        method = getattr(self, f"_on_{name}", None)
        if method is None:
            return None
        if name in ("Execute", "WaitExecution", "Read"):
            return grpc.unary_stream_rpc_method_handler(method)

        async def handle(data: bytes, context: Any) -> bytes:
            self.story.requests += 1
            self._stored += name in _STORAGE
            if self.cluster.unanswered and name in _STORAGE and not self._stored % self.cluster.unanswered:
                self.story.unanswered += 1
                await asyncio.Event().wait()  # until the client has cancelled the call
            await asyncio.sleep(self.cluster.trip)
            return bytes(await method(reapi.decode(f"{name}Request", data, 1_000_000), context))

        return grpc.unary_unary_rpc_method_handler(handle)

    async def run_slots(self) -> None:
        """Let all slots come, one after the other."""
        slots = []
        for _ in range(self.cluster.slots):
            slots.append(asyncio.create_task(self._run_slot()))
            await asyncio.sleep(self._chance.expovariate(self.cluster.slots / self.cluster.arrival))
        await asyncio.gather(*slots)

    async def _run_slot(self) -> None:
        while True:
            dies = time.monotonic() + self._chance.expovariate(1 / self.cluster.life)
            self._count(there=1)
            while (operation := await self._next(dies)) is not None:
                self._count(busy=1)
                await operation.tell(_EXECUTING)
                seconds = self.cluster.duration(self._chance)
                left = dies - time.monotonic()
                await asyncio.sleep(min(seconds, left))
                self._count(busy=-1)
                if seconds > left:
                    await self._lose(operation)
                    break
                await self._end(operation)
            self._count(there=-1)
            await asyncio.sleep(self._chance.expovariate(self.cluster.slots / self.cluster.arrival))

    async def _next(self, until: float) -> Operation | None:
        """The next action of the queue; None for a slot that is gone before there is one."""
        while not self._queue:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await asyncio.wait_for(waiter, max(until - time.monotonic(), 0.001))
            except TimeoutError:
                return None
        operation = self._queue.popleft()
        if operation.name not in self._seen:
            self._seen.add(operation.name)
            self._count()
            self.story.began += 1
            self.story.last = self._at
            self.story.there, self.story.busy = self._sums
        return operation

    def _enter(self, operation: Operation) -> None:
        self._queue.append(operation)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _count(self, there: int = 0, busy: int = 0) -> None:
        """Add up the seconds of slots until now, from the first action on."""
        now = time.monotonic()
        if self.story.first:
            self._sums[0] += self._there * (now - self._at)
            self._sums[1] += self._busy * (now - self._at)
        self._at = now
        self._there += there
        self._busy += busy

    async def _lose(self, operation: Operation) -> None:
        """End an action whose slot is gone, in one of three ways of engines: it runs again, with or without a break of its
        stream, or the client has to ask again.
        """
        self.story.lost += 1
        way = self._chance.randrange(3)
        if way == 0:
            status = {"status": {"code": _ABORTED, "message": "the worker is gone"}}
            del self._operations[operation.name]
            self._open -= 1
            await operation.tell(_COMPLETED, reapi.encode("ExecuteResponse", status))
            return
        await operation.tell(_QUEUED, breaks=way == 1)
        self._enter(operation)

    async def _end(self, operation: Operation) -> None:
        action = reapi.decode("Action", self._held[operation.action["hash"]])
        command = reapi.decode("Command", self._held[action["command_digest"]["hash"]])
        files, folders = [], []
        for path in command["output_paths"]:
            name = path.rpartition("/")[2]
            if name == FOLDER:
                tree, root = self._hold(reapi.encode("Tree", {"root": {}})), self._hold(b"")
                folders.append({"path": path, "tree_digest": tree, "root_directory_digest": root})
            else:
                data = b'{"status": "passed"}' if name == RESULT else operation.action["hash"].encode()
                files.append({"path": path, "digest": self._hold(data)})
        outputs = {"output_files": files, "output_directories": folders, "execution_metadata": {"worker": "simulated"}}
        result = reapi.encode("ActionResult", outputs)
        self._results[operation.action["hash"]] = result
        self.story.ended += 1
        await operation.tell(_COMPLETED, reapi.encode("ExecuteResponse", {"result": result}))
        self._open -= 1

    def _hold(self, data: bytes) -> reapi.Message:
        name = digest.of_bytes(data)
        self._held[name.hash] = data
        return to_message(name)

    async def _on_Execute(self, data: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802 - the API's names
        self.story.requests += 1
        await asyncio.sleep(self.cluster.trip)
        name = reapi.decode("ExecuteRequest", data)["action_digest"]
        operation = self._operations.get(name["hash"])
        if operation is None:
            if name["hash"] not in self._held:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the storage lacks the action")
            operation = self._operations[name["hash"]] = Operation(name["hash"], name)
            self._count()
            self.story.first = self.story.first or self._at
            self._open += 1
            self.story.most_operations = max(self.story.most_operations, self._open)
            self._enter(operation)
        async for message in self._follow(operation, context):
            yield message

    async def _on_WaitExecution(self, data: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802
        self.story.requests += 1
        await asyncio.sleep(self.cluster.trip)
        operation = self._operations.get(reapi.decode("WaitExecutionRequest", data)["name"])
        if operation is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such operation")
            return
        async for message in self._follow(operation, context):
            yield message

    async def _follow(self, operation: Operation, context: Any) -> AsyncIterator[bytes]:
        shown, breaks = 0, operation.broken
        while True:
            if operation.stage != shown:
                shown = operation.stage
                yield operation.message()
                if operation.answer:
                    return
            async with operation.changed:
                while operation.stage == shown and operation.broken == breaks:
                    await operation.changed.wait()
            if operation.broken != breaks:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream breaks")

    async def _on_CancelOperation(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        operation = self._operations.get(message["name"])
        if operation is not None and operation in self._queue:
            self._queue.remove(operation)
            del self._operations[operation.name]
            self._open -= 1
        return b""

    async def _on_GetCapabilities(self, _message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        return reapi.encode("ServerCapabilities", _ABILITIES)

    async def _on_GetActionResult(self, message: reapi.Message, context: Any) -> bytes:  # noqa: N802
        result = self._results.get(message["action_digest"]["hash"])
        if result is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such result")
        return result or b""

    async def _on_FindMissingBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        missing = [name for name in message["blob_digests"] if name["hash"] not in self._held]
        return reapi.encode("FindMissingBlobsResponse", {"missing_blob_digests": missing})

    async def _on_BatchUpdateBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        for item in message["requests"]:
            self._held[item["digest"]["hash"]] = item["data"]
        answers = [{"digest": item["digest"]} for item in message["requests"]]
        return reapi.encode("BatchUpdateBlobsResponse", {"responses": answers})

    async def _on_BatchReadBlobs(self, message: reapi.Message, _context: Any) -> bytes:  # noqa: N802
        answers = [{"digest": name, "data": self._held[name["hash"]]} for name in message["digests"]]
        return reapi.encode("BatchReadBlobsResponse", {"responses": answers})

    async def _write(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        self.story.requests += 1
        await asyncio.sleep(self.cluster.trip)
        data = b"".join([reapi.decode("WriteRequest", request)["data"] async for request in requests])
        self._held[digest.of_bytes(data).hash] = data
        return reapi.encode("WriteResponse", {"committed_size": len(data)})


async def serve(cluster: Cluster) -> Story:
    """Serve until the standard input ends."""
    engine = Engine(cluster)
    server = grpc.aio.server(handlers=(engine,), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    slots = asyncio.create_task(engine.run_slots())
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    slots.cancel()
    await server.stop(0)
    return engine.story


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(serve(Cluster(**json.loads(sys.argv[1])))))))
