"""What everyone knows who speaks the OCI distribution protocol.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
HUB = "docker.io"
_HUB_SERVER = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")


def is_loopback(host: str) -> bool:
    """Whether a registry is on this machine, where it may speak plain HTTP, as with Docker."""
    return _LOOPBACK.fullmatch(host) is not None


def server(host: str) -> str:
    """The server that answers for a registry."""
    return _HUB_SERVER if host == HUB else host


def authorities() -> str | None:
    """The file of the authorities to trust, of REQUESTS_CA_BUNDLE or SSL_CERT_FILE; without one, the public ones."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index: its digest `sha256:...`, its media type, and its bytes."""

    digest: str
    media_type: str
    data: bytes


class Source(Protocol):
    """Where images come from: a registry, or a layout. `host` is what it is called in errors."""

    host: str

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest of a tag or a digest. Raises ActionFailed or ValueError when there is none."""

    def blob(self, repository: str, digest: str, size: int) -> Iterable[bytes]:
        """The bytes of a blob. Raises ActionFailed, at the end when they are not those of the digest."""


class Place(ABC):
    """Where images go to. A blob that is there has the right bytes."""

    @abstractmethod
    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there."""

    @abstractmethod
    def put(self, digest: str, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Keep a blob, which is there when all of its bytes are. What `chunks` raises leaves nothing."""

    def put_manifest(self, manifest: Manifest) -> None:
        """Keep a manifest, whose blobs are there."""
        if not self.has(manifest.digest, len(manifest.data)):
            self.put(manifest.digest, len(manifest.data), lambda: [manifest.data])
