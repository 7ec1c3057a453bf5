from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import hostile_documents
import pytest
from hypothesis import given, settings
from rounds import rounds
from shelf import Shelf, encoded, name_of

from bkrules.errors import ActionFailed
from bkrules.images import documents, layout
from bkrules.images.copy import Copier, narrowed, platforms
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import Kind, read_config, read_manifest, read_saved
from bkrules.images.protocol import Place

WHERE = "a.example/x:1"
INDEX, DOCKER_INDEX = documents.INDEXES
MANIFEST, DOCKER_MANIFEST = documents.MANIFESTS
ONE = {"mediaType": layout.LAYER, "digest": name_of(b"x"), "size": 1}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST, "config": ONE, "layers": [ONE]}


def refused(document: object, said: str) -> None:
    with pytest.raises(ActionFailed, match=said) as caught:
        read_manifest(encoded(document), WHERE)
    assert caught.value.message.startswith(f"{WHERE}: ")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is not JSON"),
        (b"<!doctype html><title>Log in</title>", "it is HTML"),
        (b"\n <html>", "it is HTML"),
        (b"null", "must be an object, but is missing"),
        (b"[]", "must be an object, but is a list"),
        (b'"x"', "must be an object, but is 'x'"),
        (b"\xff\xfe{\0}\0", "it is not JSON"),
        (b"\xef\xbb\xbf{}", "it is not JSON"),
        (b'{"a": 1', "it is not JSON"),
        (b"{} {}", "it is not JSON"),
        (b'{"schemaVersion": NaN}', "NaN is not a JSON number"),
        (b'{"x": [1e999]}', "1e999 is not a JSON number"),
        (b'{"x": -1E+400}', "is not a JSON number"),
        (b'{"schemaVersion": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 500_000, "nested too deeply"),
        (b'{"layers": [], "layers": []}', "the field 'layers' occurs twice"),
        (b'{"config": {"size": 1, "size": 2}}', "the field 'size' occurs twice"),
        (b" " * (4 << 20) + b"{}", "it is larger than 4194304 bytes"),
        (b"{}", "it is neither a manifest nor an index"),
        (b'{"schemaVersion": 2}', "it is neither a manifest nor an index"),
        (b'{"blobs": []}', "it is neither a manifest nor an index"),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, said: str) -> None:
    refused(data, said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schemaVersion": 3}, "'schemaVersion' must be 2, but is 3"),
        ({"schemaVersion": "2"}, "'schemaVersion' must be 2, but is '2'"),
        ({"schemaVersion": True}, "'schemaVersion' must be 2, but is True"),
        ({"schemaVersion": None}, "'schemaVersion' must be 2, but is missing"),
        ({"mediaType": "text/html"}, "bk cannot copy its type text/html"),
        ({"mediaType": 7}, "'mediaType' must be a media type, but is 7"),
        ({"mediaType": "\ud800"}, "'mediaType' must be a media type"),
        ({"mediaType": f"a/{'b' * 200}"}, "'mediaType' must be a media type"),
        ({"mediaType": INDEX}, "it has the field 'config'"),
        ({"manifests": []}, "it has the field 'manifests'"),
        ({"mediaType": None, "manifests": [], "config": None}, "it has the field '(layers|manifests)'"),
        ({"fsLayers": []}, "it has the field 'fsLayers'"),
        ({"Layers": []}, "the field 'Layers' must be spelt 'layers'"),
        ({"layer\u017f": []}, "must be spelt 'layers'"),
        ({"CONFIG": ONE}, "the field 'CONFIG' must be spelt 'config'"),
        ({"config": None}, "'config' must be a descriptor, but is missing"),
        ({"config": []}, "'config' must be an object, but is a list"),
        ({"config": "sha256:"}, "'config' must be an object, but is 'sha256:'"),
        ({"layers": {}}, "'layers' must be a list, but is an object"),
        ({"layers": [None]}, r"'layers\[0\]' must be an object, but is missing"),
        ({"layers": [ONE, ONE["digest"]]}, r"'layers\[1\]' must be an object, but is 'sha256"),
        ({"layers": [{**ONE, "digest": 7}]}, r"'layers\[0\].digest' must be a digest, but is 7"),
        ({"layers": [{**ONE, "digest": f"sha512:{'0' * 128}"}]}, "a digest of sha512, and bk knows sha256 alone"),
        ({"layers": [{**ONE, "size": None}]}, r"'layers\[0\].size' must be a number of bytes, but is missing"),
        ({"layers": [{**ONE, "size": -1}]}, "but is -1"),
        ({"layers": [{**ONE, "size": 1e3}]}, "but is 1000.0"),
        ({"layers": [{**ONE, "size": "1"}]}, "but is '1'"),
        ({"layers": [{**ONE, "size": 1 << 63}]}, "the limit is 1099511627776"),
        ({"layers": [{**ONE, "size": int("9" * 4000)}]}, "the limit is 1099511627776"),
        ({"layers": [{**ONE, "Digest": name_of(b"y")}]}, r"'layers\[0\].Digest' must be spelt 'digest'"),
        ({"layers": [{**ONE, "mediaType": "gzip"}]}, r"'layers\[0\].mediaType' must be a media type"),
        ({"layers": [{**ONE, "urls": "https://b.example"}]}, r"'layers\[0\].urls' must be a list"),
        ({"layers": [{**ONE, "urls": [7]}]}, r"'layers\[0\].urls\[0\]' must be a text"),
        ({"subject": {"digest": "x"}}, r"'subject.digest'"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed: dict[str, Any], said: str) -> None:
    refused({**IMAGE, **changed}, said)


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ("linux/amd64", r"'manifests\[0\].platform' must be an object"),
        ({"os": 7}, r"'manifests\[0\].platform.os' must be a short word, but is 7"),
        ({"architecture": "a" * 65}, "must be a short word"),
        ({"os": "\ud800"}, "must be a short word"),
        ({"os": "linux\n"}, "must be a short word"),
        ({"OS": "linux"}, "must be spelt 'os'"),
    ],
)
def test_a_platform_that_is_wrong_is_named(platform: object, said: str) -> None:
    refused({"schemaVersion": 2, "manifests": [{**ONE, "platform": platform}]}, said)


