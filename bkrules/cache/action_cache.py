"""The action cache: REAPI ActionResult messages by action digest, in `ac/ab/abcd...`.

A result of the disk cache is a hit only when the CAS has every blob that it names. A result of a remote cache is a hit
by its names alone; bk fetches the bytes when something needs them. Any fault of an entry makes it a miss.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from bkrules.cache import atomic, maintenance
from bkrules.cache.cas import Cas
from bkrules.cache.results import ActionResult, Declared, Entry, files_of, read_entry, write_result
from bkrules.errors import RemoteFailed
from bkrules.incremental.dependencies import current
from bkrules.model.action import DirectoryNode, Node
from bkrules.model.digest import Digest

if TYPE_CHECKING:
    from bkrules.cache.remote import Remote

__all__ = ["ActionCache", "ActionResult"]


class ActionCache:
    """The results below `root`, whose blobs are in `cas`, and those of the `remote` cache."""

    def __init__(self, root: str, cas: Cas, remote: Remote | None = None) -> None:
        self.root = root
        self.cas = cas
        self.remote = remote

    def path(self, key: Digest) -> str:
        """Return the path of an action's entry, whether it exists or not."""
        return f"{self.root}/{key.hash[:2]}/{key.hash}"

    def get(self, key: Digest, declared: Declared | None = None, above: str = "") -> ActionResult | None:
        """Return the result of an action from the disk. Return None when there is none, or when its outputs are not
        those declared.
        """
        path = self.path(key)
        maintenance.touch(path)  # which changes its stamp
        if current().look_stored(path) is None:
            return None
        try:
            data = read_entry(path)
            result = Entry(data, declared, above).result(self.cas.read, self.cas.path)
        except (OSError, ValueError):
            return None
        return result if all(self.cas.look(file.digest) for file in result.files()) else None

    def ask(
        self, key: Digest, *, whole: bool, declared: Declared | None = None, above: str = ""
    ) -> ActionResult | None:
        """Return the result of an action from the remote cache, or None. With `whole`, its bytes are on the disk afterwards.

        A result whose outputs are not those declared is a miss, and bk keeps nothing of it.
        """
        assert self.remote is not None
        data = self.remote.result(key)
        if data is None:
            return None
        try:
            return self.take(key, data, whole=whole, declared=declared, above=above)
        except ValueError as error:
            self.lied(key, error)
            return None

    def take(
        self, key: Digest, data: bytes, *, whole: bool, declared: Declared | None = None, above: str = ""
    ) -> ActionResult | None:
        """Return the result in bytes from elsewhere, whose blobs the remote cache has; None when it lacks one. With `whole`,
        the bytes are on the disk afterwards. Raises ValueError for one whose outputs are not those declared.
        """
        result = self.read(data, declared, above)
        return None if result is None or (whole and not self.bring(key, result)) else result

    def read(self, data: bytes, declared: Declared | None = None, above: str = "") -> ActionResult | None:
        """Return the result in bytes from elsewhere, of which nothing is kept; None when the remote cache lacks a folder of it.

        Raises ValueError for one whose outputs are not those declared.
        """
        assert self.remote is not None
        entry = Entry(data, declared, above)
        return None if self.remote.fetch(entry.trees) else entry.result(self.cas.read, self.cas.path)

    def lack(self, what: str) -> RemoteFailed:
        """Return the error for bytes that the remote cache does not send, with the fault that tells why."""
        assert self.remote is not None
        return RemoteFailed("remote-cache", f"{what}: the remote cache lacks an output of it", hint=self.remote.fault)

    def lied(self, key: Digest, error: ValueError) -> None:
        """Record that the remote cache has answered with no result of that action."""
        assert self.remote is not None
        self.remote.lied(f"GET ac/{key.hash}: not a valid result of that action: {error}")

    def fetch(self, nodes: Iterable[Node]) -> set[Digest]:
        """Fetch the bytes of files and folders from the remote cache. Return the digests that could not be fetched."""
        assert self.remote is not None
        return self.remote.fetch(file.digest for node in nodes for file in files_of(node))

    def bring(self, key: Digest, result: ActionResult) -> bool:
        """Fetch the bytes of a result from the remote cache, and store it. Return whether all could be fetched."""
        assert self.remote is not None
        if self.remote.fetch(file.digest for file in result.files()):
            return False
        self._write(key, result)
        return True

    def put(self, key: Digest, result: ActionResult) -> None:
        """Store a result whose blobs are in the CAS already, and send it to the remote cache."""
        data, trees = self._write(key, result)
        if self.remote is not None:
            blobs = [*trees, *self._directories(result), *(file.digest for file in result.files())]
            self.remote.upload(key, data, blobs)

    def push(self, key: Digest) -> bool:
        """Send a result of the disk to the remote cache, which may have it already. Return whether the disk has it whole."""
        assert self.remote is not None
        try:
            data = read_entry(self.path(key))
            entry = Entry(data)
            result = entry.result(self.cas.read, self.cas.path)
        except (OSError, ValueError):
            return False
        blobs = [*entry.trees, *self._directories(result), *(file.digest for file in result.files())]
        if not all(map(self.cas.has, blobs)):
            return False
        self.remote.push(key, data, blobs)
        return True

    def _directories(self, result: ActionResult) -> list[Digest]:
        """Store the Directory messages of folders, and return their digests; none where no server asks for them.

        buildbox-casd does not return a result while it lacks one, though all of them are in the Trees.
        """
        if self.remote is None or not self.remote.checks_directories:
            return []
        folders = [node.tree[1] for node in result.outputs.values() if isinstance(node, DirectoryNode)]
        return [self.cas.put(data) for messages in folders for data in messages.values()]

    def _write(self, key: Digest, result: ActionResult) -> tuple[bytes, list[Digest]]:
        """Write an entry. Return its bytes, and the digests of the Trees that it names."""
        data, trees = write_result(result, self.cas.put)
        atomic.write(self.path(key), data)
        return data, trees

    def drop(self, key: Digest) -> None:
        """Remove a result from the disk, if there is one. The protocol of remote caches has no such request."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(key))
