"""An OCI layout that an action has made, as a source of its image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import Manifest, closure, read_index, read_manifest
from bkrules.images.json_object import MANIFEST_LIMIT

if TYPE_CHECKING:
    from bkrules.model.action import DirectoryNode, FileNode

_PIECE = 1 << 20


class LayoutSource:
    """The one image of a layout. `host` is what the layout is called in errors."""

    def __init__(self, layout: DirectoryNode, host: str = "layout") -> None:
        self.host = host
        self._layout = layout

    def top(self) -> ImageDigest:
        """Return the digest of the image. Raises ActionFailed."""
        index = read_index(self._read("index.json"), f"{self.host}: index.json")
        if len({entry.digest for entry in index.entries}) != 1:
            raise self._bad(f"it has {len(index.entries)} images, not one")
        return index.entries[0].digest

    def blobs(self, manifest: ImageDigest) -> Iterator[tuple[ImageDigest, bool]]:
        """Yield the digests of an image, and whether each belongs to a manifest. Raises ActionFailed."""
        for one in closure(self._manifest(manifest), lambda entry: self._manifest(entry.digest)):
            yield one.digest, True
            yield from ((blob.digest, False) for blob in one.distributable)

    def file(self, digest: ImageDigest) -> FileNode:
        """Return the file of a blob. Raises ActionFailed."""
        node = self._layout.files.get(f"blobs/{digest.path}")
        if node is None:
            raise self._bad(f"it lacks the blob {digest}")
        if node.digest.hash != digest.hash:
            raise self._bad(f"its blob {digest} has the digest {node.digest}")
        return node

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return the manifest of a digest, or of the image when `reference` is empty; a layout has no repositories.
        Raises ActionFailed.
        """
        return self._manifest(ImageDigest(reference) if reference else self.top())

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterator[bytes]:
        """Yield the bytes of a blob. Raises ActionFailed."""
        node = self.file(digest)
        if node.digest.size != size:
            raise self._bad(f"its blob {digest} has {node.digest.size} bytes, and its manifest says {size}")
        with open(node.path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """Return None: a layout has one image without referrers."""
        return None

    def _manifest(self, digest: ImageDigest) -> Manifest:
        self.file(digest)
        return read_manifest(self._read(f"blobs/{digest.path}"), f"{self.host}: manifest {digest}", digest)

    def _read(self, path: str) -> bytes:
        node = self._layout.files.get(path)
        if node is None:
            raise self._bad(f"it has no {path}")
        with Path(node.path).open("rb") as file:
            return file.read(MANIFEST_LIMIT + 1)

    def _bad(self, problem: str) -> ActionFailed:
        return ActionFailed("bad-layout", f"{self.host} is not an OCI layout with one image: {problem}")
