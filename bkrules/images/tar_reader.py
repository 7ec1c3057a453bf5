"""A reader of untrusted tar archives: finds files by their names and reads them in chunks.

Nothing is unpacked. Headers are bounded, links lead only to members, and archives that readers interpret differently (a
duplicate name, sparse files) are refused. A compressed archive is decompressed to a temporary file, up to a ratio. So
the memory use does not depend on the archive's content. Every fault is an ActionFailed.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import re
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from bkrules.errors import ActionFailed
from bkrules.system.files import open_regular

MOST_MEMBERS = 20_000
LONGEST_NAME = 4096
LARGEST_HEADER = 1 << 20
"""The limit in bytes of an extended header: names and attributes of one member."""
LEAST_LIMIT = 1 << 30
"""The size in bytes to which any compressed archive may expand."""
RATIO = 100
"""The expansion ratio up to which a larger archive may expand."""
MOST = 256 << 30
"""The limit in bytes of any decompressed archive."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BZIP2, XZ = b"BZh", b"\xfd7zXZ\0"
_XZ_MEMORY = 256 << 20
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_LINKS = 16
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_SAID = ("path", "linkpath", "size", "GNU.sparse.")
_PAX = re.compile(rb"(\d{1,7}) ([^=]+)=")


def bad(problem: str) -> ActionFailed:
    """Return the error for an archive."""
    return ActionFailed("bad-archive", problem)


@dataclass(frozen=True)
class _Member:
    """A member: the place of its bytes, or with `link` the name of another member."""

    name: str
    kind: str
    offset: int = 0
    size: int = 0
    link: str = ""
    mode: int = 0


class TarReader:
    """The files of an uncompressed tar archive. Raises ActionFailed when it is malformed.

    When it `is_root` of a file system, absolute symbolic links lead to its members.
    """

    def __init__(self, file: IO[bytes], *, is_root: bool = False) -> None:
        self._file, self._is_root = file, is_root
        self._members: dict[str, _Member] = {}
        self._twice: set[str] = set()
        for number, member in enumerate(_members(file)):
            if number == MOST_MEMBERS:
                raise bad(f"it has more than {MOST_MEMBERS} members")
            if member.name in self._members:
                self._twice.add(member.name)
            self._members[member.name] = member

    def has(self, name: str) -> bool:
        """Return whether a member of that name exists."""
        return name in self._members

    @property
    def names(self) -> Iterable[str]:
        """The names of all members."""
        return self._members.keys()

    def is_executable(self, name: str) -> bool:
        """Return whether the owner of a file may run it. Raises ActionFailed."""
        return bool(self._find(name).mode & stat.S_IXUSR)

    def place(self, name: str) -> int:
        """Return the offset of a file's bytes: two names of one file have the same. Raises ActionFailed."""
        return self._find(name).offset

    def size(self, name: str) -> int:
        """Return the size of a file. Raises ActionFailed."""
        return self._find(name).size

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in chunks. Raises ActionFailed when it is missing, not a file, or truncated."""
        member = self._find(name)
        at, end = member.offset, member.offset + member.size
        while at < end:
            self._file.seek(at)
            piece = self._file.read(min(_PIECE, end - at))
            if not piece:
                raise bad(f"it is truncated in {name!r}")
            at += len(piece)
            yield piece

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file. Raises ActionFailed, also when it has more than `limit` bytes."""
        if self.size(name) > limit:
            raise bad(f"{name!r} is larger than {limit} bytes")
        return b"".join(self.pieces(name))

    def start(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of a file, or all of a smaller one. Raises ActionFailed."""
        return next(self.pieces(name), b"")[:size]

    def _find(self, name: str) -> _Member:
        """Return the file of a name; links are followed to members, never out of the archive."""
        at = name
        for _ in range(_LINKS):
            member = self._members.get(at)
            if member is None:
                raise bad(f"it lacks {name!r}" if at == name else f"{name!r} is a link to {at!r}, which it lacks")
            if at in self._twice:
                raise bad(f"{at!r} occurs twice")
            if member.kind == "file":
                return member
            if member.kind not in ("link", "symlink"):
                raise bad(f"{at!r} is a {member.kind} and no file")
            target = _named(self._target(at, member))
            if target.startswith(("/", "../")):
                raise bad(f"{at!r} is a link out of the archive")
            at = target
        raise bad(f"the links from {name!r} form a cycle")

    def _target(self, at: str, member: _Member) -> str:
        if member.kind == "symlink" and member.link.startswith("/") and self._is_root:
            return member.link.lstrip("/")
        if member.kind == "link" or member.link.startswith("/"):
            return member.link
        return f"{posixpath.dirname(at)}/{member.link}".lstrip("/")


@contextmanager
def opened(archive: Path, scratch: Path, *, is_root: bool = False) -> Iterator[TarReader]:
    """Open an archive, which may be compressed with gzip, bzip2 or xz; temporary files are in `scratch`.

    `is_root` is that of TarReader. Raises ActionFailed when it is not a tar archive, and OSError as `open` does.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_regular(archive))
        state = os.fstat(file.fileno())
        start = file.read(len(XZ))
        file.seek(0)
        if start.startswith(ZSTD):
            raise bad("it is compressed with zstd, which bk does not read; decompress it:  zstd -d")
        unpacked = _decompressed(file, start)
        if unpacked is None:
            yield TarReader(file, is_root=is_root)
            return
        plain = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
        limit, total = max(LEAST_LIMIT, min(RATIO * state.st_size, MOST)), 0
        for piece in unpacked:
            total += len(piece)
            if total > limit:
                raise bad(f"its {state.st_size} bytes expand to more than {limit}")
            plain.write(piece)
        plain.seek(0)
        yield TarReader(plain, is_root=is_root)


