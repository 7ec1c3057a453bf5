from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from shelf import CONFIG, Shelf, name_of

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.errors import ActionFailed, UsageError
from bkrules.images import documents, json_object, layout
from bkrules.images.copy import Copier
from bkrules.images.copy_all import copy_all, copy_references
from bkrules.images.destination import Folder
from bkrules.images.digests import ImageDigest
from bkrules.images.protocol import Place
from bkrules.images.storage import Tree
from bkrules.model.reference import ALL, Reference
from bkrules.runners.pull_image import LayoutPlace

NAME = "library/sample"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def copy(shelf: Shelf, kept: Path | Place, platform: str = ALL) -> str:
    with Copier() as copier:
        return copier.image(shelf, NAME, "1", Tree(kept) if isinstance(kept, Path) else kept, platform).digest


def blobs(kept: Path) -> set[bytes]:
    return {path.read_bytes() for path in kept.rglob("data") if path.is_file()}


def refused(shelf: Shelf, kept: Path, said: str, platform: str = ALL) -> None:
    with pytest.raises(ActionFailed, match=said) as caught:
        copy(shelf, kept, platform)
    assert "a.example/library/sample" in str(caught.value)


@pytest.mark.parametrize("same_size", [True, False])
@pytest.mark.parametrize("place", ["layer", "config", "entry", "subject"])
def test_a_digest_that_is_a_path_touches_no_file(tmp_path: Path, shelf: Shelf, place: str, same_size: bool) -> None:
    """With the right size it made bk delete a file of the machine, and with another one, copy it into the image."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    cas = Cas(f"{tmp_path}/cas", FileDigests(f"{tmp_path}/digests"))
    Path(cas.root).mkdir()
    layout_place = LayoutPlace(tmp_path / "layout", cas)
    for folder in (tmp_path / "cas/..", tmp_path / "layout/blobs/sha256"):
        folder.mkdir(parents=True, exist_ok=True)
    for digest in (
        f"sha256:{secret}",
        f"sha256:../{tmp_path.name}/secret",
        "sha256:../../../secret",
        "sha256:../../secret",
        "sha256/../../../../secret",
    ):
        path = {"mediaType": layout.LAYER, "digest": digest, "size": len(b"of the host") + (not same_size)}
        manifest = shelf.image(b"layer")
        if place == "entry":
            manifest = shelf.index(path)
        elif place == "layer":
            manifest["layers"].append(path)
        else:
            manifest[place] = path
        shelf.put(manifest)
        with pytest.raises(ActionFailed, match=r"a\.example/library/sample:1: the field '\w+(\[\d\])?\.digest'"):
            copy(shelf, layout_place)
        assert secret.read_bytes() == b"of the host"
        assert not list((tmp_path / "layout").rglob("*secret*"))


def test_an_image_is_copied_whole(shelf: Shelf, kept: Path) -> None:
    described = shelf.put(shelf.image(b"one", b"two"))
    assert copy(shelf, kept) == described["digest"]
    assert blobs(kept) == {CONFIG, b"one", b"two", shelf.manifests["1"]}


@pytest.mark.parametrize("layers", [[], None, "absent"])
def test_a_manifest_without_layers_is_copied_with_its_configuration(shelf: Shelf, kept: Path, layers: Any) -> None:
    manifest = shelf.image()
    manifest["layers"] = layers
    if layers == "absent":
        del manifest["layers"]
    shelf.put(manifest)
    copy(shelf, kept)
    assert blobs(kept) == {CONFIG, shelf.manifests["1"]}


def test_an_artifact_manifest_is_copied_with_its_blobs(shelf: Shelf, kept: Path) -> None:
    shelf.put({"mediaType": ARTIFACT, "artifactType": "x/y", "blobs": [shelf.blob_of(b"one"), shelf.blob_of(b"two")]})
    copy(shelf, kept)
    assert blobs(kept) == {b"one", b"two", shelf.manifests["1"]}


def test_an_index_is_copied_with_the_indexes_in_it(shelf: Shelf, kept: Path) -> None:
    inner = shelf.put(shelf.index(shelf.put(shelf.image(b"deep"), "deep")), "inner")
    shelf.put(shelf.index(inner, shelf.put(shelf.image(b"flat"), "flat")))
    copy(shelf, kept)
    assert len(blobs(kept)) == 7
    assert {b"deep", b"flat", CONFIG} < blobs(kept)


def test_the_empty_descriptor_with_its_bytes_in_it_needs_no_blob(shelf: Shelf, kept: Path) -> None:
    empty = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": name_of(b"{}"),
        "size": 2,
        "data": base64.b64encode(b"{}").decode(),
    }
    shelf.put({"schemaVersion": 2, "mediaType": layout.MANIFEST, "config": empty, "layers": [empty]})
    copy(shelf, kept)
    assert blobs(kept) == {b"{}", shelf.manifests["1"]}
    assert name_of(b"{}") not in shelf.asked


@pytest.mark.parametrize("data", ["e30", "e30=\n", "W10=", "", 7, []])
def test_bytes_in_a_descriptor_that_are_not_its_own_are_refused(shelf: Shelf, kept: Path, data: Any) -> None:
    empty = {"mediaType": layout.CONFIG, "digest": name_of(b"{}"), "size": 2, "data": data}
    shelf.put({"schemaVersion": 2, "mediaType": layout.MANIFEST, "config": empty, "layers": []})
    refused(shelf, kept, r"'config\.data'")


@pytest.mark.parametrize("kind", [FOREIGN, "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"])
def test_foreign_layers_stay_where_they_are(shelf: Shelf, kept: Path, kind: str) -> None:
    manifest = shelf.image(b"own")
    foreign = {"mediaType": kind, "digest": name_of(b"elsewhere"), "size": 9, "urls": ["https://b.example/layer"]}
    manifest["layers"].append(foreign)
    shelf.put(manifest)
    digest = copy(shelf, kept)
    assert blobs(kept) == {CONFIG, b"own", shelf.manifests["1"]}
    assert {name for name, _ in Tree(kept).blobs(ImageDigest(digest))} == {
        digest,
        name_of(CONFIG),
        name_of(b"own"),
    }


def test_a_layer_that_also_has_urls_is_copied(shelf: Shelf, kept: Path) -> None:
    manifest = shelf.image()
    manifest["layers"] = [shelf.blob_of(b"own", urls=["https://b.example/layer"])]
    shelf.put(manifest)
    copy(shelf, kept)
    assert b"own" in blobs(kept)


def test_the_platform_is_found_whatever_the_answer_calls_the_document(shelf: Shelf, kept: Path) -> None:
    """A Shelf says no Content-Type at all."""
    arm = shelf.put(shelf.image(b"arm"), "arm", "linux/arm64")
    shelf.put(shelf.index(shelf.put(shelf.image(b"amd"), "amd", "linux/amd64"), arm, mediaType=None))
    assert copy(shelf, kept, "linux/arm64") == arm["digest"]
    assert b"amd" not in blobs(kept)


def test_a_platform_in_a_nested_index_is_found(shelf: Shelf, kept: Path) -> None:
    arm = shelf.put(shelf.image(b"arm"), "arm", "linux/arm64")
    inner = shelf.put(shelf.index(arm), "inner")
    shelf.put(shelf.index(shelf.put(shelf.image(b"amd"), "amd", "linux/amd64"), inner))
    assert copy(shelf, kept, "linux/arm64") == arm["digest"]
    shelf.put(shelf.index({**inner, "platform": {"os": "linux", "architecture": "arm64"}}))
    assert copy(shelf, kept, "linux/arm64") == arm["digest"]
    refused(shelf, kept, "has no manifest for linux/s390x", "linux/s390x")


def test_an_entry_without_a_platform_is_asked_for_it(shelf: Shelf, kept: Path) -> None:
    artifact = shelf.image(config=shelf.blob_of(b"no JSON", "application/vnd.x.config"))
    only = shelf.put(shelf.image(b"only"), "only", platform="")
    shelf.put(shelf.index(shelf.put(artifact, "artifact"), {**only, "platform": None}))
    assert copy(shelf, kept, "linux/amd64") == only["digest"]


def test_of_two_entries_for_a_platform_the_first_is_meant(shelf: Shelf, kept: Path) -> None:
    first, second = (shelf.put(shelf.image(one), f"{one!r}", "linux/amd64") for one in (b"1", b"2"))
    shelf.put(shelf.index(first, second))
    assert copy(shelf, kept, "linux/amd64") == first["digest"]


def test_an_index_that_names_one_document_often_is_walked_once(shelf: Shelf, kept: Path) -> None:
    """Eight indexes, each of which has the next a thousand times, are 10^24 ways to one image."""
    entry = shelf.put(shelf.image(b"leaf"), "leaf")
    for depth in range(documents.INDEX_DEPTH):
        entry = shelf.put(shelf.index(*[entry] * 1000), "1" if depth == documents.INDEX_DEPTH - 1 else str(depth + 2))
    copy(shelf, kept)
    assert len(shelf.asked) == 11
    refused(shelf, kept, "no manifest for linux/s390x", "linux/s390x")


def test_indexes_are_only_so_deep(shelf: Shelf, kept: Path) -> None:
    entry = shelf.put(shelf.image(b"leaf"), "leaf")
    for _ in range(documents.INDEX_DEPTH + 1):
        entry = shelf.put(shelf.index(entry))
    refused(shelf, kept, "nested more than")
    for platform in ("linux/s390x", "linux/amd64"):
        shelf.put(shelf.index({**entry, "platform": {"os": "linux", "architecture": "s390x"}}))
        with pytest.raises(ActionFailed):
            copy(shelf, kept, platform)


def test_an_image_has_only_so_many_manifests(shelf: Shelf, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_MANIFESTS", 3)
    shelf.put(shelf.index(*(shelf.put(shelf.image(bytes([one])), str(one)) for one in range(3))))
    refused(shelf, kept, "more than 3 manifests")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"size": 1}, "says 1 bytes, and there are"),
        ({"mediaType": documents.INDEXES[0]}, "says application/vnd.oci.image.index.* and it is"),
        ({"digest": "latest"}, r"'manifests\[0\].digest': 'latest' is no digest"),
        ({"digest": "1"}, "is no digest"),
        ({"digest": None}, "must be a digest, but is missing"),
        ({"size": json_object.MANIFEST_LIMIT + 1}, "the limit is 4194304"),
        ({"size": -1}, "must be a number of bytes, but is -1"),
        ({"size": 1.0}, "must be a number of bytes, but is 1.0"),
        ({"size": True}, "must be a number of bytes, but is True"),
    ],
)
def test_an_entry_that_does_not_hold_is_refused(shelf: Shelf, kept: Path, entry: dict[str, Any], said: str) -> None:
    shelf.put(shelf.index({**shelf.put(shelf.image(b"x"), "x"), **entry}))
    refused(shelf, kept, said)


def test_a_damaged_manifest_in_the_mirror_is_written_anew(shelf: Shelf, kept: Path) -> None:
    digest = copy_of(shelf, kept)
    path = Path(Tree(kept).path(ImageDigest(digest)))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"mediaType", b"mediatype"))
    copy(shelf, kept)
    assert path.read_bytes() == whole


def copy_of(shelf: Shelf, kept: Path) -> str:
    shelf.put(shelf.image(b"one"))
    return copy(shelf, kept)


def test_a_link_of_a_tag_that_is_no_digest_is_none(kept: Path) -> None:
    reference = Reference("x", NAME, "1")
    link = kept / "docker/registry/v2/repositories" / NAME / "_manifests/tags/1/current/link"
    link.parent.mkdir(parents=True)
    for text in (b"sha256:../../../../etc/passwd", b"", b"\xff", b"sha256:" + b"0" * 200):
        link.write_bytes(text)
        assert Tree(kept).tagged(reference) is None
    link.unlink()
    link.mkdir()
    assert Tree(kept).tagged(reference) is None


def test_schema_1_is_refused_by_name(shelf: Shelf, kept: Path) -> None:
    signed = {
        "schemaVersion": 1,
        "name": NAME,
        "tag": "1",
        "fsLayers": [{"blobSum": name_of(b"x")}],
        "history": [{"v1Compatibility": json.dumps({"id": "0"})}],
    }
    kinds: list[dict[str, Any]] = [
        {},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
    ]
    for more in kinds:
        shelf.put({**signed, **more})
        refused(shelf, kept, "it is a manifest of schema 1, which bk does not copy")


def test_what_refers_to_an_image_is_copied_by_option(shelf: Shelf, kept: Path) -> None:
    """A signature of a platform's manifest, and one of that signature; and what an image itself refers to."""
    base = shelf.put(shelf.image(b"base"), "base")
    image = shelf.put(shelf.image(b"image", subject=base), "image")
    shelf.put(shelf.index(image))
    signature = shelf.put(shelf.image(b"signature", subject=image), "signature")
    second = shelf.put(shelf.image(b"second", subject=signature), "second")
    for one, of in ((signature, image), (second, signature)):
        shelf.put(shelf.index(one), of["digest"].replace(":", "-"))
    reference = Reference("a.example", NAME, "1")
    destination = Folder(Tree(kept))
    copy_all({reference: (shelf, NAME, "1")}, destination)
    assert not {b"base", b"signature", b"second"} & blobs(kept)
    copy_all({reference: (shelf, NAME, "1")}, destination, referrers=True)
    assert {b"base", b"image", b"signature", b"second"} < blobs(kept)
    tags = {tag for _, tag in Tree(kept).references()}
    assert tags == {"1", *(one["digest"].replace(":", "-") for one in (image, signature))}


