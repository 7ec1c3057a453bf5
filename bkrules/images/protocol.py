"""The common parts of the OCI distribution protocol.

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
    """Return whether a registry is on this machine, where it may use plain HTTP, as in Docker."""
    return _LOOPBACK.fullmatch(host) is not None


def server(host: str) -> str:
    """Return the server of a registry."""
    return _HUB_SERVER if host == HUB else host


def authorities() -> str | None:
    """Return the file of certificate authorities in REQUESTS_CA_BUNDLE or SSL_CERT_FILE; without one, the public authorities."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")


def written(host: str, repository: str, reference: str) -> str:
    """Return the name of a tag or a digest of a repository in errors."""
    return f"{host}/{repository}{'@' if ':' in reference else ':'}{reference}"


def referrers_tag(digest: ImageDigest) -> str:
    """Return the tag of the index of a manifest's referrers, for registries without the referrers API."""
    return digest.replace(":", "-")


class Source(Protocol):
    """A source of images: a registry, or a layout. `host` is its name in errors."""

    host: str

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return the manifest of a tag or a digest. Raises ActionFailed when there is none."""

    def blob(self, repository: str, digest: ImageDigest, size: int) -> Iterable[bytes]:
        """Yield the bytes of a blob, never more than `size`. Raises ActionFailed, at the end when they do not match the digest."""

    def referrers(self, repository: str, digest: ImageDigest) -> Manifest | None:
        """Return the index of a manifest's referrers; None when it has none. Raises ActionFailed."""


class Place(ABC):
    """A place for images. A blob in it has the right bytes."""

    @abstractmethod
    def has(self, digest: ImageDigest, size: int) -> bool:
        """Return whether the place has the blob."""

    @abstractmethod
    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Keep a blob, which exists only with all of its bytes. An exception of `chunks` leaves nothing."""

    def put_manifest(self, manifest: Manifest) -> None:
        """Keep a manifest, whose blobs the place has."""
        if not self.has(manifest.digest, len(manifest.data)):
            self.put(manifest.digest, len(manifest.data), lambda: [manifest.data])
