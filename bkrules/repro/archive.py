"""The file of a reproduction: a tar archive, compressed with gzip, of a manifest and of blobs by their digests.

The same reproduction has the same bytes: no time, user or order of this machine is in it. A file is read as one of a stranger:
nothing is unpacked, its size is limited, links lead nowhere, and each blob must have the digest by which it is named.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bkrules.errors import ActionFailed
from bkrules.images import tar_reader
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.repro.manifest import MOST, bad
from bkrules.system.files import open_regular

MANIFEST = "bk-repro.json"
BLOBS = "blobs/sha256/"
_FAULTS = ("bad-archive", "bad-reproduction")
"""The reasons of errors that are a file's fault."""
LEVEL = 6
"""The level of compression. A higher one takes twice as long, and saves two percent of a tool."""


class Content:
    """Bytes for a file: those of a path on the disk, or of the memory."""

    def __init__(self, name: Digest, path: str = "", data: bytes = b"") -> None:
        self.name = name
        self._path, self._data = path, data

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the bytes for reading. Raises OSError."""
        with open_regular(self._path) if self._path else io.BytesIO(self._data) as file:
            yield file

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes. Raises OSError, and ValueError when they have changed since their digest was computed."""
        with self.opened() as file:
            yield from digest.checked(self.name, iter(lambda: file.read(digest.CHUNK), b""))


def of_bytes(data: bytes) -> Content:
    """Return bytes as a content."""
    return Content(digest.of_bytes(data), data=data)


def write(file: IO[bytes], manifest: bytes, contents: Mapping[Digest, Content]) -> None:
    """Write a reproduction. Raises OSError, and ValueError when a content has changed meanwhile."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, MANIFEST, len(manifest), io.BytesIO(manifest))
        for name, content in sorted(contents.items()):
            for _ in content.chunks():  # the archive is no good when a file of the workspace changes now
                continue
            with content.opened() as opened:
                _add(tar, BLOBS + name.hash, name.size, opened)


def _add(tar: tarfile.TarFile, name: str, size: int, file: IO[bytes]) -> None:
    header = tarfile.TarInfo(name)
    header.size = size
    tar.addfile(header, file)


class Archive:
    """An opened reproduction of a stranger. All methods raise ActionFailed."""

    def __init__(self, tar: tar_reader.TarReader) -> None:
        self._tar = tar
        if not tar.has(MANIFEST):
            raise bad(f"it has no {MANIFEST}")

    @property
    def manifest(self) -> bytes:
        """The bytes of the manifest."""
        return self._tar.read(MANIFEST, MOST)

    def has(self, name: Digest) -> bool:
        """Return whether the file has a blob of that name."""
        return self._tar.has(BLOBS + name.hash)

    def chunks(self, name: Digest) -> Iterator[bytes]:
        """Yield the bytes of a blob. Raises ActionFailed also when they are not those of its digest."""
        self._check(name)
        try:
            yield from digest.checked(name, self._tar.pieces(BLOBS + name.hash))
        except ValueError as error:
            raise bad(f"a blob is forged or damaged: {error}") from error

    def read(self, name: Digest, most: int) -> bytes:
        """Return the bytes of a blob of at most `most` bytes."""
        if name.size > most:
            raise bad(f"{name} has {name.size} bytes, but may have {most}")
        return b"".join(self.chunks(name))

    def _check(self, name: Digest) -> None:
        if not self.has(name):
            raise bad(f"it lacks the blob {name}")
        if self._tar.size(BLOBS + name.hash) != name.size:
            raise bad(f"a blob is forged or damaged: {name} has another size")


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Archive]:
    """Open a reproduction; the decompressed bytes are a temporary file in `scratch`. An error that is the file's fault names it.

    Raises ActionFailed, and OSError.
    """
    try:
        with tar_reader.opened(path, scratch) as tar:
            yield Archive(tar)
    except ActionFailed as error:
        if error.reason not in _FAULTS:
            raise
        raise ActionFailed(error.reason, f"{path.name}: {error.message}", hint=error.hint) from error
