"""Digests: the SHA-256 and the size of some bytes, under which bk stores them."""

from __future__ import annotations

import os
from _hashlib import openssl_sha256 as sha256
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bkrules.system.files import open_regular

CHUNK = 1 << 16
"""The bytes that are read at once. The C library keeps two such buffers for each thread that has read a file."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """REAPI's Digest: `hash` is lower-case hexadecimal, `size` is in bytes."""

    hash: str
    size: int

    def __str__(self) -> str:
        return f"sha256:{self.hash}"


def of_bytes(data: bytes) -> Digest:
    """Return the digest of `data`."""
    return Digest(sha256(data).hexdigest(), len(data))


def of_file(path: str | os.PathLike[str]) -> Digest:
    """Return the digest of a file's content. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return of_chunks(chunks_of(file.fileno()))


def of_chunks(chunks: Iterable[bytes]) -> Digest:
    """Return the digest of bytes that come in chunks."""
    total, state = 0, sha256()
    for chunk in chunks:
        state.update(chunk)
        total += len(chunk)
    return Digest(state.hexdigest(), total)


def chunks_of(descriptor: int) -> Iterator[bytes]:
    """Yield the content of an open file from its first byte, wherever the descriptor stands."""
    offset = 0
    while chunk := os.pread(descriptor, CHUNK, offset):
        yield chunk
        offset += len(chunk)


def checked(name: Digest, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same chunks. Raises ValueError after the last one when their bytes have another digest than `name`."""
    total, state = 0, sha256()
    for chunk in chunks:
        state.update(chunk)
        total += len(chunk)
        yield chunk
    if Digest(state.hexdigest(), total) != name:
        raise ValueError(f"the received bytes are not those of {name}")


EMPTY = of_bytes(b"")
