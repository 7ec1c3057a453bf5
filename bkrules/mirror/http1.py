"""Parsers for the HTTP/1.1 messages that pass the mirror proxy. They record what they parse, and choose the answers to cut.

They parse only what decides where a message ends, by RFC 9112, and copy no body. Ambiguous framing raises `Uncountable`, since two
parsers may disagree about it and count different requests.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from bkrules.mirror.faults import NEVER, MirrorFaults
from bkrules.mirror.record import CellMirror, Counted

MOST_HEAD = 1 << 16
"""The limit in bytes of a head, of a body's trailers, and of the line before a chunk."""

_TLS = b"\x16"
"""The first byte of a TLS handshake. A client that may fall back to HTTP tries TLS first."""
_CHUNKED, _UNTIL_CLOSE = -1, 1 << 62
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = re.compile(rb"(?:%b:[^\r\n\0]*\r\n)*" % _TOKEN)
_FRAMING = re.compile(rb"^(content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_REQUEST = re.compile(rb"(%b) ([^\s\0]+) HTTP/1\.([01])" % _TOKEN)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\0]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
# The end of a head or a line, or a lone line feed, which some parsers accept as the end of a line.
_HEAD_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_LINE_END = re.compile(rb"\r\n|\n")


class Uncountable(Exception):
    """The framing of a message is ambiguous; the text is the reason."""


class NotHttp(Uncountable):
    """A connection carries no HTTP from its first byte on, so the count stays complete when the proxy refuses it."""


class PendingRequest(NamedTuple):
    """A request that waits for its answer."""

    method: str
    path: str
    faults: MirrorFaults | None


class Kind(Enum):
    """The kind of a part of a connection: body, the end of a head, a piece of an unfinished head, or bytes between messages."""

    BODY = auto()
    HEAD = auto()
    PIECE = auto()
    BETWEEN = auto()


class Part(NamedTuple):
    """A part of the input, from `begin` to `end`. `head` is the head that it completes, without the empty line."""

    begin: int
    end: int
    kind: Kind
    head: bytes = b""


class MessageParser:
    """The messages in one direction of an HTTP/1.1 connection, in pieces of any size."""

    def __init__(self) -> None:
        self.opaque = False
        self._text = bytearray()
        self._wanted = self._head
        self._left = 0
        self._chunked = False
        self._trailers = 0

    @property
    def in_body(self) -> bool:
        """Whether the next byte belongs to a body."""
        return self._left > 0

    @property
    def unfinished(self) -> bytes:
        """The bytes of an unfinished head."""
        return bytes(self._text) if self._wanted == self._head else b""

    def begin(self, head: bytes) -> int:
        """Parse a head, without the empty line at its end. Return the size of its body in bytes, or one of the two constants."""
        raise NotImplementedError

    def ended(self) -> None:
        """Record that the current message has ended."""

    def feed(self, data: bytes) -> Iterator[Part]:
        """Yield the parts of `data`, in order. Raises Uncountable at the first byte that is in no part."""
        at = 0
        while at < len(data) and not self.opaque:
            before = at
            if self._left:
                at = min(len(data), at + self._left)
                self._left -= at - before
                yield Part(before, at, Kind.BODY)
                if not self._left:
                    self._body_ended()
                continue
            is_head = self._wanted == self._head
            text, at = self._gather(data, at, _HEAD_END if is_head else _LINE_END)
            if text is not None:
                self._wanted(text)
            kind = Kind.BETWEEN if not is_head else Kind.PIECE if text is None else Kind.HEAD
            yield Part(before, at, kind, text or b"")
        if at < len(data):
            yield Part(at, len(data), Kind.BETWEEN)

    def _gather(self, data: bytes, at: int, mark: re.Pattern[bytes]) -> tuple[bytes | None, int]:
        """Return the text before the next mark, and the place behind the mark; no text when there is no mark yet."""
        text = self._text
        had = len(text)
        text += data[at : at + MOST_HEAD - had]
        match = mark.search(text, max(0, had - 3))
        if match is None:
            if len(text) >= MOST_HEAD:
                raise Uncountable(f"a head or a line has more than {MOST_HEAD >> 10} KiB")
            return None, len(data)
        if match[0] == b"\n":
            raise Uncountable("a line feed has no carriage return before it")
        self._text = bytearray()
        return bytes(text[: match.start()]), at + match.end() - had

    def _head(self, text: bytes) -> None:
        size = self.begin(text)
        self._chunked = size == _CHUNKED
        self._left = 0 if self._chunked else size
        if self._chunked:
            self._wanted = self._chunk
        elif not size:
            self.ended()

    def _chunk(self, text: bytes) -> None:
        match = _CHUNK.fullmatch(text)
        if match is None:
            raise Uncountable(f"a chunk has the size {_shown(text)}")
        self._left = int(match[1], 16)
        if not self._left:
            self._trailers = 0
            self._wanted = self._trailer

    def _body_ended(self) -> None:
        if self._chunked:
            self._wanted = self._chunk_end
        else:
            self.ended()

    def _chunk_end(self, text: bytes) -> None:
        if text:
            raise Uncountable("a chunk is longer than its size")
        self._wanted = self._chunk

    def _trailer(self, text: bytes) -> None:
        self._trailers += len(text)
        if self._trailers > MOST_HEAD:
            raise Uncountable(f"trailers have more than {MOST_HEAD >> 10} KiB")
        if text:
            _check_fields(text + b"\r\n")
        else:
            self._chunked = False
            self._wanted = self._head
            self.ended()


class RequestParser(MessageParser):
    """The requests of a connection. `last` is the request whose head was parsed last."""

    last = PendingRequest("", "", None)

    def feed(self, data: bytes) -> Iterator[Part]:
        """Return the parts of `data`, in order. Raises NotHttp for a connection that begins with TLS, else as the base class."""
        if data[:1] == _TLS and not self.last.method and not self._text:
            raise NotHttp("it speaks TLS, and the mirror speaks HTTP")
        return super().feed(data)

    def begin(self, head: bytes) -> int:
        line, _, fields = (head + b"\r\n").partition(b"\r\n")
        match = _REQUEST.fullmatch(line)
        if match is None:
            raise Uncountable(f"it begins with {_shown(line)}")
        method = match[1].decode("ascii")
        if method == "CONNECT":
            raise Uncountable("it asks for a tunnel (CONNECT)")
        target = _ORIGIN.sub(b"", match[2], count=1).decode("latin-1")
        self.last = PendingRequest(method, target.partition("?")[0] or "/", None)
        size = _framing(fields, is_first_version=match[3] == b"0")
        return 0 if size == _UNTIL_CLOSE else size


class ResponseParser(MessageParser):
    """The answers of a connection, whose bodies depend on the requests that they answer."""

    def __init__(self, unanswered: deque[PendingRequest], cell: CellMirror) -> None:
        super().__init__()
        self.unanswered = unanswered
        self.cell = cell
        self.rate = 0
        self._counted: Counted | None = None
        self._faults: MirrorFaults | None = None
        self._reserved = False

    def begin(self, head: bytes) -> int:
        line, _, fields = (head + b"\r\n").partition(b"\r\n")
        match = _STATUS.fullmatch(line)
        if match is None:
            raise Uncountable(f"it begins with {_shown(line)}")
        status = int(match[2])
        _check_fields(fields)
        if 100 <= status < 200 and status != 101:
            return 0
        if not self.unanswered:
            raise Uncountable(f"there is no request for the status {status}")
        method, path, faults = self.unanswered.popleft()
        size = self._size(status, method, path, fields, is_first_version=match[1] == b"0")
        is_known = size not in (_CHUNKED, _UNTIL_CLOSE)
        self._counted = self.cell.add(method, path, status, size if is_known else None)
        self.rate = faults.bytes_per_second if faults else 0
        self._meet(faults, size if is_known else _UNTIL_CLOSE, is_known=is_known)
        return size

    def _size(self, status: int, method: str, path: str, fields: bytes, *, is_first_version: bool) -> int:
        if method == "HEAD" or status in (204, 304):
            return 0
        try:
            if status == 101:
                raise Uncountable("the connection switched to another protocol")
            return _framing(fields, is_first_version=is_first_version)
        except Uncountable as doubt:
            self.cell.add(method, path, status)
            raise Uncountable(f"{method} {path}, status {status}: {doubt}") from None

    def _meet(self, faults: MirrorFaults | None, size: int, *, is_known: bool) -> None:
        """Decide whether this answer is cut. An answer of unknown length meets the fault once it is long enough."""
        cut = faults is not None and faults.cuts(size) and not self.cell.spent()
        self._faults = faults if cut else None
        self._reserved = cut and is_known
        if self._reserved:
            self.cell.met += 1
            assert self._counted is not None
            self._counted.declared = None  # the number of bytes that pass counts

    def ended(self) -> None:
        self._counted = self._faults = None

    def take(self, data: bytes) -> int:
        """Count these bytes. Return how many may pass before the connection is reset, or NEVER. Raises Uncountable."""
        for begin, end, kind, _ in self.feed(data):
            counted, faults = self._counted, self._faults
            if kind is not Kind.BODY or counted is None:
                continue
            if faults is not None and counted.passed + end - begin > faults.reset_after and self._meets_now():
                begin += faults.reset_after - counted.passed
                counted.passed = faults.reset_after
                return begin
            counted.passed += end - begin
        return NEVER

    def _meets_now(self) -> bool:
        """Return whether to cut an answer that is long enough to be cut."""
        if self._reserved:
            return True
        if self.cell.spent():
            self._faults = None
            return False
        self.cell.met += 1
        return True

    def lost(self) -> None:
        """Record that the connection has ended, also within a message."""
        if self._counted is not None:
            self._counted.declared = None
        for method, path, _ in self.unanswered:
            self.cell.add(method, path, 0)
        self.unanswered.clear()


def _framing(fields: bytes, *, is_first_version: bool) -> int:
    """Return the size in bytes of the body that fields declare, or one of the two constants. Raises Uncountable."""
    _check_fields(fields)
    declared = [(name.lower(), value) for name, value in _FRAMING.findall(fields)]
    lengths = [value for name, value in declared if name == b"content-length"]
    codings = [value for name, value in declared if name == b"transfer-encoding"]
    if lengths and codings:
        raise Uncountable("it has both a Transfer-Encoding and a Content-Length")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or is_first_version:
            version = " in HTTP/1.0" if is_first_version else ""
            raise Uncountable(f"it has the Transfer-Encoding {_shown(b', '.join(codings))}{version}")
        return _CHUNKED
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        raise Uncountable(f"it has the Content-Length {_shown(b', '.join(lengths))}")
    return int(lengths[0]) if lengths else _UNTIL_CLOSE


def _check_fields(fields: bytes) -> None:
    if _FIELDS.fullmatch(fields) is None:
        raise Uncountable("it has a line that is no field")


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))
