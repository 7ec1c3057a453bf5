"""The root file system of an image: its layers, one over the other."""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import tarfile
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import IO

from bkrules.declarative.seen import Entry

MOST_TEXT = 64 << 10
"""The limit of bytes of a file whose text is kept."""
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_KINDS = {
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass
class RootFs:
    """A root file system: its entries by their paths, and the texts of the `wanted` files."""

    wanted: Collection[str] = ()
    entries: dict[str, Entry] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    def add_layer(self, layer: IO[bytes]) -> None:
        """Apply a layer, a tar archive that may be compressed. Raises tarfile.TarError or OSError for something else."""
        is_gzip = layer.read(len(_GZIP)) == _GZIP
        layer.seek(0)
        # An eStargz layer has many members of gzip, of which tarfile reads the first.
        file = gzip.GzipFile(fileobj=layer) if is_gzip else layer
        with tarfile.open(fileobj=file, mode="r|" if is_gzip else "r|*") as tar:
            below = dict(self.entries)
            for member in tar:
                self._add(tar, member, below)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, below: dict[str, Entry]) -> None:
        path = _path(member.name)
        folder, name = posixpath.split(path)
        if name == OPAQUE:
            self._remove(below, folder, itself=False)
        elif name.startswith(WHITEOUT):
            self._remove(below, posixpath.join(folder, name.removeprefix(WHITEOUT)), itself=True)
        else:
            entry = self._entry(tar, member, path)
            if entry.kind != "directory" and self.entries.get(path, entry).kind == "directory":
                self._remove(below, path, itself=True)
            self.entries[path] = entry

    def _remove(self, below: dict[str, Entry], path: str, *, itself: bool) -> None:
        """Remove what the layers below have at a path: with `itself` that too, otherwise only what is in the folder."""
        start = path.rstrip("/") + "/"
        for other in below:
            is_meant = other.startswith(start) if other != path else itself
            if is_meant and self.entries.get(other) is below[other]:
                del self.entries[other]
                self.contents.pop(other, None)

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry:
        self.contents.pop(path, None)
        if member.islnk():
            target = _path(member.linkname)
            if target in self.contents and path in self.wanted:
                self.contents[path] = self.contents[target]
            shared = self.entries.get(target)
            if shared is None:
                raise tarfile.ReadError(f"{path} is a hard link to {target}, which the layer does not have before it")
            return replace(shared, link=target)
        kind = _KINDS.get(member.type, "file")
        entry = Entry(kind, f"{member.mode & 0o7777:04o}", f"{member.uid}:{member.gid}", xattrs=_xattrs(member))
        if kind == "symlink":
            return replace(entry, link=member.linkname)
        if kind.endswith("device"):
            return replace(entry, device=f"{member.devmajor}:{member.devminor}")
        return replace(entry, size=member.size, sha256=self._digest(tar, member, path)) if kind == "file" else entry

    def _digest(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> str:
        """Return the SHA-256 of a file, and keep its text when it is wanted, is short, and is text."""
        file = tar.extractfile(member)
        assert file is not None
        found = hashlib.sha256()
        start = b""
        while chunk := file.read(_CHUNK):
            start = start or chunk
            found.update(chunk)
        text = _text(start) if path in self.wanted and member.size <= MOST_TEXT else None
        if text is not None:
            self.contents[path] = text
        return found.hexdigest()


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _path(name: str) -> str:
    """Return a name of an archive as a path from the root."""
    return posixpath.normpath(f"/{name}").replace("//", "/")


def _xattrs(member: tarfile.TarInfo) -> dict[str, str]:
    found = {}
    for name, text in member.pax_headers.items():
        if name.startswith(_XATTR):
            data = text.encode("utf-8", "surrogateescape")
            is_text = data.isascii() and text.isprintable() and not text.startswith("0x")
            found[name.removeprefix(_XATTR)] = text if is_text else f"0x{data.hex()}"
    return found
