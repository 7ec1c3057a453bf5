"""Images from a registry into a place that keeps blobs: each blob once, several at a time, nothing that is there already."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from bkrules.errors import ActionFailed
from bkrules.images.reference import ALL
from bkrules.images.registry_client import INDEXES, Manifest, RegistryClient

JOBS = 4


class Place(Protocol):
    """Where blobs go. A blob that is there has the right bytes."""

    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there."""

    def put(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep a blob, which is there when all of its bytes are. What `chunks` raises leaves nothing."""


class Copier:
    """Copies images into a place. To be used as a context manager, whose end waits for what runs."""

    def __init__(self, place: Place, jobs: int = JOBS) -> None:
        self._place = place
        self._pool = ThreadPoolExecutor(jobs)
        self._lock = threading.Lock()
        self._blobs: dict[str, Future[None]] = {}
        self.copied = 0
        """The bytes that were copied."""

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def image(self, client: RegistryClient, repository: str, reference: str, platform: str = ALL) -> Manifest:
        """Copy an image with all that belongs to it; its manifest. An index is narrowed to a platform, or kept whole with ALL.

        Raises ActionFailed when the registry does not have it, or not for that platform.
        """
        top = client.manifest(repository, reference)
        document = json.loads(top.data)
        if top.media_type in INDEXES and platform != ALL:
            digest = narrowed(document, platform, f"{client.host}/{repository}:{reference}")
            return self.image(client, repository, digest)
        for entry in document.get("manifests", []):
            self.image(client, repository, entry["digest"])
        described = [document["config"], *document["layers"]] if "layers" in document else []
        for future in [self._blob(client, repository, one) for one in described]:
            future.result()
        if not self._place.has(top.digest, len(top.data)):
            self._place.put(top.digest, [top.data])
        return top

    def _blob(self, client: RegistryClient, repository: str, described: Mapping[str, Any]) -> Future[None]:
        digest = described["digest"]
        with self._lock:
            if digest not in self._blobs:
                self._blobs[digest] = self._pool.submit(self._fetch, client, repository, digest, described["size"])
            return self._blobs[digest]

    def _fetch(self, client: RegistryClient, repository: str, digest: str, size: int) -> None:
        if not self._place.has(digest, size):
            self._place.put(digest, client.blob(repository, digest, size))
            with self._lock:
                self.copied += size


def platforms(index: Mapping[str, Any]) -> dict[str, str]:
    """The platforms of an index, `os/architecture[/variant]`, to the digests of their manifests; without attestations."""
    found = {}
    for entry in index["manifests"]:
        said = entry.get("platform", {})
        name = "/".join(filter(None, (said.get("os"), said.get("architecture"), said.get("variant"))))
        if name and not name.startswith("unknown"):
            found[name] = entry["digest"]
    return found


def narrowed(index: Mapping[str, Any], platform: str, what: str) -> str:
    """The digest of a platform's manifest. A platform without a variant means the only one of its architecture.

    Raises ActionFailed with the platforms that there are.
    """
    known = platforms(index)
    fitting = [name for name in known if name == platform] or [
        name for name in known if name.startswith(f"{platform}/")
    ]
    if len(fitting) != 1:
        problem = "no manifest" if not fitting else f"{len(fitting)} manifests"
        raise ActionFailed(
            "no-platform", f"{what} has {problem} for {platform}", hint=f"it has: {', '.join(sorted(known)) or 'none'}"
        )
    return known[fitting[0]]
