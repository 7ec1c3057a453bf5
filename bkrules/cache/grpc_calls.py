"""Calls of a gRPC server, through grpcio: one message or a stream of them, each as bytes.

bk imports grpcio at the first call. bk starts processes while calls are under way. They execute a program, or call the
kernel and end, so none of them uses gRPC, and grpcio's handlers of forks stay off: these would wait for all calls.
"""

from __future__ import annotations

import base64
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bkrules.cache.breaker import BOTH, READ, WRITE, Fault
from bkrules.cache.credentials import request_headers

if TYPE_CHECKING:
    from bkrules.cache.remote_options import RemoteOptions

CONNECT = 3.0  # seconds for a connection
IDLE = 5.0  # seconds without a byte
SLOWEST = 64 << 10  # bytes a second: the least rate at which the bytes of a single message must pass
MOST_RECEIVED = (4 << 20) + (64 << 10)  # bytes of a message, which is an action result of 4 MiB at most
PAUSES = (0.1, 0.4)  # seconds before a call is repeated, about
PORTS = {"grpc": 80, "grpcs": 443}
REPEATED = ("UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED")
_PASSING = (*REPEATED, "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN")
"""Codes of a server that may answer later."""
_LONGEST_TEXT = 200
_SHORTEST_SECRET = 6
_REFUSALS = {
    "UNAUTHENTICATED": "it requires other credentials",
    "PERMISSION_DENIED": "not allowed",
    "UNIMPLEMENTED": "it does not support this request",
}
_NO_CONNECTION = ("failed to connect", "errors resolving", "Name resolution")
_CLOSED = "Socket closed"
_WORDS = {
    "Connection refused": "connection refused",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
    "Hostname Verification Check failed": "its certificate is for another name",
    "errors resolving": "its name has no address",
    "WRONG_VERSION_NUMBER": "TLS failed: it does not speak TLS",
}