@pytest.mark.parametrize(
    ("document", "kind", "media_type"),
    [
        (IMAGE, Kind.IMAGE, MANIFEST),
        ({**IMAGE, "mediaType": None}, Kind.IMAGE, MANIFEST),
        ({**IMAGE, "mediaType": DOCKER_MANIFEST}, Kind.IMAGE, DOCKER_MANIFEST),
        ({"schemaVersion": 2, "config": ONE}, Kind.IMAGE, MANIFEST),
        ({"schemaVersion": 2, "manifests": []}, Kind.INDEX, INDEX),
        ({"schemaVersion": 2, "mediaType": INDEX, "manifests": None}, Kind.INDEX, INDEX),
        ({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [ONE]}, Kind.INDEX, DOCKER_INDEX),
        ({"mediaType": documents.ARTIFACTS[0]}, Kind.ARTIFACT, documents.ARTIFACTS[0]),
    ],
)
def test_a_document_is_what_it_says_itself(document: object, kind: Kind, media_type: str) -> None:
    found = read_manifest(encoded(document), WHERE)
    assert (found.kind, found.media_type) == (kind, media_type)


def test_null_is_absent() -> None:
    nothing = dict.fromkeys(("subject", "annotations", "artifactType", "manifests", "blobs", "fsLayers"))
    layer = {**ONE, "urls": None, "data": None, "platform": None, "annotations": None}
    found = read_manifest(encoded({**IMAGE, **nothing, "layers": [layer]}), WHERE)
    assert [blob.digest for blob in found.blobs] == [ONE["digest"]] * 2
    assert read_manifest(encoded({**IMAGE, "layers": None}), WHERE).blobs == found.blobs[:1]
    config = read_config(b'{"architecture": null, "config": null, "rootfs": null, "history": null}', WHERE)
    assert (config.platform, config.diff_ids) == ("", ())
    assert read_saved(b"null", WHERE) == []
    assert read_saved(b'[{"Config": "c", "Layers": null, "RepoTags": null}]', WHERE) == [("c", [])]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "must be an object"),
        (b'{"rootfs": {"diff_ids": ["x"]}}', r"'rootfs.diff_ids\[0\]': 'x' is no digest"),
        (b'{"rootfs": {"diff_ids": "x"}}', "'rootfs.diff_ids' must be a list"),
        (b'{"rootfs": []}', "'rootfs' must be an object"),
        (b'{"config": []}', "'config' must be an object"),
        (b'{"history": {}}', "'history' must be a list"),
        (b'{"architecture": ["amd64"]}', "'architecture' must be a short word"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ActionFailed, match=said):
        read_config(data, WHERE)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "must be a list"),
        (b"[null]", r"'\[0\]' must be an object"),
        (b'[{"Config": 7}]', r"'\[0\].Config' must be a name"),
        (b'[{"Config": "c", "Layers": "x"}]', r"'\[0\].Layers' must be a list"),
        (b'[{"Config": "c", "Layers": [null]}]', r"'\[0\].Layers\[0\]' must be a text"),
        (b'[{"config": "c"}]', "must be spelt 'Config'"),
    ],
)
def test_a_list_of_saved_images_that_is_wrong_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ActionFailed, match=said):
        read_saved(data, WHERE)


def test_platforms_of_an_index() -> None:
    def entry(data: bytes, **platform: str) -> dict[str, object]:
        return {**ONE, "digest": name_of(data), "platform": platform}

    entries = [
        entry(b"1", os="linux", architecture="amd64"),
        entry(b"2", os="linux", architecture="arm", variant="v7"),
        entry(b"3", os="unknown", architecture="unknown"),
        entry(b"4", os="linux", architecture="amd64"),
        entry(b"5", os="linux"),
        ONE,
    ]
    index = read_manifest(encoded({"schemaVersion": 2, "manifests": entries}), WHERE)
    assert platforms(index) == {"linux/amd64": name_of(b"1"), "linux/arm/v7": name_of(b"2")}


@settings(max_examples=rounds(250))
@given(hostile_documents.any_documents())
def test_any_document_is_read_or_refused(data: bytes) -> None:
    """By an error of bk with the document's name, never by another, and what is read can be copied or refused."""
    shelf = Shelf()
    shelf.put(shelf.image(b"x", b"y"))
    shelf.put(data, "1")
    try:
        found = read_manifest(data, WHERE)
        assert all(blob.size <= documents.BLOB_LIMIT for blob in found.blobs)
        str(platforms(found)).encode()
        narrowed(shelf, "x", found, "linux/amd64")
        with Copier(1) as copier:
            copier.image(shelf, "x", "1", _Nowhere())
    except ActionFailed as error:
        assert error.message.startswith((WHERE, "a.example/x", "there is no"))
        str(error).encode()
    for read in (read_config, read_saved):
        try:
            read(data, WHERE)
        except ActionFailed as error:
            assert error.message.startswith(WHERE)
            str(error).encode()


class _Nowhere(Place):
    def has(self, digest: ImageDigest, size: int) -> bool:
        return False

    def put(self, digest: ImageDigest, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        for _ in chunks():
            pass