def _regular(path: Path) -> IO[bytes]:
    """Open an archive, which must be a regular file and not a link. Raises ActionFailed."""
    try:
        return open_regular(path, follow=False)
    except FileNotFoundError:
        raise bad("it is missing") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise bad("it is not a regular file") from None


def _decompressed(file: IO[bytes], start: bytes) -> Iterator[bytes] | None:
    """Return the bytes of a compressed file in bounded pieces; None when it is not compressed."""
    if start.startswith(GZIP):
        return _gunzipped(file)
    if start.startswith(BZIP2):
        return _streams(file, bz2.BZ2Decompressor)
    if start.startswith(XZ):
        return _streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
    return None


def _gunzipped(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            while piece := unpacked.read(_PIECE):
                yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise bad(f"it cannot be decompressed: {error}") from error


class _Decompressor(Protocol):
    """The common interface of bz2's and lzma's decompressors."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: Any, max_length: int = ...) -> bytes:
        """Return at most `max_length` bytes."""


def _streams(file: IO[bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the bytes of all concatenated streams, up to padding."""
    state: _Decompressor = make()
    data = b""
    try:
        while True:
            if state.eof:
                data = (state.unused_data or file.read(_PIECE)).lstrip(b"\0")
                if not data:
                    return
                state = make()
            elif state.needs_input and not data:
                data = file.read(_PIECE)
                if not data:
                    raise bad("it is truncated")
            yield state.decompress(data, _PIECE)
            data = b""
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise bad(f"it cannot be decompressed: {error}") from error


def _members(file: IO[bytes]) -> Iterator[_Member]:
    """Yield the members of a tar archive in their order. Raises ActionFailed."""
    end = file.seek(0, os.SEEK_END)
    at = 0
    said: dict[str, str] = {}  # the values of the headers before a member
    while at < end:
        file.seek(at)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):  # the end
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise bad(
                f"it is not a tar file: {error}" if at == 0 else f"it is damaged after {at} bytes: {error}"
            ) from error
        if header.size < 0:
            raise bad(f"{header.name!r} has the size {header.size}")
        at += _BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            found = _pax(_extension(file, header.size))
            said |= found if header.type != tarfile.XGLTYPE else _global(found)
            at += _padded(header.size)
            continue
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _extension(file, header.size).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            said["path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"] = text
            at += _padded(header.size)
            continue
        member = _member(header, said, at)
        if member.kind == "file" or header.type not in tarfile.SUPPORTED_TYPES:
            at += _padded(member.size)
        said = {}
        if at > end + _BLOCK:
            raise bad(f"it is truncated in {member.name!r}")
        yield member


def _member(header: tarfile.TarInfo, said: dict[str, str], at: int) -> _Member:
    name = _named(said.get("path", header.name))
    size = said.get("size", str(header.size))
    if not re.fullmatch("[0-9]{1,18}", size):
        raise bad(f"{name!r} has the size {size[:40]!r}")
    link = said.get("linkpath", header.linkname)
    if max(len(name), len(link)) > LONGEST_NAME:
        raise bad(f"it has a name of {max(len(name), len(link))} characters, {name[:40]!r}...")
    kinds = {tarfile.LNKTYPE: "link", tarfile.SYMTYPE: "symlink", tarfile.DIRTYPE: "folder"}
    found = _Member(name, kinds.get(header.type, "device"), at, int(size), link, header.mode)
    if header.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse." in said:
        raise bad(f"{name!r} is a sparse file; make the archive without --sparse")
    return replace(found, kind="file") if header.type in _FILES else found


def _named(name: str) -> str:
    """Return a member's normalised name, without `./` and the like. Names that lead out of the archive keep doing so."""
    return posixpath.normpath(name) if name else ""


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _extension(file: IO[bytes], size: int) -> bytes:
    if size > LARGEST_HEADER:
        raise bad(f"it has a header of {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise bad("it is truncated in a header")
    return data


def _pax(data: bytes) -> dict[str, str]:
    """Return the names, sizes and holes of an extended header; its records are `LENGTH KEY=VALUE` and a line break."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        match = _PAX.match(data, at)
        if (
            match is None
            or int(match[1]) <= match.end() - at
            or data[at + int(match[1]) - 1 : at + int(match[1])] != b"\n"
        ):
            raise bad("it has a malformed header")
        end = at + int(match[1])
        key = "GNU.sparse." if match[2].startswith(b"GNU.sparse.") else match[2].decode(errors="replace")
        if key in _SAID:
            found[key] = data[match.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    return found


def _global(said: dict[str, str]) -> dict[str, str]:
    if said:
        raise bad(f"it has one {min(said)!r} for all of its members")
    return {}
