"""A registry's storage tree, written without the registry: blobs are hard links of the CAS.

The layout is that of the distribution registry's filesystem driver. Written this way, a mirror costs no upload, and the
registry that serves it can be read-only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from bkrules.action import DirectoryNode, FileNode
from bkrules.cache.atomic import place
from bkrules.images.reference import Reference


def write_tree(root: Path, images: Mapping[Reference, DirectoryNode]) -> None:
    """Fill the empty folder `root` with these images, each given as an OCI layout. Raises ValueError for a layout that is none."""
    base = root / "docker/registry/v2"
    for reference, layout in images.items():
        repository = base / "repositories" / reference.repository
        manifest = _manifest(layout)
        for name in _blobs(layout, manifest):
            source = layout.files.get(f"blobs/sha256/{name}")
            if source is None:
                raise ValueError(f"{reference}: the layout lacks the blob sha256:{name}")
            _link(source, base / "blobs/sha256" / name[:2] / name / "data")
            _write(repository / "_layers/sha256" / name / "link", name)
        _write(repository / "_manifests/revisions/sha256" / manifest / "link", manifest)
        for tag in ("current", f"index/sha256/{manifest}"):
            _write(repository / "_manifests/tags" / reference.tag / tag / "link", manifest)


def _manifest(layout: DirectoryNode) -> str:
    try:
        index = json.loads(Path(layout.files["index.json"].path).read_text())
        return str(index["manifests"][0]["digest"]).removeprefix("sha256:")
    except (LookupError, TypeError) as error:
        raise ValueError("the folder is not an OCI layout with one image") from error


def _blobs(layout: DirectoryNode, manifest: str) -> Iterator[str]:
    yield manifest
    document = json.loads(Path(layout.files[f"blobs/sha256/{manifest}"].path).read_text())
    for item in (document["config"], *document["layers"]):
        yield str(item["digest"]).removeprefix("sha256:")


def _link(source: FileNode, target: Path) -> None:
    if not target.exists():  # two images may share the blob
        place(source.path, target)


def _write(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"sha256:{name}")