class CallFailed(Exception):
    """A call that ended with a status other than OK. `code` is its name, such as `NOT_FOUND`."""

    def __init__(self, code: str, text: str, *, connected: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.connected = connected

    def fault(self, side: str, *, lookup: bool = False) -> Fault:
        """Return the fault that this is. `lookup`: a silent server would cost as much time for each further request."""
        passes = self.code in _PASSING
        if not self.connected or (lookup and self.code == "DEADLINE_EXCEEDED"):
            return Fault(str(self), final=BOTH, passes=passes)
        if self.code in _REFUSALS:
            return Fault(str(self), final=BOTH if side == READ else [WRITE])
        return Fault(str(self), passes=passes)


class Attempts:
    """The attempts of one request, in at most `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._pauses = iter(PAUSES)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(self._until - time.monotonic(), 0.001)

    def pause(self, error: CallFailed) -> None:
        """Wait for the next attempt. Raises `error` when it does not pass by itself, or when no attempt is left."""
        wait = next(self._pauses, math.inf) * random.uniform(0.5, 1.5)
        if error.code not in REPEATED or wait >= self.left:
            raise error
        time.sleep(wait)


@dataclass(frozen=True)
class Pending:
    """A call that waits for its answer."""

    _call: Any
    _errors: Callable[[], AbstractContextManager[None]]

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()

    def answer(self) -> bytes:
        """Return the answer, as soon as it is there. Raises CallFailed."""
        with self._errors():
            return _message(self._call.result())


class GrpcCalls:
    """The calls of one server. Safe for several threads. Raises CallFailed."""

    def __init__(self, options: RemoteOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._opened: tuple[Any, tuple[tuple[str, str], ...]] | None = None
        self._secrets: list[str] = []
        self._watch = _IdleWatch()

    def attempts(self) -> Attempts:
        """Return the attempts of one request, whose time begins now."""
        return Attempts(self._options.timeout)

    def ask(self, method: str, request: bytes, expected: int = 0) -> bytes:
        """Return the answer to one message. `expected` is in bytes, those of the answer."""
        channel, headers = self._open()
        attempts = self.attempts()
        while True:
            seconds = min(IDLE + (len(request) + expected) / SLOWEST, attempts.left)
            try:
                with self._errors(f"no answer in {seconds:.3g} s"):
                    return _message(channel.unary_unary(method)(request, timeout=seconds, metadata=headers))
            except CallFailed as error:
                attempts.pause(error)

    def begin(self, method: str, request: bytes, seconds: float, ended: Callable[[], None]) -> Pending:
        """Send one message once, and return at once. `ended` is called, in another thread, when there is an answer or an
        error, after `seconds` at the latest.
        """
        channel, headers = self._open()
        call = channel.unary_unary(method).future(request, timeout=seconds, metadata=headers)
        call.add_done_callback(lambda _call: ended())
        return Pending(call, partial(self._errors, f"no answer in {seconds:.3g} s"))

    def end(self) -> None:
        """Cancel all streams, and those to come."""
        self._watch.end()

    def read(
        self, method: str, request: bytes, left: float, *, first: float | None = None, idle: float | None = None
    ) -> Iterator[bytes]:
        """Yield the messages of an answer, for at most `left` seconds; the first one comes in `first` seconds, each other in
        `idle` seconds; by default IDLE for both.
        """
        channel, headers = self._open()
        with (
            self._watch.watching() as watched,
            self._errors(f"not there after {self._options.timeout:g} s", watched),
        ):
            call = watched.call = channel.unary_stream(method)(request, timeout=left, metadata=headers)
            try:
                watched.expect(IDLE if first is None else first)
                while True:
                    message = next(call, None)
                    watched.rest()
                    if message is None:
                        return
                    yield message
                    watched.expect(IDLE if idle is None else idle)
            finally:
                call.cancel()

    def write(self, method: str, messages: Iterator[bytes], left: float, wait: float) -> bytes:
        """Send messages, for at most `left` seconds, and return the answer, which takes at most `wait` seconds."""
        channel, headers = self._open()
        broken: list[Exception] = []

        def paced() -> Iterator[bytes]:
            try:
                for message in messages:
                    watched.expect(IDLE)
                    yield message
                watched.expect(wait)
            except (OSError, ValueError) as error:  # grpcio would print it
                broken.append(error)

        with self._watch.watching() as watched:
            try:
                with self._errors(f"not there after {self._options.timeout:g} s", watched):
                    watched.call = channel.stream_unary(method).future(paced(), timeout=left, metadata=headers)
                    return _message(watched.call.result())
            except CallFailed:
                if broken:
                    raise broken[0] from None
                raise
            finally:
                if watched.call is not None:
                    watched.call.cancel()

    def close(self) -> None:
        """End the connection, with all calls."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].close()
        self._watch.close()

    def _open(self) -> tuple[Any, tuple[tuple[str, str], ...]]:
        with self._lock:
            if self._opened is None:
                headers = request_headers(self._options)
                self._secrets = _secrets(headers)
                self._opened = _channel(self._options), tuple((name.lower(), value) for name, value in headers.items())
            return self._opened

    @contextmanager
    def _errors(self, late: str, watched: _Watched | None = None) -> Iterator[None]:
        """Turn errors of grpcio into CallFailed. `late` tells what a deadline that is over means."""
        import grpc

        try:
            yield
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if watched is not None and watched.is_idle:
                raise CallFailed("DEADLINE_EXCEEDED", f"no byte in {watched.seconds:g} s") from None
            if isinstance(error, grpc.FutureCancelledError):
                raise CallFailed("CANCELLED", "status CANCELLED") from None
            raise self._failure(error.code().name, error.details() or "", late) from None

    def _failure(self, code: str, details: str, late: str) -> CallFailed:
        connected = not (code == "UNAVAILABLE" and details.startswith(_NO_CONNECTION))
        known = next((words for part, words in _WORDS.items() if part in details), "")
        if code == "DEADLINE_EXCEEDED":
            return CallFailed(code, late)
        if not connected and _CLOSED in details and self._options.url.startswith("grpc:"):
            known = "it closes the connection: a server with TLS needs grpcs://"
        if code == "UNAVAILABLE" and known:
            return CallFailed(code, known, connected=connected)
        for secret in self._secrets:
            details = details.replace(secret, "***")
        shown = "".join(letter for letter in details[:_LONGEST_TEXT] if letter.isprintable())
        return CallFailed(
            code, ": ".join(filter(None, (f"status {code}", _REFUSALS.get(code), shown))), connected=connected
        )


def _message(answer: bytes | None) -> bytes:
    """Return the message of an answer. Raises CallFailed for none, which grpcio takes for an answer too."""
    if answer is None:
        raise CallFailed("INTERNAL", "its answer has no message")
    return answer


def _secrets(headers: dict[str, str]) -> list[str]:
    """Return the texts that a server could repeat in an error, the longest first. A short text is no secret."""
    texts = [text for value in headers.values() for text in (value, *value.split())]
    for text in texts[:]:
        with suppress(ValueError):
            texts.append(base64.b64decode(text, validate=True).decode().partition(":")[2])
    return sorted((text for text in texts if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)


def _channel(options: RemoteOptions) -> Any:
    """Return a channel of grpcio. Raises Fault."""
    from bkrules.web.errors import HttpError

    # grpcio reads both when it starts.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import grpc
    except ImportError as error:
        raise Fault(f"grpcio cannot be imported: {error}", final=BOTH) from error

    parts = urlsplit(options.address)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    settings: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MOST_RECEIVED),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # identity alone
        ("grpc.min_reconnect_backoff_ms", int(CONNECT * 1000)),  # which limits the time for a connection
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    target = f"dns:///{f'[{host}]' if ':' in host else host}:{port}"
    try:
        settings.append(_proxy(host, port))
        if parts.scheme == "grpc":
            return grpc.insecure_channel(target, settings)
        return grpc.secure_channel(target, _tls(options), settings)
    except (HttpError, OSError) as error:
        raise Fault(str(error), final=BOTH) from error


def _tls(options: RemoteOptions) -> Any:
    """Return the credentials of a channel, from files that were proven to be valid. Raises OSError."""
    import grpc

    from bkrules.web.trust import public_authorities, trust

    trust(options.certificate, options.client)()
    files = [options.certificate or public_authorities(), *reversed(options.client or ())]
    contents = []
    for path in files:
        with open(path, "rb") as file:
            contents.append(file.read())
    return grpc.ssl_channel_credentials(*contents)


def _proxy(host: str, port: int) -> tuple[str, int | str]:
    """Return the setting of a channel for its proxy, which is that of HTTPS, since each has to open a tunnel.

    Raises Unreachable for a proxy that is not one of HTTP.
    """
    from urllib.parse import quote

    from bkrules.web.errors import Unreachable
    from bkrules.web.proxies import Proxies

    proxy = Proxies().of("https", host, port)
    if proxy is None:
        return "grpc.enable_http_proxy", 0
    if proxy.scheme != "http":
        raise Unreachable(f"https_proxy names {proxy.url}: gRPC needs a proxy of http")
    user = f"{quote(proxy.user, safe='')}:{quote(proxy.password, safe='')}@" if proxy.authorization else ""
    return "grpc.http_proxy", proxy.url.replace("//", f"//{user}", 1)


class _Watched:
    """A call, and the moment until which its next byte must pass."""

    def __init__(self, changed: Callable[[_Watched], None]) -> None:
        self.call: Any = None
        self.until = math.inf
        self.seconds = math.inf
        self.is_idle = False
        self._changed = changed

    def expect(self, seconds: float) -> None:
        """Cancel the call when nothing passes in that time."""
        self.seconds, self.until = seconds, time.monotonic() + seconds
        self._changed(self)

    def rest(self) -> None:
        """Expect nothing, since bk is busy with what it has received."""
        self.until = math.inf


class _IdleWatch:
    """A thread that cancels calls for which no byte passes in time; grpcio knows only a deadline of the whole call."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: set[_Watched] = set()
        self._thread: threading.Thread | None = None
        self._wakes = 0.0
        self._is_closed = self._over = False

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()

    def end(self) -> None:
        """Cancel all calls, and those to come."""
        with self._condition:
            self._over = True
            for watched in self._calls:
                if watched.call is not None:
                    watched.call.cancel()

    @contextmanager
    def watching(self) -> Iterator[_Watched]:
        """Return a call that is watched in the context, as soon as it expects something."""
        watched = _Watched(self._expects)
        with self._condition:
            self._calls.add(watched)
        try:
            yield watched
        finally:
            with self._condition:
                self._calls.discard(watched)

    def _expects(self, watched: _Watched) -> None:
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="remote-idle", daemon=True)
                self._thread.start()
            elif watched.until < self._wakes:
                self._condition.notify()
            if self._over and watched.call is not None:
                watched.call.cancel()

    def _serve(self) -> None:
        with self._condition:
            while not self._is_closed:
                now = time.monotonic()
                for watched in self._calls:
                    if watched.until <= now and watched.call is not None:
                        watched.is_idle, watched.until = True, math.inf
                        watched.call.cancel()
                self._wakes = min((watched.until for watched in self._calls), default=math.inf)
                self._condition.wait(None if self._wakes == math.inf else max(self._wakes - now, 0.01))
