"""A source of images in memory, which says whatever a test wants: a registry of somebody who means no good."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bkrules.errors import ActionFailed
from bkrules.images import layout
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import INDEXES, Manifest, read_manifest
from bkrules.images.protocol import written
from bkrules.model import digest

CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()


def name_of(data: bytes) -> str:
    """The digest of bytes."""
    return f"{digest.of_bytes(data)}"


def encoded(document: object) -> bytes:
    """A document as bytes; bytes are what they are."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


class Shelf:
    """Manifests by tag or digest, and blobs by digest. What is put there is never checked."""

    host = "a.example"

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []

    def blob_of(self, data: bytes, media_type: str = layout.LAYER, **more: object) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        self.blobs[name_of(data)] = data
        return {"mediaType": media_type, "digest": name_of(data), "size": len(data), **more}

    def image(self, *layers: bytes, **more: object) -> dict[str, Any]:
        """A manifest with these layers, and other fields."""
        return {
            "schemaVersion": 2,
            "mediaType": layout.MANIFEST,
            "config": self.blob_of(CONFIG, layout.CONFIG),
            "layers": [self.blob_of(one) for one in layers],
            **more,
        }

    def index(self, *entries: Mapping[str, Any], **more: object) -> dict[str, Any]:
        """An index of these descriptors."""
        return {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": list(entries), **more}

    def put(self, document: object, tag: str = "1", platform: str = "", **more: object) -> dict[str, Any]:
        """Keep a manifest under a tag; its descriptor."""
        data = encoded(document)
        self.manifests[tag] = self.manifests[name_of(data)] = data
        media_type = document.get("mediaType", layout.MANIFEST) if isinstance(document, dict) else layout.MANIFEST
        system, _, architecture = platform.partition("/")
        said = {"platform": {"os": system, "architecture": architecture}} if platform else {}
        return {"mediaType": media_type, "digest": name_of(data), "size": len(data), **said, **more}

    def manifest(self, repository: str, reference: str) -> Manifest:
        """As a registry would, which says nothing that a client need believe."""
        self.asked.append(reference)
        if reference not in self.manifests:
            raise ActionFailed("registry", f"there is no {reference}")
        expected = reference if ":" in reference else ""
        return read_manifest(self.manifests[reference], written(self.host, repository, reference), expected)

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """The index of a tag, as for a registry without the referrers API."""
        tag = digest.replace(":", "-")
        return read_manifest(self.manifests[tag], digest) if tag in self.manifests else None

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterable[bytes]:
        """The bytes of a blob."""
        self.asked.append(digest)
        if digest not in self.blobs:
            raise ActionFailed("registry", f"there is no blob {digest}")
        return [self.blobs[digest]]
