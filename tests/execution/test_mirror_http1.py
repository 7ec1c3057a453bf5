"""Streams of random messages, cut into pieces at random places: what is counted is what a full parser finds in them."""

from __future__ import annotations

import http.client
import io
import random
from collections import deque
from contextlib import suppress
from typing import IO

import pytest
from rounds import rounds

from bkrules.mirror.http1 import Kind, PendingRequest, RequestParser, ResponseParser, Uncountable
from bkrules.mirror.record import CellMirror

METHODS = ("GET", "HEAD", "GET", "POST")
STATUSES = (200, 200, 206, 204, 304, 404, 500)


class Stream:
    """What `http.client` takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        self.file.close = lambda: None  # type: ignore[method-assign]

    def makefile(self, _mode: str) -> IO[bytes]:
        """The one file, from which each answer takes its part."""
        return self.file


def by_a_full_parser(stream: bytes, methods: list[str]) -> list[tuple[int, int]]:
    """The status and the bytes of each answer, as Python's own client reads them."""
    found = []
    whole = Stream(stream)
    for method in methods:
        answer = http.client.HTTPResponse(whole, method=method)  # type: ignore[arg-type]
        answer.begin()
        while answer.status < 200:  # it skips none but 100
            answer = http.client.HTTPResponse(whole, method=method)  # type: ignore[arg-type]
            answer.begin()
        body = bytearray()
        with suppress(http.client.IncompleteRead):
            while piece := answer.read1(1 << 16):
                body += piece
        found.append((answer.status, len(body)))
        if answer.will_close:
            break
    return found


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """The data, cut at random places: often between neighbours, so that each byte of a head is once the last."""
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 5, 100, len(data)))))
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


