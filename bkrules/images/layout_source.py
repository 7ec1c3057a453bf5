"""An OCI layout that an action has made, as a source of its image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.images.protocol import MANIFESTS, Manifest

if TYPE_CHECKING:
    from bkrules.action import DirectoryNode, FileNode

_PIECE = 1 << 20


class LayoutSource:
    """The one image of a layout."""

    host = "layout"

    def __init__(self, layout: DirectoryNode) -> None:
        self._layout = layout

    def top(self) -> str:
        """The digest of the image. Raises ValueError."""
        try:
            index = json.loads(Path(self._layout.files["index.json"].path).read_text())
            return str(index["manifests"][0]["digest"])
        except (LookupError, TypeError) as error:
            raise ValueError("the folder is not an OCI layout with one image") from error

    def blobs(self, manifest: str) -> Iterator[str]:
        """The digests of an image, its manifests among them. Raises ValueError."""
        yield manifest
        document = json.loads(Path(self.file(manifest).path).read_text())
        for entry in document.get("manifests", []):
            yield from self.blobs(entry["digest"])
        for entry in (document["config"], *document["layers"]) if "layers" in document else ():
            yield entry["digest"]

    def file(self, digest: str) -> FileNode:
        """The file of a blob. Raises ValueError."""
        try:
            return self._layout.files[f"blobs/{digest.replace(':', '/')}"]
        except KeyError:
            raise ValueError(f"the layout lacks the blob {digest}") from None

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest of a digest, or of the image when `reference` is empty; there are no repositories. Raises ValueError."""
        digest = reference or self.top()
        data = Path(self.file(digest).path).read_bytes()
        return Manifest(digest, json.loads(data).get("mediaType", MANIFESTS[0]), data)

    def blob(self, repository: str, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob. Raises ValueError."""
        with open(self.file(digest).path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece
