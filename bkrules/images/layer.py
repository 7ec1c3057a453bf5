"""Layers made from bytes: uncompressed tar archives that depend on no clock, user or machine.

Every entry has the time 0, and entries have one order, so equal entries are equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

WHITEOUT = ".wh."
"""The beginning of the names by which a layer removes what is below it; see the image specification of the OCI."""
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
"""The extended header of an extended attribute, as GNU tar and Go's archive/tar have it."""


@dataclass(frozen=True)
class Entry:
    """An entry of a layer: a file, unless `kind` is another of tarfile's types.

    `link` is the target of a symbolic or hard link, `owner` user and group, `device` the major and minor number.
    """

    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    owner: tuple[int, int] = (0, 0)
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def symlink(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(mode=0o777, kind=tarfile.SYMTYPE, link=target)


def directory(mode: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(mode=mode, kind=tarfile.DIRTYPE)


def device(words: str) -> Entry:
    """Return a device, `c 1 3` or `b 8 0`, or a named pipe, `p`."""
    kind, *numbers = words.split()
    major, minor = map(int, numbers or ("0", "0"))
    return Entry(kind={"c": tarfile.CHRTYPE, "b": tarfile.BLKTYPE, "p": tarfile.FIFOTYPE}[kind], device=(major, minor))


def whiteout(path: str) -> str:
    """Return the path of the empty file that removes `path` of the layers below."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{WHITEOUT}{name}"


def opaque(path: str) -> str:
    """Return the path of the empty file that hides all that the layers below have in the directory `path`."""
    return f"{path}/{_OPAQUE}"


def noise(name: str, size: int) -> bytes:
    """Return `size` bytes that do not compress and follow from `name`: SHA-256 in counter mode."""
    seed = name.encode()
    blocks = (hashlib.sha256(seed + number.to_bytes(8, "big")).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def layer(entries: Mapping[str, Entry]) -> bytes:
    """Return an uncompressed layer with these entries and the directories above them.

    Whiteouts come before their siblings, as the image specification asks, and hard links after the files that they name.
    """
    members = {path: directory() for path in _above(entries)} | dict(entries)
    whiteouts = {path for path in entries if path.rpartition("/")[2].startswith(WHITEOUT)}
    first = set(_above(whiteouts))

    def place(path: str) -> tuple[int, str]:
        kind = members[path].kind
        if path in first:
            return 0, path
        if path in whiteouts:
            return 1, path
        return {tarfile.DIRTYPE: 2, tarfile.LNKTYPE: 4}.get(kind, 3), path

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(members, key=place):
            _add(tar, path, members[path])
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, path: str, entry: Entry) -> None:
    """Add a member: as USTAR, or with an extended header when something does not fit."""
    header = tarfile.TarInfo(f"{path}/" if entry.kind == tarfile.DIRTYPE else path)
    header.type, header.mode, header.linkname, header.size = entry.kind, entry.mode, entry.link, len(entry.data)
    header.uid, header.gid = entry.owner
    header.devmajor, header.devminor = entry.device
    header.pax_headers = {
        f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in sorted(entry.xattrs.items())
    }
    tar.format = tarfile.PAX_FORMAT if entry.xattrs else tarfile.USTAR_FORMAT
    try:
        header.tobuf(tar.format, "utf-8")
    except ValueError:
        tar.format = tarfile.PAX_FORMAT
    tar.addfile(header, io.BytesIO(entry.data))


def _above(paths: Mapping[str, Entry] | set[str]) -> Iterator[str]:
    """Yield the directories above some paths, each once."""
    seen = set()
    for path in paths:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in seen:
                seen.add(folder)
                yield folder