def test_manifests_that_refer_to_each_other_are_copied_once(shelf: Shelf, kept: Path) -> None:
    """Which no digest allows, but a list of referrers does."""
    one = shelf.put(shelf.image(b"one"))
    two = shelf.put(shelf.image(b"two"), "two")
    shelf.put(shelf.index(two, one), one["digest"].replace(":", "-"))
    shelf.put(shelf.index(one, two), two["digest"].replace(":", "-"))
    copy_all({Reference("a.example", NAME, "1"): (shelf, NAME, "1")}, Folder(Tree(kept)), referrers=True)
    assert {b"one", b"two"} < blobs(kept)


@pytest.mark.parametrize("host", ["b.example", "a.example:5000"])
def test_two_references_with_one_place_are_refused(shelf: Shelf, kept: Path, host: str) -> None:
    shelf.put(shelf.image(b"one"))
    both = [Reference("a.example", NAME, "1"), Reference(host, NAME, "1")]
    with pytest.raises(UsageError, match=f"a.example/{NAME}:1 and {host}/{NAME}:1 have the same place") as caught:
        copy_all(dict.fromkeys(both, (shelf, NAME, "1")), Folder(Tree(kept)))
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError):
        copy_references(both, Folder(Tree(kept)), ALL)
    assert not kept.exists()
    copy_all(dict.fromkeys((both[0], Reference(host, NAME, "2")), (shelf, NAME, "1")), Folder(Tree(kept)))
