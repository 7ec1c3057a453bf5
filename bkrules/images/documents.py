"""The parser of OCI and Docker documents: manifests, indexes, configurations.

bk refuses documents that other clients would parse differently (two fields of one name, `Layers` next to `layers`, an
index that has layers), since a copy would not be what they see. Every error is an ActionFailed that names the document
and the field.

https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bkrules.images.digests import ImageDigest
from bkrules.images.json_object import MANIFEST_LIMIT, JsonObject, bad, read_json
from bkrules.model.digest import of_bytes

BLOB_LIMIT = 1 << 40
"""The limit in bytes of a blob."""
INDEX_DEPTH = 8
"""The limit of nested indexes."""
MOST_MANIFESTS = 10_000
"""The limit of manifests in one image."""

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ARTIFACTS = ("application/vnd.oci.artifact.manifest.v1+json",)
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_FOREIGN = re.compile(
    r"application/vnd\.(docker\.image\.rootfs\.foreign\.diff|oci\.image\.layer\.nondistributable\.v1)\.tar([.+]\w+)?"
)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}( *;[ -~]*)?")
_PLATFORM = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "data", "platform")
_DOCUMENT = ("schemaVersion", "mediaType", "manifests", "config", "layers", "blobs", "subject", "fsLayers")
_CONFIG = ("architecture", "os", "variant", "config", "rootfs", "history")


class Kind(Enum):
    """The kind of a document, with the fields that no other kind has."""

    INDEX = ("manifests",)
    IMAGE = ("config", "layers")
    ARTIFACT = ("blobs",)
    SCHEMA_1 = ("fsLayers",)


_KINDS = {
    **dict.fromkeys(INDEXES, Kind.INDEX),
    **dict.fromkeys(MANIFESTS, Kind.IMAGE),
    **dict.fromkeys(ARTIFACTS, Kind.ARTIFACT),
}
_UNNAMED = {Kind.INDEX: INDEXES[0], Kind.IMAGE: MANIFESTS[0]}  # these may lack a media type


@dataclass(frozen=True)
class Descriptor:
    """The description of a blob or of another document. `platform` is `os/architecture[/variant]`, or empty.

    `data` are its bytes when the descriptor contains them. `raw` is the descriptor as it was written.
    """

    media_type: str
    digest: ImageDigest
    size: int
    platform: str
    data: bytes | None
    raw: Mapping[str, Any]

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that may not be distributed: registries do not have it, and clients do not copy it."""
        return _FOREIGN.fullmatch(self.media_type) is not None


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index. `where` is its name in errors; `entries` are those of an index.

    `blobs` are the configuration and the layers of an image, or the blobs of an artifact.
    """

    digest: ImageDigest
    data: bytes
    kind: Kind
    media_type: str
    where: str
    entries: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None

    @property
    def distributable(self) -> tuple[Descriptor, ...]:
        """The blobs without foreign layers."""
        return tuple(blob for blob in self.blobs if not blob.is_foreign)

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor of this document for an index."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Config:
    """The configuration of an image, `raw` as it was written."""

    platform: str
    diff_ids: tuple[ImageDigest, ...]
    raw: dict[str, Any]


def _descriptors(fields: JsonObject, name: str, limit: int) -> tuple[Descriptor, ...]:
    """Return a list of descriptors."""
    return tuple(
        _descriptor(JsonObject(item, fields.where, fields.at(place), _DESCRIPTOR), limit)
        for place, item in fields.items(name)
    )


def _descriptor(fields: JsonObject, limit: int) -> Descriptor:
    platform = fields.object("platform", ("os", "architecture", "variant"))
    descriptor = Descriptor(
        fields.text("mediaType", _MEDIA_TYPE, "a media type"),
        fields.digest("digest"),
        fields.size("size", limit),
        _platform(platform) if platform else "",
        _embedded(fields),
        fields.raw,
    )
    fields.texts("urls")
    data, size, digest = descriptor.data, descriptor.size, descriptor.digest
    if data is not None and (len(data), ImageDigest.of_hash(of_bytes(data).hash)) != (size, digest):
        raise bad(fields.where, f"the field {fields.at('data')!r} does not have the bytes of {digest}")
    return descriptor


def _embedded(fields: JsonObject) -> bytes | None:
    value = fields.get("data")
    if value is None:
        return None
    import base64

    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise fields.wrong("data", "base64", value) from None


def _platform(fields: JsonObject) -> str:
    """Return `os/architecture[/variant]`, or an empty text when one of the first two is missing."""
    system, architecture, variant = (
        fields.text(name, _PLATFORM, "a short word") for name in ("os", "architecture", "variant")
    )
    return "/".join(filter(None, (system, architecture, variant))) if system and architecture else ""


def read_manifest(data: bytes, where: str, expected: str = "") -> Manifest:
    """Return the manifest or index in `data`, whose digest must be `expected` when that is given.

    Its media type is the declared one, or follows from its fields. Raises ActionFailed.
    """
    if len(data) > MANIFEST_LIMIT:
        raise bad(where, f"it is larger than {MANIFEST_LIMIT} bytes")
    digest = ImageDigest.of_hash(of_bytes(data).hash)
    if expected not in ("", digest):
        raise bad(where, f"it has the digest {digest} and not {expected}")
    fields = JsonObject(read_json(data, where), where, "", _DOCUMENT)
    kind, media_type = _kind(fields)
    subject = fields.object("subject", _DESCRIPTOR)
    config = fields.object("config", _DESCRIPTOR)
    if kind is Kind.IMAGE and config is None:
        raise fields.wrong("config", "a descriptor", None)
    if kind is not Kind.ARTIFACT and (type(fields.get("schemaVersion")) is not int or fields.get("schemaVersion") != 2):
        raise fields.wrong("schemaVersion", "2", fields.get("schemaVersion"))
    blobs = _descriptors(fields, "layers" if kind is Kind.IMAGE else "blobs", BLOB_LIMIT)
    return Manifest(
        digest,
        data,
        kind,
        media_type,
        where,
        _descriptors(fields, "manifests", MANIFEST_LIMIT),
        (_descriptor(config, BLOB_LIMIT), *blobs) if config else blobs,
        _descriptor(subject, MANIFEST_LIMIT) if subject else None,
    )


def _kind(fields: JsonObject) -> tuple[Kind, str]:
    """Return the kind of a document, and its media type. Raises ActionFailed for a kind that bk cannot copy, and for an
    ambiguous one.
    """
    media_type = fields.text("mediaType", _MEDIA_TYPE, "a media type")
    if media_type.startswith(_SCHEMA_1) or (not media_type and fields.get("schemaVersion") == 1):
        raise bad(
            fields.where, "it is a manifest of schema 1, which bk does not copy; push the image again to convert it"
        )
    if media_type and media_type not in _KINDS:
        raise bad(fields.where, f"bk cannot copy its type {media_type}")
    shapes = {name: kind for kind in Kind for name in kind.value if fields.get(name) is not None}
    kind = _KINDS[media_type] if media_type else next(iter(shapes.values()), None)
    if kind not in _UNNAMED and not media_type:
        raise bad(fields.where, "it is neither a manifest nor an index")
    for name, other in shapes.items():
        if other is not kind:  # other clients may read it as the other kind
            raise bad(fields.where, f"it has the field {name!r}, which {media_type or 'such a document'} does not have")
    assert kind is not None
    return kind, media_type or _UNNAMED[kind]


def read_index(data: bytes, where: str, expected: str = "") -> Manifest:
    """Return the index in `data`. Raises ActionFailed, also for a manifest."""
    index = read_manifest(data, where, expected)
    if index.kind is not Kind.INDEX:
        raise bad(where, "it is not an index")
    return index


def joined_index(entries: Sequence[Mapping[str, Any]], where: str) -> Manifest:
    """Return an index of these descriptors. Raises ActionFailed when that is too large."""
    document = {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": list(entries)}
    return read_index(json.dumps(document, separators=(",", ":")).encode(), where)


def read_config(data: bytes, where: str) -> Config:
    """Return the configuration of an image. Raises ActionFailed."""
    fields = JsonObject(read_json(data, where), where, "", _CONFIG)
    rootfs = fields.object("rootfs", ("type", "diff_ids"))
    fields.object("config")
    fields.items("history")
    diff_ids = tuple(rootfs.parsed(at, item) for at, item in rootfs.items("diff_ids")) if rootfs else ()
    return Config(_platform(fields), diff_ids, fields.raw)


def read_saved(data: bytes, where: str) -> list[tuple[str, list[str]]]:
    """Return the images in a docker archive's `manifest.json`: the file of the configuration, and those of the layers.

    Raises ActionFailed.
    """
    document = read_json(data, where)
    images = []
    for number, (_, item) in enumerate(JsonObject({"images": document}, where, "", ()).items("images")):
        fields = JsonObject(item, where, f"[{number}]", ("Config", "Layers"))
        images.append((fields.text("Config", re.compile(r".+"), "a name"), fields.texts("Layers")))
    return images


def closure(top: Manifest, fetch: Callable[[Descriptor], Manifest]) -> Iterator[Manifest]:
    """Yield every manifest of an image once, those of an index before it.

    `fetch` returns the document of an index's entry. Raises ActionFailed when indexes are nested too deeply or have too
    many manifests, and when an entry does not match its document.
    """
    yield from _below(top, fetch, {}, 1)


def _below(
    top: Manifest, fetch: Callable[[Descriptor], Manifest], seen: dict[ImageDigest, int], depth: int
) -> Iterator[Manifest]:
    seen[top.digest] = len(top.data)
    if len(seen) > MOST_MANIFESTS:
        raise bad(top.where, f"its image has more than {MOST_MANIFESTS} manifests")
    if top.entries and depth > INDEX_DEPTH:
        raise bad(top.where, f"indexes are nested more than {INDEX_DEPTH} deep")
    for entry in top.entries:
        if seen.get(entry.digest) != entry.size:
            yield from _below(described(entry, fetch, top.where), fetch, seen, depth + 1)
    yield top


def described(entry: Descriptor, fetch: Callable[[Descriptor], Manifest], where: str) -> Manifest:
    """Return the document of an index's entry. Raises ActionFailed when it does not match the entry."""
    name = f"{where}: {entry.digest}"
    document = fetch(entry) if entry.data is None else read_manifest(entry.data, name, entry.digest)
    if len(document.data) != entry.size:
        raise bad(where, f"the entry {entry.digest} says {entry.size} bytes, and there are {len(document.data)}")
    if entry.media_type and (entry.media_type in INDEXES) != (document.kind is Kind.INDEX):
        raise bad(where, f"the entry {entry.digest} says {entry.media_type}, and it is {document.media_type}")
    return document
