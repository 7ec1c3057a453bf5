"""What passes the mirror's door: requests and answers as HTTP/1.1 frames them, the record of them, and which of them meet faults.

Only what decides where a message ends is parsed, by RFC 9112, without a copy of any body. What leaves the least doubt about that
raises `Uncountable`: two parsers that disagree would count different things.
"""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from bkrules.mirror.faults import NEVER, MirrorFaults

OWN = "/_bk/"
COUNTS = f"{OWN}requests"
BEGIN_FAULTS, END_FAULTS = f"{OWN}faults/begin", f"{OWN}faults/end"
MOST_HEAD = 1 << 16
"""The most bytes that a head, the trailers of a body, or the line before a chunk may have."""
MOST_RECORD = 1 << 25
"""The most bytes that the record of one cell takes."""

_TLS = b"\x16"
"""The first byte of a TLS handshake. A client that may fall back to HTTP sends one first."""
_CHUNKED, _UNTIL_CLOSE = -1, 1 << 62
_RECORD_OVERHEAD = 256
_MOST_REASONS = 16
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = re.compile(rb"(?:%b:[^\r\n\0]*\r\n)*" % _TOKEN)
_FRAMING = re.compile(rb"^(content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_REQUEST = re.compile(rb"(%b) ([^\s\0]+) HTTP/1\.([01])" % _TOKEN)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\0]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
# Where a head or a line ends, or a line feed stands alone, which some parsers take for the end of a line.
_HEAD_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_LINE_END = re.compile(rb"\r\n|\n")


class Uncountable(Exception):
    """Bytes of which nobody can tell for certain what they are; the text is the reason."""


class NotHttp(Uncountable):
    """A connection carries no HTTP from its first byte on, so refusing it leaves no count incomplete."""


@dataclass(frozen=True)
class MirrorRequest:
    """One request that a cell made to its mirror; `path` is without its query, `body_bytes` the length of the answer's body.

    `body_bytes` is what has passed so far for an answer that does not declare a length, and what passed for an answer whose
    connection ended within its body. `status` is 0 when the connection ended before an answer.
    """

    method: str
    path: str
    status: int
    body_bytes: int


@dataclass
class Counted:
    """A request in the record. `declared` is the length of the answer's body, None while only `passed` is known."""

    method: str
    path: str
    status: int
    declared: int | None = 0
    passed: int = 0

    def request(self) -> MirrorRequest:
        """The request as a test sees it."""
        size = self.passed if self.declared is None else self.declared
        return MirrorRequest(self.method, self.path, self.status, size)


@dataclass
class Room:
    """What the door keeps for one cell. `busy_until` is when a slowed mirror has sent what it has sent.

    `uncounted` are the reasons why `record` lacks something.
    """

    target: str
    listener: socket.socket
    faults: MirrorFaults | None = None
    record: list[Counted] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    faulty: bool = False
    met: int = 0
    busy_until: float = 0.0
    _recorded: int = 0

    def add(self, method: str, path: str, status: int, declared: int | None = 0) -> Counted:
        """Record a request; its record. A cell that makes too many of them is no longer counted."""
        one = Counted(method, path, status, declared)
        self._recorded += _RECORD_OVERHEAD + len(path)
        if self._recorded <= MOST_RECORD:
            self.record.append(one)
        else:
            self.doubt(f"the record of {len(self.record)} requests has reached its limit of {MOST_RECORD >> 20} MiB")
        return one

    def doubt(self, reason: str) -> None:
        """Note why something is not counted."""
        if reason not in self.uncounted and len(self.uncounted) < _MOST_REASONS:
            self.uncounted.append(reason)

    def meets(self, path: str) -> MirrorFaults | None:
        """The faults that a request for this path meets."""
        faults = self.faults
        return faults if faults is not None and self.faulty and not self.spent() and faults.concern(path) else None

    def spent(self) -> bool:
        """Whether as many requests have met the faults as should."""
        return self.faults is not None and 0 < self.faults.times <= self.met

    def begin(self) -> None:
        """Let the faults begin, and count from here."""
        self.faulty, self.met = True, 0


class Asked(NamedTuple):
    """A request that waits for its answer."""

    method: str
    path: str
    faults: MirrorFaults | None


class Kind(Enum):
    """What a part of a connection's bytes is: of a body, the end of a head, a piece of an unfinished head, or none of these."""

    BODY = auto()
    HEAD = auto()
    PIECE = auto()
    BETWEEN = auto()


class Part(NamedTuple):
    """A part of the bytes that were fed, from `begin` to `end`. `head` is the head that it completes, without the empty line."""

    begin: int
    end: int
    kind: Kind
    head: bytes = b""


class Messages:
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
        """Whether the next byte is one of a body."""
        return self._left > 0

    @property
    def held(self) -> bytes:
        """The part of a head that has been fed, when it has not ended yet."""
        return bytes(self._text) if self._wanted == self._head else b""

    def begin(self, head: bytes) -> int:
        """Take note of a head without the empty line at its end; the bytes of its body, or one of the two constants."""
        raise NotImplementedError

    def ended(self) -> None:
        """Take note that the message whose head was last has ended."""

    def feed(self, data: bytes) -> Iterator[Part]:
        """The parts of `data`, in order. Raises Uncountable; what was not in a part before it is not understood."""
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
        """The text before the next mark, and where what follows it begins; no text while there is no mark."""
        text = self._text
        had = len(text)
        room = MOST_HEAD - had
        text += data[at : at + room]
        found = mark.search(text, max(0, had - 3))
        if found is None:
            if len(text) >= MOST_HEAD:
                raise Uncountable(f"a head or a line has more than {MOST_HEAD >> 10} KiB")
            return None, len(data)
        if found[0] == b"\n":
            raise Uncountable("a line feed has no carriage return before it")
        self._text = bytearray()
        return bytes(text[: found.start()]), at + found.end() - had

    def _head(self, text: bytes) -> None:
        size = self.begin(text)
        self._chunked = size == _CHUNKED
        self._left = 0 if self._chunked else size
        if self._chunked:
            self._wanted = self._chunk
        elif not size:
            self.ended()

    def _chunk(self, text: bytes) -> None:
        found = _CHUNK.fullmatch(text)
        if found is None:
            raise Uncountable(f"a chunk has the size {_shown(text)}")
        self._left = int(found[1], 16)
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


class Requests(Messages):
    """The requests of a connection. `last` is the one whose head was last."""

    last = Asked("", "", None)

    def feed(self, data: bytes) -> Iterator[Part]:
        """Return the parts of `data`, in order. Raises NotHttp for a connection that begins with TLS, else as the base class."""
        if data[:1] == _TLS and not self.last.method and not self._text:
            raise NotHttp("it speaks TLS, and the mirror speaks HTTP")
        return super().feed(data)

    def begin(self, head: bytes) -> int:
        line, _, fields = (head + b"\r\n").partition(b"\r\n")
        found = _REQUEST.fullmatch(line)
        if found is None:
            raise Uncountable(f"it begins with {_shown(line)}")
        method = found[1].decode("ascii")
        if method == "CONNECT":
            raise Uncountable("it asks for a tunnel (CONNECT)")
        target = _ORIGIN.sub(b"", found[2], count=1).decode("latin-1")
        self.last = Asked(method, target.partition("?")[0] or "/", None)
        size = _framing(fields, is_first_version=found[3] == b"0")
        return 0 if size == _UNTIL_CLOSE else size


class Answers(Messages):
    """The answers of a connection, whose bodies depend on the requests that they answer."""

    def __init__(self, asked: deque[Asked], room: Room) -> None:
        super().__init__()
        self.asked = asked
        self.room = room
        self.rate = 0
        self._counted: Counted | None = None
        self._faults: MirrorFaults | None = None
        self._reserved = False

    def begin(self, head: bytes) -> int:
        line, _, fields = (head + b"\r\n").partition(b"\r\n")
        found = _STATUS.fullmatch(line)
        if found is None:
            raise Uncountable(f"it begins with {_shown(line)}")
        status = int(found[2])
        _check_fields(fields)
        if 100 <= status < 200 and status != 101:
            return 0
        if not self.asked:
            raise Uncountable(f"there is no request for the status {status}")
        method, path, faults = self.asked.popleft()
        size = self._size(status, method, path, fields, is_first_version=found[1] == b"0")
        is_known = size not in (_CHUNKED, _UNTIL_CLOSE)
        self._counted = self.room.add(method, path, status, size if is_known else None)
        self.rate = faults.bytes_per_second if faults else 0
        self._meet(faults, size if is_known else _UNTIL_CLOSE, is_known=is_known)
        return size

    def _size(self, status: int, method: str, path: str, fields: bytes, *, is_first_version: bool) -> int:
        if method == "HEAD" or status in (204, 304):
            return 0
        try:
            if status == 101:
                raise Uncountable("the connection became one of another protocol")
            return _framing(fields, is_first_version=is_first_version)
        except Uncountable as doubt:
            self.room.add(method, path, status)
            raise Uncountable(f"{method} {path}, status {status}: {doubt}") from None

    def _meet(self, faults: MirrorFaults | None, size: int, *, is_known: bool) -> None:
        """Take note whether this answer is to be cut. One of unknown length meets the fault when it turns out to be long enough."""
        cut = faults is not None and faults.cuts(size) and not self.room.spent()
        self._faults = faults if cut else None
        self._reserved = cut and is_known
        if self._reserved:
            self.room.met += 1
            assert self._counted is not None
            self._counted.declared = None  # it will be what passes

    def ended(self) -> None:
        self._counted = self._faults = None

    def take(self, data: bytes) -> int:
        """Count these bytes; how many of them may pass before the connection is reset, or NEVER. Raises Uncountable."""
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
        """Whether an answer that is long enough to be cut is."""
        if self._reserved:
            return True
        if self.room.spent():
            self._faults = None
            return False
        self.room.met += 1
        return True

    def lost(self) -> None:
        """Take note that the connection has ended, whatever was under way."""
        if self._counted is not None:
            self._counted.declared = None
        for method, path, _ in self.asked:
            self.room.add(method, path, 0)
        self.asked.clear()


def _framing(fields: bytes, *, is_first_version: bool) -> int:
    """The bytes of the body that fields declare, or one of the two constants. Raises Uncountable."""
    _check_fields(fields)
    found = [(name.lower(), value) for name, value in _FRAMING.findall(fields)]
    lengths = [value for name, value in found if name == b"content-length"]
    codings = [value for name, value in found if name == b"transfer-encoding"]
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
