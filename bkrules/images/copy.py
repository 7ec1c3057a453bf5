"""Copies of images from a source to a place for blobs: each blob once, several at a time, and none that the place has already."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import (
    CONFIGS,
    INDEX_DEPTH,
    MOST_MANIFESTS,
    Descriptor,
    Kind,
    Manifest,
    closure,
    described,
    read_config,
)
from bkrules.images.json_object import MANIFEST_LIMIT, bad
from bkrules.images.protocol import Place, Source
from bkrules.model.reference import ALL

JOBS = 4


class Copier:
    """Copies images from sources to places. A context manager, whose end waits for running copies."""

    def __init__(self, jobs: int = JOBS) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._lock = threading.Lock()
        self._blobs: dict[tuple[Place, ImageDigest, int], Future[None]] = {}
        self.copied = 0
        """The number of copied bytes."""
        self.total = 0
        """The number of bytes of all known blobs that the places do not have."""

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def image(self, source: Source, repository: str, reference: str, place: Place, platform: str = ALL) -> Manifest:
        """Copy an image with all that belongs to it. Return its manifest. An index is narrowed to a platform, or kept
        whole with ALL.

        Foreign layers are not copied, as in other clients. Raises ActionFailed when the source lacks the image or the
        platform, or when the image cannot be copied whole.
        """
        top = source.manifest(repository, reference)
        if platform != ALL:
            top = narrowed(source, repository, top, platform)
        for manifest in closure(top, lambda entry: source.manifest(repository, entry.digest)):
            for future in [self._blob(source, repository, place, one) for one in manifest.distributable]:
                future.result()
            place.put_manifest(manifest)
        return top

    def referrers(
        self, source: Source, repository: str, top: Manifest, place: Place
    ) -> Iterator[tuple[ImageDigest, Manifest]]:
        """Copy the referrers of an image's manifests, and the referrers of these: signatures, SBOMs.

        Return each manifest that has referrers, with the index of its referrers; the index belongs under the manifest's
        `referrers_tag`. Raises ActionFailed.
        """

        def fetch(entry: Descriptor) -> Manifest:
            return source.manifest(repository, entry.digest)

        waiting, seen = [top.digest], {top.digest}
        while waiting:
            for manifest in closure(source.manifest(repository, waiting.pop()), fetch):
                found = source.referrers(repository, manifest.digest)
                more = [*(found.entries if found else ()), *([manifest.subject] if manifest.subject else ())]
                for entry in more:
                    if entry.digest not in seen:
                        seen.add(entry.digest)
                        if len(seen) > MOST_MANIFESTS:
                            raise bad(top.where, f"more than {MOST_MANIFESTS} manifests refer to it")
                        waiting.append(self.image(source, repository, entry.digest, place).digest)
                if found is not None and found.entries:
                    place.put_manifest(found)
                    yield manifest.digest, found

    def _blob(self, source: Source, repository: str, place: Place, blob: Descriptor) -> Future[None]:
        key = (place, blob.digest, blob.size)
        with self._lock:
            if key not in self._blobs:
                self.total += blob.size
                self._blobs[key] = self._pool.submit(self._copy, source, repository, place, blob)
            return self._blobs[key]

    def _copy(self, source: Source, repository: str, place: Place, blob: Descriptor) -> None:
        def chunks() -> Iterable[bytes]:
            for chunk in _bytes(source, repository, blob):
                yield chunk
                with self._lock:
                    self.copied += len(chunk)

        if not place.has(blob.digest, blob.size):
            place.put(blob.digest, blob.size, chunks)
        else:
            with self._lock:
                self.total -= blob.size


def _bytes(source: Source, repository: str, blob: Descriptor) -> Iterable[bytes]:
    return source.blob(repository, blob.digest, blob.size) if blob.data is None else [blob.data]


def platforms(index: Manifest) -> dict[str, ImageDigest]:
    """Return the platforms of an index, `os/architecture[/variant]`, to the digests of their manifests; without attestations.

    Of two entries for one platform the first counts, as in other clients.
    """
    return {name: entry.digest for name, entry in _offered(index).items()}


def _offered(index: Manifest) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    for entry in index.entries:
        if entry.platform and not entry.platform.startswith("unknown"):
            found.setdefault(entry.platform, entry)
    return found


def narrowed(source: Source, repository: str, top: Manifest, platform: str) -> Manifest:
    """Return the manifest of a platform in an index or its nested indexes. A single manifest is returned as it is.

    A platform without a variant matches the only one of its architecture. For an entry without a platform, bk reads its
    configuration. Raises ActionFailed with the available platforms.
    """

    def fetch(entry: Descriptor) -> Manifest:
        return source.manifest(repository, entry.digest)

    found = top
    for _ in range(INDEX_DEPTH + 1):
        if found.kind is not Kind.INDEX:
            return found
        known = _offered(found)
        fitting = _fitting(known, platform)
        if not fitting:
            for name, entry in _nameless(source, repository, found, set()):
                known.setdefault(name, entry)
            fitting = _fitting(known, platform)
        if len(fitting) != 1:
            problem = "no manifest" if not fitting else f"{len(fitting)} manifests"
            hint = f"it has: {', '.join(sorted(known)) or 'none'}"
            raise ActionFailed("no-platform", f"{top.where} has {problem} for {platform}", hint=hint)
        found = described(known[fitting[0]], fetch, found.where)
    raise bad(top.where, f"indexes are nested more than {INDEX_DEPTH} deep")


def _fitting(known: Mapping[str, Descriptor], platform: str) -> list[str]:
    return [name for name in known if name == platform] or [name for name in known if name.startswith(f"{platform}/")]


def _nameless(
    source: Source, repository: str, index: Manifest, seen: set[ImageDigest]
) -> Iterator[tuple[str, Descriptor]]:
    """Yield the entries without a platform, with the platform of their configuration, and the entries of nested indexes."""
    for entry in index.entries:
        if entry.platform or entry.digest in seen:
            continue
        seen.add(entry.digest)
        if len(seen) > MOST_MANIFESTS:
            raise bad(index.where, f"it has more than {MOST_MANIFESTS} entries without a platform")
        manifest = described(entry, lambda one: source.manifest(repository, one.digest), index.where)
        if manifest.kind is Kind.INDEX:
            yield from _offered(manifest).items()
            yield from _nameless(source, repository, manifest, seen)
        elif (config := manifest.blobs[:1]) and config[0].media_type in CONFIGS and config[0].size <= MANIFEST_LIMIT:
            data = b"".join(_bytes(source, repository, config[0]))
            platform = read_config(data, f"{manifest.where}: its configuration").platform
            if platform:
                yield platform, entry
