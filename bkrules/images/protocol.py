"""What everyone knows who speaks the OCI distribution protocol.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

from bkrules.images.digests import ImageDigest
from bkrules.images.documents import ARTIFACTS, INDEXES, MANIFESTS, Manifest

ACCEPT = ", ".join((*INDEXES, *MANIFESTS, *ARTIFACTS))
HUB = "docker.io"
_HUB_SERVER = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")


def is_loopback(host: str) -> bool:
    """Return whether a registry is on this machine, where it may speak plain HTTP, as with Docker."""
    return _LOOPBACK.fullmatch(host) is not None


def server(host: str) -> str:
    """Return the server that answers for a registry."""
    return _HUB_SERVER if host == HUB else host


def authorities() -> str | None:
    """Return the file of the authorities to trust, of REQUESTS_CA_BUNDLE or SSL_CERT_FILE; without one, the public ones."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")


def written(host: str, repository: str, reference: str) -> str:
    """Return what a tag or a digest of a repository is called in errors."""
    return f"{host}/{repository}{'@' if ':' in reference else ':'}{reference}"


def referrers_tag(digest: ImageDigest) -> str:
    """Return the tag of the index of what refers to a manifest, where a registry has no such list of its own."""
    return digest.replace(":", "-")


class Source(Protocol):
    """Where images come from: a registry, or a layout. `host` is what it is called in errors."""

    host: str

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return the manifest of a tag or a digest. Raises ActionFailed when there is none."""

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterable[bytes]:
        """The bytes of a blob, never more than `size`. Raises ActionFailed, at the end when they are not those of the digest."""

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """Return the index of what refers to a manifest; None when nothing does. Raises ActionFailed."""


class Place(ABC):
    """Where images go to. A blob that is there has the right bytes."""

    @abstractmethod
    def has(self, digest: ImageDigest, size: int) -> bool:
        """Return whether the blob is there."""

    @abstractmethod
    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Keep a blob, which is there when all of its bytes are. What `chunks` raises leaves nothing."""

    def put_manifest(self, manifest: Manifest) -> None:
        """Keep a manifest, whose blobs are there."""
        if not self.has(manifest.digest, len(manifest.data)):
            self.put(manifest.digest, len(manifest.data), lambda: [manifest.data])
