"""The client of an engine: the Execution service of the Remote Execution API.

An operation outlives the stream that tells of it, so a stream that breaks or is silent is followed by another one. An engine
may keep an action in its queue for ever, and may tell nothing about it, so the client has the limits.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

from bkrules.cache.breaker import Fault
from bkrules.cache.grpc_calls import CallFailed, GrpcCalls
from bkrules.cache.grpc_turns import Turns
from bkrules.cache.remote_options import ABSENCE, ExecutorOptions
from bkrules.errors import Interrupted, RemoteFailed
from bkrules.model import reapi
from bkrules.model.action import to_message
from bkrules.model.digest import Digest

STREAMS = 50
"""The limit of streams of one connection; many servers and proxies have a limit of 100."""
SILENCE = 60.0
"""Seconds without a message after which the client asks for the operation again."""
MOST_BREAKS = 5
"""The limit of breaks of one operation; the sixth is the end."""
QUEUED, EXECUTING = "queued", "executing"
_STAGES = {1: QUEUED, 2: QUEUED, 3: EXECUTING, 4: EXECUTING}
_PASSING = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
"""Codes of a call or of an engine after which another attempt may end well."""
_GONE = ("DEADLINE_EXCEEDED", "UNAVAILABLE")
_FORGOTTEN = ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")
"""Codes of a server that does not know an operation any more."""
_LONGEST_PAUSE = 5.0
_PATIENCE = 20.0
_LONGEST_TEXT = 1000
_MOST_MESSAGES = 100_000
"""The limit of messages and texts in a message of an engine: four for an output of an action."""
_SERVICE = "/build.bazel.remote.execution.v2."


class Engine:
    """The client of one engine. Safe for several threads; operations of `options.jobs` are there at once."""

    def __init__(self, options: ExecutorOptions) -> None:
        self.address = options.server.address
        self.instance = options.server.instance
        self.queue_seconds = options.queue_seconds
        self.patience = min(options.server.timeout, _PATIENCE)
        self._all = [GrpcCalls(options.server) for _ in range(-(-options.jobs // STREAMS))]
        self._calls = itertools.cycle(self._all)
        self._room = threading.Semaphore(options.jobs)
        self._threads = options.threads
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.turns = Turns()
        self._asked = False
        self._lack = ""
        self._answered = 0.0

    def end(self) -> None:
        """Cancel all operations; no other begins."""
        self._over.set()
        self._room.release(self._threads)
        self.turns.end()
        for calls in self._all:
            calls.end()

    def close(self) -> None:
        """End the connections. There must be no operation under way."""
        for calls in self._all:
            calls.close()

    def execute(
        self, key: Digest, seconds: float, tell: Callable[[str], None], *, uncached: bool = False
    ) -> reapi.Message:
        """Run an action whose blobs the CAS has, when less than `options.jobs` are there. Return the ExecuteResponse, whose status
        is OK.

        `seconds` is the limit of its run, in addition to that of the queue; `tell` hears of its stages; `uncached` asks for a run
        in any case. Raises Interrupted, and RemoteFailed, whose reason is the name of a code for an engine that refuses this
        action: DEADLINE_EXCEEDED for one that took too long.
        """
        with self._room:
            self.wait(0)
            self._check()
            return _Operation(self, next(self._calls), key, seconds, tell, uncached=uncached).result()

    def _check(self) -> None:
        """Raise RemoteFailed for an engine that is none, or that has failed before. It is asked once."""
        with self._lock:
            if not self._asked:
                self._asked = True
                try:
                    self._lack = self._ask_lack()
                except (CallFailed, Fault, OSError, ValueError) as error:
                    self._lack = str(error)
            if self._lack:
                self.fail(self._lack)

    def _ask_lack(self) -> str:
        """Return why a server is no engine for this client; empty for none. Raises CallFailed and ValueError."""
        request = reapi.encode("GetCapabilitiesRequest", {"instance_name": self.instance})
        data = self._all[0].ask(f"{_SERVICE}Capabilities/GetCapabilities", request)
        execution = reapi.decode("ServerCapabilities", data)["execution_capabilities"]
        return "" if execution and execution["exec_enabled"] else "it runs no actions (its capabilities say so)"

    def fail(self, text: str, reason: str = "engine") -> NoReturn:
        """Raise RemoteFailed about this engine."""
        name = f"{self.address}, instance {self.instance!r}" if self.instance else self.address
        hint = "without --remote_executor, or with --remote_local_fallback, bk runs the actions here"
        raise RemoteFailed(reason, f"remote executor {name}: {text}", hint=hint)

    def is_there(self) -> bool:
        """Return whether the engine answers a question. casd does not answer WaitExecution before the operation ends."""
        try:
            self._ask_lack()
        except (CallFailed, Fault, OSError, ValueError):
            return False
        self.answered()
        return True

    def answered(self) -> None:
        """Note that the engine is there."""
        self._answered = time.monotonic()

    @property
    def may_return(self) -> bool:
        """Whether the engine has answered not long ago. Breaks in that time do not count."""
        return time.monotonic() - self._answered < ABSENCE if self._answered else False

    def give_up(self, text: str, began: float) -> NoReturn:
        """Raise RemoteFailed for an operation that broke too often. No other begins if nobody has an answer since `began`."""
        with self._lock:
            if self._answered < began:
                self._lack = text
        self.fail(text)

    def wait(self, seconds: float) -> None:
        """Wait. Raises Interrupted when the build ends."""
        if self._over.wait(seconds):
            raise Interrupted("interrupted", "the build was interrupted")


class _Operation:
    """One action on an engine, over all its streams."""

    def __init__(
        self,
        engine: Engine,
        calls: GrpcCalls,
        key: Digest,
        seconds: float,
        tell: Callable[[str], None],
        *,
        uncached: bool,
    ) -> None:
        self._engine, self._calls, self._tell = engine, calls, tell
        message = {"instance_name": engine.instance, "skip_cache_lookup": uncached, "action_digest": to_message(key)}
        self._request = reapi.encode("ExecuteRequest", message)
        self._began = time.monotonic()
        self._seconds = seconds
        self._name, self._stage = "", ""
        self._heard = False
        self._breaks = self._pauses = 0

    def result(self) -> reapi.Message:
        """Return the ExecuteResponse. Cancels the operation when it does not end in time, or when the build does."""
        try:
            while True:
                self._engine.wait(0)
                try:
                    with self._engine.turns.turn(self._left()):
                        self._engine.wait(0)
                        self._check_time()
                        return self._followed()
                except CallFailed as error:
                    self._after(error)
        except BaseException:
            self._cancel()
            raise

    def _followed(self) -> reapi.Message:
        """Follow a stream to its end. Return the response. Raises CallFailed when there may be another stream, else as `result`."""
        self._heard = False
        began = time.monotonic()
        for operation in self._messages():
            self._heard = True
            self._engine.answered()
            self._name = operation["name"] or self._name
            self._note(operation)
            if operation["done"]:
                self._engine.turns.moved()
                return self._ended(operation)
            self._check_time()
            self._engine.turns.check()
            if time.monotonic() - began > self._engine.turns.seconds:
                raise CallFailed("DEADLINE_EXCEEDED", "another operation has the next stream")
        raise CallFailed("UNAVAILABLE", "it ended a stream before the operation")

    def _messages(self) -> Iterator[reapi.Message]:
        method, request = "Execute", self._request
        if self._name:
            method, request = "WaitExecution", reapi.encode("WaitExecutionRequest", {"name": self._name})
        left = self._left()
        first, silence = min(self._engine.patience, left), min(SILENCE, left, self._engine.turns.seconds)
        name = f"{_SERVICE}Execution/{method}"
        for message in self._calls.read(name, request, left + SILENCE, first=first, idle=silence):
            yield self._decoded("Operation", message)

    def _decoded(self, kind: str, data: bytes) -> reapi.Message:
        """Return a message of the engine. Raises RemoteFailed for a malformed one, and for one that takes much memory."""
        try:
            return reapi.decode(kind, data, _MOST_MESSAGES)
        except ValueError as error:
            self._engine.fail(f"it sends no valid {kind}: {error}")

    def _note(self, operation: reapi.Message) -> None:
        metadata = operation["metadata"]
        if metadata and metadata["type_url"].endswith("ExecuteOperationMetadata"):
            stage = _STAGES.get(self._decoded("ExecuteOperationMetadata", metadata["value"])["stage"], "")
            if stage and stage != self._stage:
                self._stage = stage
                self._engine.turns.moved()
                self._tell(stage)

    def _left(self) -> float:
        """Return the seconds that are left: those of the queue where the engine tells of it, else those of the whole."""
        limit = self._engine.queue_seconds + (0 if self._stage == QUEUED else self._seconds)
        return max(self._began + limit - time.monotonic(), 0.001)

    def _check_time(self) -> None:
        """Raise RemoteFailed when the time of the operation is over."""
        waited = time.monotonic() - self._began
        if self._stage == QUEUED and waited >= self._engine.queue_seconds:
            text = f"the action was in the queue for {waited:.0f} s: no worker took it"
            self._fail(
                text,
                "is there a worker with its exec_properties? Its output says why it gave an action back\n"
                "--remote_queue_timeout=SECONDS is the limit",
            )
        if waited >= self._engine.queue_seconds + self._seconds:
            text = f"the action has not ended after {waited:.0f} s"
            self._fail(text, "the limits are --remote_queue_timeout=SECONDS and, for the run, the target's 'timeout'")

    def _fail(self, text: str, hint: str) -> NoReturn:
        raise RemoteFailed("engine-time", f"remote executor {self._engine.address}: {text}", hint=hint)

    def _ended(self, operation: reapi.Message) -> reapi.Message:
        """Return the response of an operation that is done. Raises CallFailed for another attempt, and RemoteFailed."""
        status, response = operation["error"], None
        if operation["response"] is not None:
            response = self._decoded("ExecuteResponse", operation["response"]["value"])
            status = response["status"]
        code = _code(status) if status else "OK"
        if code == "OK" and response is not None and response["result"] is not None:
            self._name = ""
            return response
        text = (status["message"] if status else "") or (response["message"] if response else "")
        shown = "".join(letter for letter in text[:_LONGEST_TEXT] if letter.isprintable() or letter == "\n")
        name, self._name = self._name, ""  # it has ended
        if code == "OK":
            self._engine.fail(f"the operation {name} has no result")
        if code == "DEADLINE_EXCEEDED":
            self._engine.fail(shown or f"status {code}", code)
        raise CallFailed(code, f"status {code}: {shown}" if shown else f"status {code}")

    def _after(self, error: CallFailed) -> None:
        """Wait for the next attempt, after a call that failed. Raises RemoteFailed when there is none."""
        self._engine.wait(0)
        self._check_time()
        if self._name and error.code == "DEADLINE_EXCEEDED" and (self._heard or self._engine.is_there()):
            return  # silence, which says nothing about the operation, or the turn of another one
        if self._name and error.code in _FORGOTTEN:
            self._name = ""
        elif error.code == "RESOURCE_EXHAUSTED":
            self._engine.turns.refused()
            self._pauses += 1
            self._pause(self._pauses)
            return
        elif error.code not in _PASSING:
            self._engine.fail(str(error), error.code)
        self._breaks += 1
        is_gone = error.code in _GONE and not self._heard and self._engine.may_return
        if self._breaks > MOST_BREAKS and not is_gone:
            self._engine.give_up(str(error), self._began if error.code in _GONE else 0)
        if self._breaks > MOST_BREAKS // 2:
            self._name = ""  # a new operation; engines join those of one action
        self._pause(self._breaks)

    def _pause(self, number: int) -> None:
        wait = min(0.2 * 2 ** (number - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        self._engine.wait(min(wait, self._left()))
        self._check_time()

    def _cancel(self) -> None:
        """Cancel the operation, if there is one. A server that does not answer keeps it."""
        if self._name:
            request = reapi.encode("CancelOperationRequest", {"name": self._name})
            with suppress(CallFailed):
                self._calls.ask("/google.longrunning.Operations/CancelOperation", request)
            self._name = ""


def _code(status: reapi.Message) -> str:
    """Return the name of a status's code."""
    import grpc

    names = {code.value[0]: code.name for code in grpc.StatusCode}
    name: str = names.get(status["code"], "UNKNOWN")
    return name