def bytes_of(chance: random.Random, most: int = 5000) -> bytes:
    """A body that may look like a head."""
    if chance.random() < 0.3:
        return chance.choice((b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\n\n"))
    return chance.randbytes(chance.randrange(most))


def chunked(body: bytes, chance: random.Random) -> bytes:
    text = bytearray()
    while body:
        size = chance.randrange(1, len(body) + 1)
        form = chance.choice((b"%x\r\n", b"%X\r\n", b"000%x\r\n", b"%x;a=b\r\n", b'%x; q="c"\r\n'))
        text += form % size + body[:size] + b"\r\n"
        body = body[size:]
    return bytes(text) + b"0\r\n" + chance.choice((b"", b"Digest: x\r\n", b"A: b\r\nC:\r\n")) + b"\r\n"


def answer_to(method: str, chance: random.Random, *, is_last: bool) -> tuple[bytes, bytes]:
    """The head of an answer, after some that are not final, and its body."""
    hints = b"HTTP/1.1 100 Continue\r\n\r\n" * chance.choice((0, 0, 0, 1, 3))
    hints += b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * chance.choice((0, 0, 1))
    status, body = chance.choice(STATUSES), bytes_of(chance)
    line = b"HTTP/1.1 %d %b\r\n" % (status, chance.choice((b"OK", b"", b"a b c")))
    fields = b"".join(chance.sample((b"ETag: x\r\n", b"X-Y:\r\n", b"Date: \t today \r\n"), chance.randrange(3)))
    none = method == "HEAD" or status in (204, 304)
    # Python's client takes a body of chunks for one even where there can be none.
    kind = chance.choice(("length", *(["close"] if is_last else []), *([] if status in (204, 304) else ["chunked"])))
    framing = {"length": b"content-LENGTH:%d \r\n" % len(body), "chunked": b"Transfer-Encoding: Chunked\r\n"}
    head = hints + line + fields + framing.get(kind, b"Connection: close\r\n") + b"\r\n"
    return head, b"" if none else chunked(body, chance) if kind == "chunked" else body


def fed(methods: list[str], data: list[bytes]) -> tuple[CellMirror, ResponseParser]:
    """What a cell has counted of these answers."""
    cell = CellMirror("", None)  # type: ignore[arg-type]
    answers = ResponseParser(
        deque(PendingRequest(method, f"/{number}", None) for number, method in enumerate(methods)), cell
    )
    for piece in data:
        answers.take(piece)
    return cell, answers


def test_answers_are_counted_as_a_full_parser_counts_them() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(rounds(400)):
        methods = [chance.choice(METHODS) for _ in range(chance.randrange(1, 8))]
        parts = [answer_to(method, chance, is_last=one == len(methods) - 1) for one, method in enumerate(methods)]
        stream = b"".join(head + body for head, body in parts)
        if chance.random() < 0.2:  # the connection ends somewhere within the last body
            stream = stream[: len(stream) - chance.randrange(len(parts[-1][1]) + 1)]
        expected = by_a_full_parser(stream, methods)

        cell, answers = fed(methods, pieces(stream, chance))
        answers.lost()

        counted = [one.request() for one in cell.record]
        assert [(one.status, one.body_bytes) for one in counted][: len(expected)] == expected
        assert [one.status for one in counted[len(expected) :]] == [0] * (len(methods) - len(expected))
        assert cell.uncounted == []


def test_requests_are_told_apart_wherever_their_bytes_are_split() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(rounds(400)):
        expected = [(chance.choice(METHODS), f"/v2/{number}") for number in range(chance.randrange(1, 8))]
        stream, bodies = b"", 0
        for method, path in expected:
            body = bytes_of(chance) if method == "POST" else b""
            bodies += len(body)
            kind = chance.choice(("length", "chunked")) if body else "none"
            framing = {
                "none": b"",
                "length": b"Content-Length: %d\r\n" % len(body),
                "chunked": b"TRANSFER-encoding:chunked\r\n",
            }
            stream += (
                f"{method} {path}?a=b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n".encode()
                + framing[kind]
                + b"\r\n"
            )
            stream += chunked(body, chance) if kind == "chunked" else body

        requests, found, passed, counted = RequestParser(), [], b"", 0
        for piece in pieces(stream, chance):
            for begin, end, kind_of, head in requests.feed(piece):
                counted += end - begin if kind_of is Kind.BODY else 0
                if kind_of is Kind.HEAD:
                    found.append(requests.last[:2])
                    passed += head + b"\r\n\r\n"
                elif kind_of is not Kind.PIECE:
                    passed += piece[begin:end]

        assert found == expected
        assert passed == stream
        assert counted == bodies


def test_damaged_bytes_are_counted_or_raise_and_never_end_otherwise() -> None:
    """One byte of a stream is another one, or is missing. What is not refused is what a parser of that stream would find."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    refused = 0
    for _ in range(rounds(2000)):
        method = chance.choice(METHODS)
        stream = bytearray(b"".join(answer_to(method, chance, is_last=False)))
        place = chance.randrange(min(len(stream), 200))
        stream[place : place + 1] = chance.choice((b"", b"\n", b"\r", b"\0", b":", b"-", b" ", chance.randbytes(1)))
        try:
            whole, _ = fed([method], [bytes(stream)])
        except Uncountable:
            refused += 1
            with pytest.raises(Uncountable):
                fed([method], [bytes([byte]) for byte in stream])
            continue
        single, _ = fed([method], [bytes([byte]) for byte in stream])
        assert [one.request() for one in single.record] == [one.request() for one in whole.record]
    assert refused


def test_a_head_that_drips_is_read_in_time_that_grows_with_its_length() -> None:
    """A quarter of an endless head, byte by byte, looks at few bytes more than once."""
    requests = RequestParser()
    looked = 0

    class Mark:
        def search(self, text: bytearray, begin: int) -> None:
            nonlocal looked
            looked += len(text) - begin

    for _ in range(1000):
        requests._gather(b"x", 0, Mark())  # type: ignore[arg-type]
    assert looked <= 4 * 1000
