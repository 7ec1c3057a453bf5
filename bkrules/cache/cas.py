"""The content-addressed store: blobs by the digest of their bytes, in `cas/ab/abcd...`.

Blobs are read-only and executable for everyone: the name covers the bytes alone, and a tool in the store must run as
any user.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from bkrules.cache import atomic
from bkrules.cache.file_digests import FileDigests
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.system.files import open_regular

MODE = 0o555
_LARGE = 1 << 20  # bytes of a blob that bk expects no disk to lack


class Cas:
    """Blobs below `root`. Safe for several processes at once."""

    def __init__(self, root: str, digests: FileDigests) -> None:
        self.root = root
        self._digests = digests
        self._lock = threading.Lock()
        self._claimed = 0  # bytes of blobs that are on their way

    def path(self, name: Digest) -> str:
        """Return the path of a blob, whether it exists or not."""
        return f"{self.root}/{name.hash[:2]}/{name.hash}"

    def has(self, name: Digest) -> bool:
        """Return whether a blob of that name and size exists. Its bytes are not read."""
        return _has(stamps.of(self.path(name)), name)

    def look(self, name: Digest) -> bool:
        """Return the same as `has`, for an answer that depends on it."""
        return _has(current().look_stored(self.path(name)), name)

    def intact(self, name: Digest) -> bool:
        """Return whether the blob exists with the right bytes. A damaged one is removed."""
        if not self.has(name):
            return False
        path = self.path(name)
        try:
            if self._digests.now(path) != name:
                os.unlink(path)
                self._digests.forget(path)
                return False
            if stat.S_IMODE(os.stat(path).st_mode) != MODE:  # it was changed, through a hard link in bk-out
                os.chmod(path, MODE)
        except FileNotFoundError:  # another process or thread has removed it meanwhile
            return False
        return True

    def is_still(self, name: Digest) -> bool:
        """Return whether the blob exists with the right bytes. A damaged one stays, for `intact` to remove."""
        try:
            return self._digests.now(self.path(name)) == name
        except OSError:
            return False

    def read(self, name: Digest) -> bytes | None:
        """Return the blob's bytes, or None when it is missing or damaged."""
        try:
            with open_regular(self.path(name)) as file:
                data = file.read()
        except OSError:
            return None
        return data if digest.of_bytes(data) == name else None

    def put(self, data: bytes) -> Digest:
        """Store bytes."""
        name = digest.of_bytes(data)
        if not self.intact(name):
            atomic.write(self.path(name), data, MODE)
        return name

    def put_file(self, path: str) -> Digest:
        """Store a copy of a file's bytes."""
        name = digest.of_file(path)
        if not self.intact(name):
            atomic.copy(path, self.path(name), MODE)
        return name

    def put_open(self, descriptor: int) -> Digest:
        """Store the bytes of an open file, whose path is not used again. Raises ValueError when they change meanwhile."""
        size = os.fstat(descriptor).st_size
        if size <= digest.CHUNK:
            return self.put(os.pread(descriptor, size, 0))
        most = size // digest.CHUNK + 1  # bounded, since the file may grow for ever
        name = digest.of_chunks(islice(digest.chunks_of(descriptor), most))
        if not self.intact(name):
            chunks = islice(digest.chunks_of(descriptor), most)
            atomic.write_chunks(self.path(name), digest.checked(name, chunks), MODE)
        return name

    def receive(self, name: Digest, chunks: Iterable[bytes]) -> None:
        """Store bytes under the digest that their sender claims. Raises ValueError when they have another one, and OSError
        when the disk lacks the room, before the first of them comes.
        """
        with self._room(name.size):
            atomic.write_chunks(self.path(name), digest.checked(name, chunks), MODE)
        self._digests.forget(self.path(name))

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Claim room on the disk. A server may announce any size, and would fill the disk of all programs. Raises OSError."""
        if size < _LARGE:
            yield
            return
        os.makedirs(self.root, exist_ok=True)
        disk = os.statvfs(self.root)
        with self._lock:
            if size + self._claimed > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {size} bytes", self.root)
            self._claimed += size
        try:
            yield
        finally:
            with self._lock:
                self._claimed -= size


def _has(stamp: stamps.Stamp | None, name: Digest) -> bool:
    return stamp is not None and stamp[2] == name.size and stat.S_ISREG(stamp[5])
