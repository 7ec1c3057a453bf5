"""Images from a registry into a place that keeps blobs: each blob once, several at a time, nothing that is there already."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bkrules.errors import ActionFailed
from bkrules.images.protocol import INDEXES, Manifest, Place, Source
from bkrules.images.reference import ALL

JOBS = 4


class Copier:
    """Copies images from sources to places. To be used as a context manager, whose end waits for what runs."""

    def __init__(self, jobs: int = JOBS) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._lock = threading.Lock()
        self._blobs: dict[tuple[Place, str], Future[None]] = {}
        self.copied = 0
        """The bytes that were copied."""

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def image(self, source: Source, repository: str, reference: str, place: Place, platform: str = ALL) -> Manifest:
        """Copy an image with all that belongs to it; its manifest. An index is narrowed to a platform, or kept whole with ALL.

        Raises ActionFailed when the source does not have it, or not for that platform.
        """
        top = source.manifest(repository, reference)
        document = json.loads(top.data)
        if top.media_type in INDEXES and platform != ALL:
            return self.image(
                source, repository, narrowed(document, platform, f"{source.host}/{repository}:{reference}"), place
            )
        for entry in document.get("manifests", []):
            self.image(source, repository, entry["digest"], place)
        described = [document["config"], *document["layers"]] if "layers" in document else []
        for future in [self._blob(source, repository, place, one) for one in described]:
            future.result()
        place.put_manifest(top)
        return top

    def _blob(self, source: Source, repository: str, place: Place, described: Mapping[str, Any]) -> Future[None]:
        digest, size = described["digest"], described["size"]
        with self._lock:
            if (place, digest) not in self._blobs:
                copy = self._pool.submit(self._copy, source, repository, place, digest, size)
                self._blobs[place, digest] = copy
            return self._blobs[place, digest]

    def _copy(self, source: Source, repository: str, place: Place, digest: str, size: int) -> None:
        def chunks() -> Iterable[bytes]:
            for chunk in source.blob(repository, digest, size):
                yield chunk
                with self._lock:
                    self.copied += len(chunk)

        if not place.has(digest, size):
            place.put(digest, size, chunks)


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
