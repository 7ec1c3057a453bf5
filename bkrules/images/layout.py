"""Images made from bytes: layers, a configuration and a manifest in a folder in the OCI image layout.

They depend on no clock, user or machine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bkrules.images import documents
from bkrules.images.documents import Config, Descriptor, Kind, Manifest
from bkrules.images.json_object import MANIFEST_LIMIT, bad
from bkrules.model.digest import of_bytes

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = "1970-01-01T00:00:00Z"


def write_image(
    folder: Path,
    tar: bytes | None,
    *,
    architecture: str,
    cmd: Sequence[str],
    env: Sequence[str],
    base: Path | None,
    entrypoint: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write the image of one layer, or of none, on top of `base`, as a layout in `folder`. Raises ActionFailed for a
    `base` that is not an image.
    """
    config: dict[str, Any] = {"created": _EPOCH, "architecture": architecture, "os": "linux"}
    layers: list[Mapping[str, Any]] = []
    diff_ids: list[str] = []
    if base is not None:
        manifest = read_manifest(base)
        found = read_config(base, manifest)
        config, diff_ids = dict(found.raw), list(found.diff_ids)
        layers = [blob.raw for blob in manifest.blobs[1:]]
        for blob in manifest.blobs[1:]:
            if not blob.is_foreign:
                _copy(base, folder, blob)
    step: dict[str, Any] = {"created": _EPOCH, "created_by": "bk image"}
    if tar is None:
        step["empty_layer"] = True
    else:
        layers.append({"mediaType": LAYER, **_put(folder, gzip.compress(tar, mtime=0))})
        diff_ids.append(f"{of_bytes(tar)}")
    rootfs = {**(config.get("rootfs") or {"type": "layers"}), "diff_ids": diff_ids}
    history = [*(config.get("history") or ()), step]
    config |= {"config": {**(config.get("config") or {})}, "rootfs": rootfs, "history": history}
    if cmd:
        config["config"]["Cmd"] = list(cmd)
    if entrypoint:
        config["config"]["Entrypoint"] = list(entrypoint)
    if env:
        config["config"]["Env"] = list(env)
    if labels:
        config["config"]["Labels"] = {**(config["config"].get("Labels") or {}), **labels}
    described = {"mediaType": CONFIG, **_put(folder, _json(config))}
    write_manifest(folder, {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers})


def _copy(base: Path, folder: Path, blob: Descriptor) -> None:
    """Copy a blob of the base, whose digest is checked where layouts are made."""
    target = folder / "blobs" / blob.digest.path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(base / "blobs" / blob.digest.path, target)
    except FileNotFoundError:
        raise bad("the base", f"it lacks the blob {blob.digest}") from None


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make `folder`, which has the blobs, a layout with this manifest as its one image."""
    write_index(folder, {"mediaType": MANIFEST, **_put(folder, _json(manifest))})


def write_index(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make `folder` a layout whose one image is the manifest of that descriptor."""
    descriptor = {name: manifest[name] for name in ("mediaType", "digest", "size")}
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [descriptor]}))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a layout's one image. Raises ActionFailed when there are several, or only an index."""
    what = f"the layout {folder.name}"
    index = documents.read_index(_read(folder / "index.json"), f"{what}: index.json")
    if len(index.entries) != 1:
        raise bad(what, f"it has {len(index.entries)} images, not one")
    digest = index.entries[0].digest
    manifest = documents.read_manifest(_read(folder / "blobs" / digest.path), f"{what}: manifest {digest}", digest)
    if manifest.kind is not Kind.IMAGE:
        raise bad(manifest.where, "it is no image of one platform")
    return manifest


def read_config(folder: Path, manifest: Manifest) -> Config:
    """Return the configuration of an image. Raises ActionFailed, also when it is that of another image."""
    described = manifest.blobs[0]
    where = f"{manifest.where}: its configuration"
    config = documents.read_config(_read(folder / "blobs" / described.digest.path), where)
    if len(config.diff_ids) != len(manifest.blobs) - 1:
        raise bad(where, f"it names {len(config.diff_ids)} layers of {len(manifest.blobs) - 1}")
    return config


def _read(path: Path) -> bytes:
    """Return the bytes of a document, or of a larger file only the beginning."""
    try:
        with path.open("rb") as file:
            return file.read(MANIFEST_LIMIT + 1)
    except FileNotFoundError:
        raise bad(f"the layout {path.parent.name}", f"it lacks {path.name}") from None


def _put(folder: Path, data: bytes) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    path = folder / "blobs/sha256" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
