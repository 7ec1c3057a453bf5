"""Archives of one image, as `docker save` and BuildKit's exporters write them."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bkrules.cache import atomic
from bkrules.images import layout
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import (
    BLOB_LIMIT,
    Config,
    Manifest,
    closure,
    read_config,
    read_index,
    read_manifest,
    read_saved,
)
from bkrules.images.json_object import MANIFEST_LIMIT
from bkrules.images.tar_reader import BZIP2, GZIP, XZ, ZSTD, TarReader, bad, opened

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_NAMED = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?")  # after its digest
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame of zstd


def unpack(archive: Path, folder: Path) -> None:
    """Write the layout of the one image in an OCI or docker archive to `folder`. Raises ActionFailed.

    Other files of the archive are left out.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with opened(archive, folder.parent) as tar:
        if tar.has("index.json"):
            _from_layout(tar, folder)
        elif tar.has("manifest.json"):
            _from_docker(tar, folder)
        else:
            raise bad("it has neither index.json nor manifest.json")


def _from_layout(tar: TarReader, folder: Path) -> None:
    def fetch(digest: ImageDigest) -> Manifest:
        return read_manifest(tar.read(f"blobs/{digest.path}", MANIFEST_LIMIT), f"manifest {digest}", digest)

    index = read_index(tar.read("index.json", MANIFEST_LIMIT), "index.json")
    if len({entry.digest for entry in index.entries}) != 1:  # docker has one entry for each name of an image
        raise bad(f"it holds {len(index.entries)} images, not one")
    top = fetch(index.entries[0].digest)
    for manifest in closure(top, lambda entry: fetch(entry.digest)):
        for blob in manifest.distributable:
            pieces = tar.pieces(f"blobs/{blob.digest.path}") if blob.data is None else [blob.data]
            _keep(pieces, folder, blob.digest, blob.size)
        _keep([manifest.data], folder, manifest.digest, len(manifest.data))
    layout.write_index(folder, top.descriptor)


def _from_docker(tar: TarReader, folder: Path) -> None:
    images = read_saved(tar.read("manifest.json", MANIFEST_LIMIT), "manifest.json")
    if len(images) != 1:
        raise bad(f"it holds {len(images)} images, not one")
    ((name, names),) = images
    name = posixpath.normpath(name)
    data = tar.read(name, MANIFEST_LIMIT)
    described = _described(tar, name, layout.CONFIG, folder)
    config = read_config(data, name)
    if len(config.diff_ids) != len(names):
        raise bad(f"it has {len(names)} layers, and its configuration names {len(config.diff_ids)}")
    layers = _layers(tar, [posixpath.normpath(one) for one in names], folder)
    _check(config, layers)
    manifest = {"schemaVersion": 2, "mediaType": layout.MANIFEST, "config": described, "layers": layers}
    layout.write_manifest(folder, manifest)


def _layers(tar: TarReader, names: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Keep layers. Return their descriptors. A file with several names is read once, and again for each name that is a digest."""
    found: dict[int, dict[str, Any]] = {}
    for name in dict.fromkeys(names):
        if tar.place(name) not in found or _is_digest(name):
            found[tar.place(name)] = _described(tar, name, "", folder)
    return [found[tar.place(name)] for name in names]


def _described(tar: TarReader, name: str, media_type: str, folder: Path) -> dict[str, Any]:
    """Keep a file of the archive as a blob. Return its descriptor. A file with a digest as its name must have that digest."""
    found = hashlib.sha256()
    for piece in tar.pieces(name):
        found.update(piece)
    digest = ImageDigest.of_hash(found.hexdigest())
    named = _NAMED.fullmatch(name) if media_type or _is_digest(name) else None
    if named and named[1] != digest.hash:
        raise bad(f"{name!r} has the digest {digest}")
    size = tar.size(name)
    _keep(tar.pieces(name), folder, digest, size)
    return {"mediaType": media_type or _layer_type(tar.start(name, len(XZ)), name), "digest": digest, "size": size}


def _is_digest(name: str) -> bool:
    """Return whether a layer has the name of a blob, which is its digest."""
    return name.startswith("blobs/") and _NAMED.fullmatch(name) is not None


def _layer_type(start: bytes, name: str) -> str:
    """Return the media type of a layer with these first bytes."""
    if start.startswith(GZIP):
        return f"{_LAYER}+gzip"
    if start.startswith(ZSTD) or _SKIPPABLE.match(start):
        return f"{_LAYER}+zstd"
    for magic, kind in ((BZIP2, "bzip2"), (XZ, "xz")):
        if start.startswith(magic):
            raise bad(f"the layer {name!r} is compressed with {kind}, which no OCI image has")
    return _LAYER


def _check(config: Config, layers: list[dict[str, Any]]) -> None:
    """Raise ActionFailed when the configuration belongs to other layers."""
    for layer, diff_id in zip(layers, config.diff_ids, strict=True):
        if layer["mediaType"] == _LAYER and layer["digest"] != diff_id:
            raise bad(f"it has the layer {layer['digest']}, and its configuration names {diff_id}")


def _keep(pieces: Iterable[bytes], folder: Path, digest: ImageDigest, size: int) -> None:
    """Keep a blob. Raises ActionFailed, and keeps nothing, when its bytes do not match."""
    if size > BLOB_LIMIT:
        raise bad(f"the blob {digest} has {size} bytes; the limit is {BLOB_LIMIT}")

    def checked() -> Iterator[bytes]:
        found, total = hashlib.sha256(), 0
        for piece in pieces:
            found.update(piece)
            total += len(piece)
            if total > size:
                break
            yield piece
        if total != size or found.hexdigest() != digest.hash:
            raise bad(f"the blob {digest} has {total} bytes with the digest sha256:{found.hexdigest()}, not {size}")

    path = folder / "blobs" / digest.path
    if not path.exists():
        atomic.write_chunks(str(path), checked(), 0o644)
