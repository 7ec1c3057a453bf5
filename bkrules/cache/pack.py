"""Packs: results of the disk cache and all that they need as one file, for a CI that keeps or passes on files.

A pack is a line that names the format, a line of JSON with the digests of its entries, and their bytes one after the
other: results by their keys, then blobs. The same entries have the same bytes. There are no paths, links, times or modes in
it. A pack comes from another machine: the size of the file, each digest and each result are checked before anything is
written, and blobs are written before the results that need them.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from bkrules.cache import atomic, results
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.errors import UsageError
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.model.wire import Wire
from bkrules.system.files import open_regular

MAGIC = b"bk-pack 1\n"
_MOST_INDEX = 256 << 20
"""The limit in bytes of the digests of all entries."""
_HASH = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Index(Wire):
    """The entries of a pack in the order of their bytes, each with its size: results by their keys, and blobs by their hashes."""

    results: tuple[tuple[str, int], ...]
    blobs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Counts:
    """How many results and blobs a pack has or a cache got, and the bytes of them."""

    results: int
    blobs: int
    size: int


def write(path: str, keys: Iterable[str], actions: ActionCache) -> Counts:
    """Write a pack of the results with these keys. Those that the disk cache lacks are left out.

    Raises OSError, and ValueError when a blob of the cache is damaged.
    """
    entries: dict[str, bytes] = {}
    blobs: set[Digest] = set()
    for key in sorted(set(keys)):
        try:
            data = results.read_entry(actions.path(Digest(key, 0)))
            needed = _needed(data, actions.cas)
        except (OSError, ValueError):
            continue
        if all(map(actions.cas.has, needed)):
            entries[key] = data
            blobs |= needed
    ordered = sorted(blobs)
    index = Index(
        tuple((key, len(data)) for key, data in entries.items()), tuple((one.hash, one.size) for one in ordered)
    )
    head = MAGIC + json.dumps(index.to(), separators=(",", ":")).encode() + b"\n"
    content = (chunk for name in ordered for chunk in _chunks(name, actions.cas))
    atomic.write_chunks(path, itertools.chain([head], entries.values(), content), 0o644)
    return Counts(len(entries), len(ordered), sum(map(len, entries.values())) + sum(one.size for one in ordered))


def _needed(data: bytes, cas: Cas) -> set[Digest]:
    """Return the blobs of a result. Raises ValueError for a malformed one, or when a Tree of it is missing."""
    entry = results.Entry(data)
    return {*entry.trees, *(file.digest for file in entry.result(cas.read, cas.path).files())}


def _chunks(name: Digest, cas: Cas) -> Iterator[bytes]:
    with open_regular(cas.path(name)) as file:
        yield from digest.checked(name, digest.chunks_of(file.fileno()))


class Pack:
    """An opened pack of a stranger. Raises UsageError, which names the file, for anything that is not as it should be."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        if file.read(len(MAGIC)) != MAGIC:
            raise self._bad("it is not a pack")
        line = file.readline(_MOST_INDEX)
        if not line.endswith(b"\n"):
            raise self._bad("it is truncated in its index")
        try:
            index = Index.parse(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise self._bad(f"its index is damaged: {error}") from error
        at = len(MAGIC) + len(line)
        self._results: dict[str, tuple[int, int]] = {}
        self._blobs: dict[Digest, int] = {}
        for key, size in index.results:
            self._check(key, size)
            self._results[key] = at, size
            at += size
        for key, size in index.blobs:
            self._check(key, size)
            self._blobs[Digest(key, size)] = at
            at += size
        if len(self._results) + len(self._blobs) < len(index.results) + len(index.blobs):
            raise self._bad("it has an entry twice")
        have = os.fstat(file.fileno()).st_size
        if have != at:
            raise self._bad(f"it is {'truncated' if have < at else 'too long'}: it has {have} bytes in place of {at}")

    @property
    def blobs(self) -> Mapping[Digest, int]:
        """The blobs."""
        return self._blobs

    def _check(self, key: str, size: int) -> None:
        if len(key) != len(digest.EMPTY.hash) or not _HASH.issuperset(key) or size < 0:
            raise self._bad(f"its index is damaged: {key[:80]!r} of {size} bytes is no digest")

    def _bad(self, problem: str) -> UsageError:
        hint = "make it again with `bk cache pack`, and take packs only of jobs that you trust"
        return UsageError("bad-pack", f"{self._path}: {problem}", hint=hint)

    def chunks(self, name: Digest) -> Iterator[bytes]:
        """Yield the bytes of a blob."""
        return self._pieces(self._blobs[name], name.size)

    def _pieces(self, at: int, size: int) -> Iterator[bytes]:
        end = at + size
        while at < end:
            chunk = os.pread(self._file.fileno(), min(digest.CHUNK, end - at), at)
            if not chunk:
                raise self._bad("it is truncated: it became shorter")
            at += len(chunk)
            yield chunk

    def send(self, name: Digest, cas: Cas) -> None:
        """Put a blob into a cache."""
        try:
            cas.receive(name, self.chunks(name))
        except ValueError as error:
            raise self._bad(f"it has changed while it was read: {error}") from error

    def verify(self) -> None:
        """Read every blob. Each must have its digest."""
        for name in self._blobs:
            found = digest.of_chunks(self.chunks(name))
            if found != name:
                raise self._bad(f"the blob {name} is damaged: its bytes have the digest {found}")

    def read_results(self, packs: Sequence[Pack], cas: Cas) -> dict[str, bytes]:
        """Return the results by their keys. Each is well formed, and one of the packs or the cache has what it needs."""

        def read(name: Digest) -> bytes | None:
            holder = next((pack for pack in packs if name in pack.blobs), None)
            return cas.read(name) if holder is None else b"".join(holder.chunks(name))

        found = {}
        for key, (at, size) in self._results.items():
            if size > results.MOST_RESULT:
                raise self._bad(f"the result {key} has {size} bytes")
            data = b"".join(self._pieces(at, size))
            try:
                entry = results.Entry(data)
                needed = [*entry.trees, *(file.digest for file in entry.result(read, cas.path).files())]
            except ValueError as error:
                raise self._bad(f"the result {key} is malformed: {error}") from error
            lacking = [name for name in needed if not any(name in pack.blobs for pack in packs) and not cas.has(name)]
            if lacking:
                raise self._bad(f"it lacks the blob {lacking[0]}, which the result {key} needs")
            found[key] = data
        return found


def unpack(paths: Sequence[str], actions: ActionCache) -> Counts:
    """Put the entries of packs into the disk cache; entries that it has stay. Nothing is written unless all packs are whole.

    Raises UsageError for a pack that cannot be read or is not whole, and OSError when the cache cannot be written.
    """
    cas = actions.cas
    with ExitStack() as stack:
        packs = [Pack(path, stack.enter_context(_opened(path))) for path in paths]
        for pack in packs:
            pack.verify()
        entries = {key: data for pack in packs for key, data in pack.read_results(packs, cas).items()}
        counts = [0, 0, 0]
        for pack in packs:
            for name in pack.blobs:
                if not cas.intact(name):
                    pack.send(name, cas)
                    counts = [counts[0], counts[1] + 1, counts[2] + name.size]
        for key, data in entries.items():
            if actions.get(Digest(key, 0)) is None:
                atomic.write(actions.path(Digest(key, 0)), data)
                counts = [counts[0] + 1, counts[1], counts[2] + len(data)]
    return Counts(*counts)


def _opened(path: str) -> IO[bytes]:
    try:
        return open_regular(path)
    except OSError as error:
        raise UsageError("bad-pack", f"{path} cannot be read: {error.strerror}", hint="name a pack") from error
