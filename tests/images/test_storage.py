from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.errors import ActionFailed
from bkrules.images import layout
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import INDEXES
from bkrules.images.storage import Tree, write_tree
from bkrules.model import digest
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.reference import Reference

Write = Callable[..., Path]

LATEST = Reference("docker.io", "library/busybox", "latest")
ESGZ = Reference("docker.io", "library/busybox", "esgz")
BULK = Reference("docker.io", "library/bulk", "latest")


def node(folder: Path) -> DirectoryNode:
    return DirectoryNode(
        {
            str(path.relative_to(folder)): FileNode(digest.of_file(path), str(path))
            for path in folder.rglob("*")
            if path.is_file()
        }
    )


def names(folder: Path) -> tuple[str, str, list[str]]:
    """The hexadecimal digests of the manifest, the configuration and the layers."""
    manifest = layout.read_manifest(folder)
    config, *rest = (blob.digest.hash for blob in manifest.blobs)
    return manifest.digest.hash, config, rest


def data_file(root: Path, name: str) -> Path:
    return root / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def repository(root: Path, name: str) -> Path:
    return root / "docker/registry/v2/repositories" / name


@pytest.fixture
def image(tmp_path: Path, write: Write) -> Path:
    return write(tmp_path / "image", {"a": "1"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def test_every_blob_is_a_hard_link_of_its_source(image: Path, root: Path) -> None:
    write_tree(root, {LATEST: node(image)})
    manifest, config, layers = names(image)
    for name in (manifest, config, *layers):
        assert data_file(root, name).samefile(image / "blobs/sha256" / name)
    assert len(list(root.rglob("data"))) == 3


def test_links_lead_from_the_tag_to_every_blob(image: Path, root: Path) -> None:
    write_tree(root, {LATEST: node(image)})
    manifest, config, layers = names(image)
    place = repository(root, "library/busybox")
    links = {str(path.relative_to(place)): path.read_text() for path in place.rglob("link")}
    expected = {
        f"_manifests/revisions/sha256/{manifest}/link": f"sha256:{manifest}",
        "_manifests/tags/latest/current/link": f"sha256:{manifest}",
        f"_manifests/tags/latest/index/sha256/{manifest}/link": f"sha256:{manifest}",
        **{f"_layers/sha256/{name}/link": f"sha256:{name}" for name in (config, *layers)},
    }
    assert expected.items() <= links.items()
    assert {name: text for name, text in links.items() if name.startswith("_manifests/")} == {
        name: text for name, text in expected.items() if name.startswith("_manifests/")
    }


def test_two_tags_of_a_repository_stand_side_by_side(tmp_path: Path, image: Path, root: Path, write: Write) -> None:
    other = write(tmp_path / "other", {"b": "2"})
    write_tree(root, {LATEST: node(image), ESGZ: node(other)})
    tags = repository(root, "library/busybox") / "_manifests/tags"
    assert (tags / "latest/current/link").read_text() == f"sha256:{names(image)[0]}"
    assert (tags / "esgz/current/link").read_text() == f"sha256:{names(other)[0]}"


def test_images_may_share_blobs(tmp_path: Path, image: Path, root: Path, write: Write) -> None:
    above = write(tmp_path / "above", {"b": "2"}, base=image)
    write_tree(root, {LATEST: node(image), BULK: node(above)})
    [shared] = names(image)[2]
    assert names(above)[2][0] == shared
    assert data_file(root, shared).exists()
    for name in ("library/busybox", "library/bulk"):
        assert (repository(root, name) / "_layers/sha256" / shared / "link").read_text() == f"sha256:{shared}"


def test_blobs_are_copied_from_another_filesystem(image: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_source: str, _target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    write_tree(root, {LATEST: node(image)})
    manifest, config, layers = names(image)
    for name in (manifest, config, *layers):
        assert digest.of_file(data_file(root, name)).hash == name


@pytest.mark.parametrize("missing", ["manifest", "config", "layer"])
def test_a_layout_without_one_of_its_blobs_is_refused(image: Path, root: Path, missing: str) -> None:
    manifest, config, [layer] = names(image)
    gone = {"manifest": manifest, "config": config, "layer": layer}[missing]
    whole = node(image)
    cut = DirectoryNode({path: file for path, file in whole.files.items() if not path.endswith(gone)})
    with pytest.raises(ActionFailed, match=gone):
        write_tree(root, {LATEST: cut})


@pytest.mark.parametrize("index", [None, "", "{}", '{"manifests": []}', '{"manifests": [{}]}', "[]"])
def test_a_folder_that_is_no_layout_is_refused(image: Path, root: Path, index: str | None) -> None:
    if index is None:
        (image / "index.json").unlink()
    else:
        (image / "index.json").write_text(index)
    with pytest.raises(ActionFailed, match=r"docker\.io/library/busybox:latest"):
        write_tree(root, {LATEST: node(image)})


def test_no_image_is_an_empty_mirror(root: Path) -> None:
    write_tree(root, {})
    assert list(root.rglob("link")) == []


def test_a_folder_that_others_write_to_has_no_link_to_a_stored_file(image: Path, root: Path) -> None:
    write_tree(root, {LATEST: node(image)}, link=False)
    manifest, config, layers = names(image)
    for name in (manifest, config, *layers):
        assert not data_file(root, name).samefile(image / "blobs/sha256" / name)
        assert data_file(root, name).stat().st_nlink == 1
    data_file(root, config).write_bytes(b"")
    write_tree(root, {LATEST: node(image)}, link=False)
    assert digest.of_file(data_file(root, config)).hash == config


def test_an_index_in_itself_ends(image: Path, root: Path) -> None:
    """Which no digest allows, but a folder does."""
    manifest, _, _ = names(image)
    entry = {"mediaType": INDEXES[0], "digest": f"sha256:{manifest}", "size": 0}
    for _ in range(3):
        data = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        entry["size"] = len(data)
    (image / "blobs/sha256" / manifest).write_bytes(data)
    with pytest.raises(ActionFailed, match=f"its blob sha256:{manifest} has the digest"):
        write_tree(root, {LATEST: node(image)})
    path = data_file(root, manifest)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(ActionFailed, match="it has the digest"):
        list(Tree(root).blobs(ImageDigest.of_hash(manifest)))
