"""A registry as the place for copies: bk does not send blobs that it has, and mounts those of its other repositories."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from bkrules.images.digests import ImageDigest
from bkrules.images.documents import Manifest
from bkrules.images.protocol import Place
from bkrules.images.registry_client import RegistryClient
from bkrules.model.reference import Reference


class Registry:
    """A registry to which images are pushed, each below `prefix` under its own repository and tag."""

    def __init__(self, client: RegistryClient, prefix: str = "") -> None:
        self.client = client
        self._prefix = prefix and f"{prefix}/"
        self._homes: dict[ImageDigest, str] = {}
        self._lock = threading.Lock()
        self._turns: defaultdict[ImageDigest, threading.Lock] = defaultdict(threading.Lock)

    def tagged(self, reference: Reference) -> str:
        """Return the digest of a reference's tag there, or an empty text. Raises ActionFailed."""
        return self.client.has(self._name(reference), f"manifests/{reference.tag}")

    def place(self, reference: Reference) -> Place:
        """Return the repository of a reference there. Blobs from the same registry are mounted from their repository."""
        return _Repository(
            self, self._name(reference), reference.repository if reference.host == self.client.host else ""
        )

    def tag(self, reference: Reference, manifest: Manifest) -> None:
        """Tag an image whose blobs the registry has. Raises ActionFailed."""
        self.client.put_manifest(self._name(reference), reference.tag, manifest)

    def home(self, digest: ImageDigest) -> str:
        """Return a repository there that is known to have a blob, or an empty text."""
        return self._homes.get(digest, "")

    def found(self, digest: ImageDigest, repository: str) -> None:
        """Record that a repository there has a blob."""
        self._homes[digest] = repository

    def turn(self, digest: ImageDigest) -> threading.Lock:
        """Return the lock for sending a blob: a waiting thread can mount the blob afterwards."""
        with self._lock:
            return self._turns[digest]

    def _name(self, reference: Reference) -> str:
        return f"{self._prefix}{reference.repository}"


class _Repository(Place):
    def __init__(self, registry: Registry, name: str, origin: str) -> None:
        self._registry, self._name, self._origin = registry, name, origin

    def has(self, digest: ImageDigest, size: int) -> bool:
        if not self._registry.client.has(self._name, f"blobs/{digest}"):
            return False
        self._registry.found(digest, self._name)
        return True

    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        with self._registry.turn(digest):
            origin = self._registry.home(digest) or self._origin
            self._registry.client.upload(self._name, digest, size, chunks, origin)
            self._registry.found(digest, self._name)

    def put_manifest(self, manifest: Manifest) -> None:
        if not self._registry.client.has(self._name, f"manifests/{manifest.digest}"):
            self._registry.client.put_manifest(self._name, manifest.digest, manifest)
