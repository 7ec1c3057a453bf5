"""Images made from bytes: a layer, a configuration and a manifest in a folder in the OCI image layout.

Nothing of a clock, a user or a machine goes in: every file has the time 0 and the owner 0:0, and names are sorted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Entry:
    """A file of a layer, or with `link` a symbolic link."""

    data: bytes = b""
    executable: bool = False
    link: str = ""


def noise(name: str, size: int) -> bytes:
    """`size` bytes that do not compress and follow from `name`: SHA-256 in counter mode."""
    seed = name.encode()
    blocks = (hashlib.sha256(seed + number.to_bytes(8, "big")).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def layer(entries: Mapping[str, Entry]) -> bytes:
    """An uncompressed layer with these entries and the folders above them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted(_folders(entries)):
            header = tarfile.TarInfo(folder + "/")
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(header)
        for path, entry in sorted(entries.items()):
            header = tarfile.TarInfo(path)
            if entry.link:
                header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link, 0o777
                tar.addfile(header)
            else:
                header.size, header.mode = len(entry.data), 0o755 if entry.executable else 0o644
                tar.addfile(header, io.BytesIO(entry.data))
    return buffer.getvalue()


def _folders(paths: Mapping[str, Entry]) -> Iterator[str]:
    seen = set()
    for path in paths:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in seen:
                seen.add(folder)
                yield folder


def write_image(
    folder: Path, tar: bytes, *, architecture: str, cmd: Sequence[str], env: Sequence[str], base: Path | None
) -> None:
    """Write the image of one layer, on top of `base`, as a layout in `folder`."""
    config: dict[str, Any] = {
        "created": _EPOCH,
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }
    layers: list[dict[str, Any]] = []
    if base is not None:
        manifest = read_manifest(base)
        config = json.loads(read_blob(base, manifest["config"]["digest"]))
        layers = manifest["layers"]
        for item in layers:
            _put(folder, read_blob(base, item["digest"]))
    layers = [*layers, {"mediaType": LAYER, **_put(folder, gzip.compress(tar, mtime=0))}]
    config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
    config["history"].append({"created": _EPOCH, "created_by": "bk image"})
    if cmd:
        config["config"]["Cmd"] = list(cmd)
    if env:
        config["config"]["Env"] = list(env)
    described = {"mediaType": CONFIG, **_put(folder, _json(config))}
    write_manifest(folder, {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make `folder`, which has the blobs, a layout with this manifest as its one image."""
    write_index(folder, {"mediaType": MANIFEST, **_put(folder, _json(manifest))})


def write_index(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make `folder` a layout whose one image is the manifest of that descriptor."""
    descriptor = {name: manifest[name] for name in ("mediaType", "digest", "size")}
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [descriptor]}))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def unpack_archive(archive: Path, folder: Path) -> None:
    """The layout of the one image in an OCI archive, as BuildKit's exporter writes it, without names or times in its index.

    Raises ValueError when the archive holds none or several.
    """
    with tarfile.open(archive) as tar:
        members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
        stream = tar.extractfile(members["index.json"])
        assert stream is not None
        manifests = json.load(stream)["manifests"]
        if len(manifests) != 1:
            raise ValueError(f"{archive.name} holds {len(manifests)} images, not one")
        for name, member in members.items():
            if name.startswith("blobs/sha256/"):
                content = tar.extractfile(member)
                assert content is not None
                found = _put(folder, content.read())["digest"]
                if found.removeprefix("sha256:") != Path(name).name:
                    raise ValueError(f"{name} in {archive.name} has the digest {found}")
    write_index(folder, manifests[0])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a layout's one image."""
    manifest: dict[str, Any] = json.loads(
        read_blob(folder, json.loads((folder / "index.json").read_text())["manifests"][0]["digest"])
    )
    return manifest


def read_blob(folder: Path, name: str) -> bytes:
    """A blob of a layout by its `sha256:...` digest."""
    return (folder / "blobs/sha256" / name.removeprefix("sha256:")).read_bytes()


def _put(folder: Path, data: bytes) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    path = folder / "blobs/sha256" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
