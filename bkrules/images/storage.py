"""A registry's storage tree, written without the registry.

The layout is that of the distribution registry's filesystem driver. Written this way, a mirror costs no upload, and the
registry that serves it can be read-only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.cache import atomic
from bkrules.images.layout_source import LayoutSource
from bkrules.images.protocol import Place
from bkrules.images.reference import Reference

if TYPE_CHECKING:
    from bkrules.action import DirectoryNode, FileNode

_BLOB_MODE = 0o644


class Tree(Place):
    """A storage tree below a folder. Each file appears whole, so a registry may serve it meanwhile."""

    def __init__(self, root: Path) -> None:
        self._base = f"{root}/docker/registry/v2"

    def path(self, digest: str) -> str:
        """Where a blob is, or would be."""
        name = digest.removeprefix("sha256:")
        return f"{self._base}/blobs/sha256/{name[:2]}/{name}/data"

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob of that size is there."""
        try:
            return os.stat(self.path(digest)).st_size == size
        except OSError:
            return False

    def put(self, digest: str, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Keep a blob. What `chunks` raises leaves nothing."""
        os.makedirs(os.path.dirname(self.path(digest)), exist_ok=True)
        atomic.write_chunks(self.path(digest), chunks(), _BLOB_MODE)

    def adopt(self, digest: str, source: FileNode) -> None:
        """Keep a blob as a hard link of a stored file."""
        if not os.path.exists(self.path(digest)):  # two images may share it
            atomic.place(source.path, Path(self.path(digest)))

    def read(self, digest: str) -> bytes | None:
        """A blob's bytes, or None when it is not there."""
        try:
            return Path(self.path(digest)).read_bytes()
        except OSError:
            return None

    def tagged(self, reference: Reference) -> str:
        """The digest that a tag has in the tree, or nothing."""
        try:
            return Path(self._tag(reference), "current/link").read_text()
        except OSError:
            return ""

    def references(self) -> Iterator[tuple[str, str]]:
        """The repositories and tags of the tree."""
        for link in sorted(Path(self._base, "repositories").glob("**/_manifests/tags/*/current/link")):
            tags = link.parents[2]
            yield str(tags.parents[1].relative_to(f"{self._base}/repositories")), link.parents[1].name

    def add(self, reference: Reference, manifest: str) -> None:
        """Give an image whose blobs are there its name; the tag comes last."""
        repository = f"{self._base}/repositories/{reference.repository}"
        for digest, is_manifest in self.blobs(manifest):
            folder = "_manifests/revisions" if is_manifest else "_layers"
            _write(f"{repository}/{folder}/{digest.replace(':', '/')}/link", digest)
        _write(f"{self._tag(reference)}/index/{manifest.replace(':', '/')}/link", manifest)
        _write(f"{self._tag(reference)}/current/link", manifest)

    def blobs(self, manifest: str) -> Iterator[tuple[str, bool]]:
        """The digests of an image, and whether each is one of a manifest. Raises ValueError when a manifest is missing."""
        data = self.read(manifest)
        if data is None:
            raise ValueError(f"there is no manifest {manifest}")
        document = json.loads(data)
        for entry in document.get("manifests", []):
            yield from self.blobs(entry["digest"])
        for entry in (document["config"], *document["layers"]) if "layers" in document else ():
            yield entry["digest"], False
        yield manifest, True

    def _tag(self, reference: Reference) -> str:
        return f"{self._base}/repositories/{reference.repository}/_manifests/tags/{reference.tag}"


def write_tree(root: Path, images: Mapping[Reference, DirectoryNode]) -> None:
    """Fill the folder `root` with these images, each given as an OCI layout. Raises ValueError for a layout that is none."""
    tree = Tree(root)
    for reference, layout in images.items():
        source = LayoutSource(layout)
        manifest = source.top()
        for digest in source.blobs(manifest):
            tree.adopt(digest, source.file(digest))
        tree.add(reference, manifest)


def _write(path: str, digest: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    atomic.write(path, digest.encode())
