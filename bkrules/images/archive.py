"""Archives of one image, as `docker save` and BuildKit's exporters write them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import IO

from bkrules.images import layout

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_GZIP = b"\x1f\x8b"


def unpack(archive: Path, folder: Path) -> None:
    """The layout of the one image in an OCI or docker archive. Raises ValueError when it holds none or several."""
    try:
        with tarfile.open(archive) as tar:
            names = {name.removeprefix("./") for name in tar.getnames()}
            if "index.json" not in names and "manifest.json" in names:
                _from_docker(tar, folder)
                return
    except tarfile.TarError as error:
        raise ValueError(f"it is no tar file: {error}") from error
    if "index.json" not in names:
        raise ValueError("it has neither index.json nor manifest.json")
    layout.unpack_archive(archive, folder)


def _from_docker(tar: tarfile.TarFile, folder: Path) -> None:
    images = json.load(_open(tar, "manifest.json"))
    if len(images) != 1:
        raise ValueError(f"it holds {len(images)} images, not one")
    (image,) = images
    config = {"mediaType": layout.CONFIG, **_keep(_open(tar, image["Config"]), folder)}
    layers = []
    for name in image["Layers"]:
        with _open(tar, name) as data:
            packed = data.read(2) == _GZIP
            data.seek(0)
            layers.append({"mediaType": f"{_LAYER}+gzip" if packed else _LAYER, **_keep(data, folder)})
    manifest = {"schemaVersion": 2, "mediaType": layout.MANIFEST, "config": config, "layers": layers}
    layout.write_manifest(folder, manifest)


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tar.extractfile(name)  # raises KeyError for a name that is not there, and follows links to shared layers
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream


def _keep(data: IO[bytes], folder: Path) -> dict[str, object]:
    """Keep a blob of the archive; its digest and size."""
    found = hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type] # tarfile's reader has readinto
    size = data.seek(0, 2)
    data.seek(0)
    path = folder / "blobs/sha256" / found
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while piece := data.read(1 << 20):
            file.write(piece)
    return {"digest": f"sha256:{found}", "size": size}
