"""A registry's storage tree, written without the registry.

The layout is that of the distribution registry's filesystem driver. So a mirror needs no upload, and the registry that
serves it can be read-only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.cache import atomic
from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import Manifest, closure, read_manifest
from bkrules.images.json_object import MANIFEST_LIMIT
from bkrules.images.layout_source import LayoutSource
from bkrules.images.protocol import Place
from bkrules.model.reference import Reference
from bkrules.system.files import open_regular

if TYPE_CHECKING:
    from bkrules.model.action import DirectoryNode, FileNode

SOCKET = "registry.sock"
CONFIGURATION = f"""version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: data}}
  maintenance: {{readonly: {{enabled: true}}}}
http: {{net: unix, addr: {SOCKET}}}
"""
"""The configuration of a read-only registry for the tree in the folder `data`, on a socket next to it."""
_BLOB_MODE = 0o644
_BASE = "docker/registry/v2"
_LINK = 100  # bytes; a link has 71


class Tree(Place):
    """A storage tree below a folder. Each file appears whole, so a registry may serve it meanwhile."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = f"{root}/{_BASE}"

    def path(self, digest: ImageDigest) -> str:
        """Return the path of a blob, whether it exists or not."""
        return f"{self._root}/{_blob(digest)}"

    def has(self, digest: ImageDigest, size: int) -> bool:
        """Return whether a blob of that size exists."""
        return _has(self.path(digest), size)

    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Keep a blob. An exception of `chunks` leaves nothing."""
        os.makedirs(os.path.dirname(self.path(digest)), exist_ok=True)
        atomic.write_chunks(self.path(digest), chunks(), _BLOB_MODE)

    def put_manifest(self, manifest: Manifest) -> None:
        """Keep a manifest, whose blobs the tree has. An existing one with other bytes is replaced."""
        if self.read(manifest.digest) != manifest.data:
            self.put(manifest.digest, len(manifest.data), lambda: [manifest.data])

    def read(self, digest: ImageDigest) -> bytes | None:
        """Return a manifest's bytes, or None when it does not exist. Of a too large file it returns only the beginning."""
        return _read(self.path(digest), MANIFEST_LIMIT + 1)

    def tagged(self, reference: Reference) -> ImageDigest | None:
        """Return the digest of a tag in the tree, or None."""
        data = _read(f"{self._root}/{_tag(reference)}/current/link", _LINK)
        try:
            return ImageDigest((data or b"").decode())
        except ValueError:
            return None

    def references(self) -> Iterator[tuple[str, str]]:
        """Yield the repositories and tags of the tree."""
        for link in sorted(Path(self._base, "repositories").glob("**/_manifests/tags/*/current/link")):
            tags = link.parents[2]
            yield str(tags.parents[1].relative_to(f"{self._base}/repositories")), link.parents[1].name

    def add(self, reference: Reference, manifest: ImageDigest) -> None:
        """Tag an image whose blobs the tree has; the tag is written last."""
        for path, digest in _links(reference, manifest, self.blobs(manifest)):
            _write(f"{self._root}/{path}", digest.encode())

    def blobs(self, manifest: ImageDigest) -> Iterator[tuple[ImageDigest, bool]]:
        """Yield the digests of an image, and whether each belongs to a manifest. Raises ActionFailed when a manifest is missing."""
        for one in closure(self.manifest(manifest), lambda entry: self.manifest(entry.digest)):
            yield from ((blob.digest, False) for blob in one.distributable)
            yield one.digest, True

    def manifest(self, digest: ImageDigest) -> Manifest:
        """Return a manifest of the tree. Raises ActionFailed."""
        data = self.read(digest)
        if data is None:
            raise ActionFailed("bad-mirror", f"there is no manifest {digest}")
        return read_manifest(data, f"manifest {digest}", digest)


def files_of(images: Mapping[Reference, DirectoryNode]) -> dict[str, FileNode | bytes]:
    """Return the files of a storage tree with these images, given as OCI layouts: stored files, and bytes. The tags are last.

    Raises ActionFailed for a malformed layout.
    """
    files: dict[str, FileNode | bytes] = {}
    for reference, layout in images.items():
        source = LayoutSource(layout, str(reference))
        manifest = source.top()
        blobs = list(source.blobs(manifest))
        files.update((_blob(digest), source.file(digest)) for digest, _ in blobs)
        files.update((path, digest.encode()) for path, digest in _links(reference, manifest, blobs))
    return files


def write_tree(root: Path, images: Mapping[Reference, DirectoryNode], *, link: bool = True) -> None:
    """Fill the folder `root` with these images, given as OCI layouts. Raises ActionFailed for a malformed layout.

    Blobs are hard links of stored files; without `link` they are copies, for a folder that others may write to.
    """
    for path, content in files_of(images).items():
        place = f"{root}/{path}"
        if isinstance(content, bytes):
            _write(place, content)
        elif not _has(place, content.digest.size):  # the folder may have had the blob before
            if link:
                atomic.place(content.path, place)
            else:
                atomic.copy(content.path, place, _BLOB_MODE)


def _links(
    reference: Reference, manifest: ImageDigest, blobs: Iterable[tuple[ImageDigest, bool]]
) -> Iterator[tuple[str, ImageDigest]]:
    """Yield the paths of the files that name the blobs of an image in its repository, and the digests that they hold."""
    repository = f"{_BASE}/repositories/{reference.repository}"
    for digest, is_manifest in blobs:
        folder = "_manifests/revisions" if is_manifest else "_layers"
        yield f"{repository}/{folder}/{digest.path}/link", digest
    yield f"{_tag(reference)}/index/{manifest.path}/link", manifest
    yield f"{_tag(reference)}/current/link", manifest


def _blob(digest: ImageDigest) -> str:
    return f"{_BASE}/blobs/sha256/{digest.hash[:2]}/{digest.hash}/data"


def _tag(reference: Reference) -> str:
    return f"{_BASE}/repositories/{reference.repository}/_manifests/tags/{reference.tag}"


def _has(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def _read(path: str, limit: int) -> bytes | None:
    """Return the first bytes of a regular file, or None when it does not exist."""
    try:
        with open_regular(path) as file:
            return file.read(limit)
    except OSError:
        return None


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    atomic.write(path, data)
