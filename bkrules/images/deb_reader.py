"""A reader of untrusted Debian packages: the tar archive of the files that a package has.

A package is an ar archive of `debian-binary`, `control.tar.*` and `data.tar.*`. Every fault is an ActionFailed.

https://manpages.debian.org/bookworm/dpkg-dev/deb.5.en.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bkrules.images import tar_reader
from bkrules.images.tar_reader import ZSTD, TarReader, bad
from bkrules.system.files import open_regular

_MAGIC = b"!<arch>\n"
_HEADER = re.compile(rb"([ -~]{16})[ -~]{32}([0-9]{1,10}) {0,9}`\n")
_HEADER_SIZE = 60
_MOST_MEMBERS = 32
_PIECE = 1 << 20

Unpack = Callable[[Path, Path], None]
"""Decompresses a file, whose name ends with .zst, to another one."""


@contextmanager
def opened(package: Path, scratch: Path, unpack: Unpack) -> Iterator[TarReader]:
    """Open the files of a package; temporary files are in `scratch`. `unpack` decompresses zstd.

    Raises ActionFailed when it is not a Debian package.
    """
    data, plain = scratch / "data.tar.zst", scratch / "data.tar"
    with open_regular(str(package)) as file:
        offset, size = _data_member(file)
        file.seek(offset)
        with data.open("wb") as target:
            _copy(file, target, size)
    with data.open("rb") as file:
        if file.read(len(ZSTD)) == ZSTD:
            unpack(data, plain)
            data = plain
    with tar_reader.opened(data, scratch, is_root=True) as reader:
        yield reader


def _data_member(file: IO[bytes]) -> tuple[int, int]:
    """Return the offset and the size of the archive of files. Raises ActionFailed."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise bad("it is not a Debian package")
    found: list[tuple[int, int]] = []
    at = len(_MAGIC)
    for number in range(_MOST_MEMBERS + 1):
        if at >= end:
            break
        if number == _MOST_MEMBERS:
            raise bad(f"it has more than {_MOST_MEMBERS} members")
        file.seek(at)
        header = _HEADER.fullmatch(file.read(_HEADER_SIZE))
        if header is None:
            raise bad(f"it is damaged after {at} bytes")
        at += _HEADER_SIZE
        name, size = header[1].decode().rstrip(" /"), int(header[2])
        if at + size > end:
            raise bad(f"it is truncated in {name!r}")
        if number == 0:
            _check_format(name, file.read(min(size, 4)))
        if name.startswith("data.tar"):
            found.append((at, size))
        at += size + size % 2
    if len(found) != 1:
        raise bad(f"it has {len(found)} archives of files, not one")
    return found[0]


def _check_format(name: str, start: bytes) -> None:
    if name != "debian-binary" or not start.startswith(b"2."):
        raise bad("it is not a Debian package of format 2")


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        piece = source.read(min(_PIECE, size))
        if not piece:
            raise bad("it is truncated")
        target.write(piece)
        size -= len(piece)
