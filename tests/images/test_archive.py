from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import posixpath
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds
from shelf import Shelf, encoded, name_of

from bkrules.errors import ActionFailed
from bkrules.images import archive, layout, tar_reader
from bkrules.images.documents import INDEXES
from bkrules.images.json_object import MANIFEST_LIMIT
from bkrules.images.layer import Entry, layer

Member = tuple[str, bytes] | tarfile.TarInfo
TAR = layer({"a": Entry(b"1")})
HARD = tarfile.LNKTYPE
BUDGET = 120 << 20  # bytes of memory, Python's own among them


def config(*layers: bytes) -> bytes:
    ids = [name_of(one) for one in layers]
    return encoded({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}})


def tar(members: Iterable[Member], kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            made.addfile(header, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def docker(layer: bytes = TAR, **more: Any) -> list[tuple[str, bytes]]:
    """The members of an archive of `docker save`."""
    listed = [{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar"], **more}]
    return [("manifest.json", encoded(listed)), ("c.json", config(TAR)), ("a/layer.tar", layer)]


def oci(**index: Any) -> list[tuple[str, bytes]]:
    """The members of an OCI archive."""
    shelf = Shelf()
    entry = shelf.put(shelf.image(b"layer"))
    blobs = {**shelf.blobs, entry["digest"]: shelf.manifests["1"]}
    listed = [(f"blobs/{name.replace(':', '/')}", data) for name, data in blobs.items()]
    return [("index.json", encoded({"schemaVersion": 2, "manifests": [entry], **index})), *listed]


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[bytes], Path]:
    """Unpacks these bytes; the folder of the layout."""

    def run(data: bytes) -> Path:
        (tmp_path / "image.tar").write_bytes(data)
        archive.unpack(tmp_path / "image.tar", tmp_path / "made/layout")
        return tmp_path / "made/layout"

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_is_unpacked_without_the_names_in_its_index(
    tmp_path: Path, write: Callable[..., Path], unpack: Callable[[bytes], Path]
) -> None:
    folder = write(tmp_path / "image", {"a": "1"})
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"}
    members = {**bytes_of(folder), "index.json": json.dumps(index, indent=1).encode()}
    assert bytes_of(unpack(tar(members.items()))) == bytes_of(folder)


def test_what_does_not_belong_to_the_image_is_left_out(unpack: Callable[[bytes], Path]) -> None:
    more = [("blobs/sha256/../../../x", b"x"), (f"blobs/{name_of(b'more').replace(':', '/')}", b"more"), ("x", b"")]
    assert len(list((unpack(tar([*oci(), *more])) / "blobs/sha256").iterdir())) == 3


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("members", [oci, docker])
def test_a_compressed_archive_is_unpacked(
    unpack: Callable[[bytes], Path], pack: Callable[[bytes], bytes], members: Callable[[], list[Member]]
) -> None:
    data = tar(members())
    half = len(data) // 2
    assert len(list((unpack(pack(data[:half]) + pack(data[half:])) / "blobs/sha256").iterdir())) == 3


@pytest.mark.parametrize("prefix", ["./", "", ".//"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("members", [oci, docker])
def test_names_are_found_however_they_are_written(
    unpack: Callable[[bytes], Path], prefix: str, kind: int, members: Callable[[], list[tuple[str, bytes]]]
) -> None:
    folder = unpack(tar([(prefix + name, data) for name, data in members()], kind))
    assert len(list((folder / "blobs/sha256").iterdir())) == 3


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x1f\x8b", ".tar+gzip"),
        (b"\x28\xb5\x2f\xfd", ".tar+zstd"),
        (b"\x50\x2a\x4d\x18", ".tar+zstd"),
        (b"\x5f\x2a\x4d\x18", ".tar+zstd"),
    ],
)
def test_the_media_type_of_a_layer_is_that_of_its_bytes(
    unpack: Callable[[bytes], Path], start: bytes, kind: str
) -> None:
    folder = unpack(tar(docker(layer=start + b"rest")))
    _, layer = layout.read_manifest(folder).blobs
    assert layer.media_type == f"application/vnd.oci.image.layer.v1{kind}"


def test_an_image_without_layers_is_one(unpack: Callable[[bytes], Path]) -> None:
    listed = [{"Config": "c.json", "Layers": None}]
    folder = unpack(tar([("manifest.json", encoded(listed)), ("c.json", config())]))
    assert len(layout.read_manifest(folder).blobs) == 1


def test_several_names_of_one_image_are_one_image(unpack: Callable[[bytes], Path]) -> None:
    """As `docker save a:1 a:2` writes them."""
    entry = json.loads(oci()[0][1])["manifests"][0]
    unpack(tar(oci(manifests=[{**entry, "annotations": {"io.containerd.image.name": "a:1"}}, entry])))


@pytest.mark.parametrize(
    "where", [link("a/layer.tar", "../b/layer.tar"), link("a/layer.tar", "b/layer.tar", tarfile.LNKTYPE)]
)
def test_links_lead_to_members(unpack: Callable[[bytes], Path], where: tarfile.TarInfo) -> None:
    """As `docker save` of old wrote layers that two images share."""
    manifest, image, (_, layer) = docker()
    assert layout.read_manifest(unpack(tar([manifest, image, where, ("b/layer.tar", layer)]))).blobs


@pytest.mark.parametrize(
    "names",
    [
        [f"l{number}" for number in range(2000)],
        [f"blobs/l{number}" for number in range(2000)],
        ["l"] * 2000,
        [f"blobs/sha256/{name_of(TAR)[7:]}"] * 2000,
        [f"./blobs/{'./' * (number % 50)}sha256/{name_of(TAR)[7:]}" for number in range(2000)],
    ],
    ids=["names", "names like blobs", "one name", "a digest", "a digest in many ways"],
)
def test_a_file_that_is_many_layers_is_read_once(unpack: Callable[[bytes], Path], names: list[str]) -> None:
    members = [("c.json", config(*[TAR] * len(names))), ("a/layer.tar", TAR)]
    listed = [{"Config": "c.json", "Layers": names}]
    links = dict.fromkeys(map(posixpath.normpath, names))
    data = tar([("manifest.json", encoded(listed)), *members, *(link(name, "a/layer.tar", HARD) for name in links)])
    read = 0
    pieces = tar_reader.TarReader.pieces

    def counted(reader: tar_reader.TarReader, name: str) -> Iterator[bytes]:
        nonlocal read
        read += name in links
        return pieces(reader, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_reader.TarReader, "pieces", counted)
        assert len(layout.read_manifest(unpack(data)).blobs) == 2001
    assert read <= 3


def _sparse() -> tarfile.TarInfo:
    header = tarfile.TarInfo("a/layer.tar")
    header.type = tarfile.GNUTYPE_SPARSE
    return header


def _described(**pax: str) -> tarfile.TarInfo:
    header = tarfile.TarInfo("a/layer.tar")
    header.pax_headers = pax
    return header


_LINKED: list[tuple[list[tarfile.TarInfo], str]] = [
    ([link("a/layer.tar", "/etc/passwd")], "'a/layer.tar' is a link out of the archive"),
    ([link("a/layer.tar", "../../etc/passwd")], "is a link out of the archive"),
    ([link("a/layer.tar", "../etc/passwd")], "is a link to 'etc/passwd', which it lacks"),
    ([link("a/layer.tar", "/etc/passwd", tarfile.LNKTYPE)], "is a link out of the archive"),
    ([link("a/layer.tar", "../x", tarfile.LNKTYPE)], "is a link out of the archive"),
    ([link("a/layer.tar", "gone", tarfile.LNKTYPE)], "is a link to 'gone', which it lacks"),
    ([link("a/layer.tar", "layer.tar")], "form a cycle"),
    ([link("a/layer.tar", "b"), link("a/b", "layer.tar")], "form a cycle"),
    ([link("a/layer.tar", "")], "is a link to 'a', which it lacks"),
    ([link("a/layer.tar", "", tarfile.DIRTYPE)], "'a/layer.tar' is a folder and no file"),
    ([link("a/layer.tar", "", tarfile.CHRTYPE)], "'a/layer.tar' is a device and no file"),
    ([link("a/layer.tar", "", tarfile.FIFOTYPE)], "'a/layer.tar' is a device and no file"),
    ([_sparse()], "'a/layer.tar' is a sparse file"),
    ([_described(**{"GNU.sparse.realsize": "1099511627776", "GNU.sparse.major": "1"})], "is a sparse file"),
    ([_described(**{"GNU.sparse.map": "0,1"})], "is a sparse file"),
    ([_described(size="-512")], "has the size '-512'"),
    ([_described(size="9" * 30)], "has the size '9999"),
    ([_described(size="1e3")], "has the size '1e3'"),
    ([_described(comment="x" * (2 << 20))], "it has a header of 2097"),
    ([_described(path="x" * 5000)], "it has a name of 5000 characters"),
    ([link("x" * 5000, "")], "it has a name of 5000 characters"),
    ([link("x", "y" * (2 << 20))], "it has a header of 2097"),
]


@pytest.mark.parametrize(("members", "said"), _LINKED)
def test_members_that_are_no_files_are_refused(
    unpack: Callable[[bytes], Path], members: list[tarfile.TarInfo], said: str
) -> None:
    manifest, image, _ = docker()
    kind = tarfile.PAX_FORMAT if any(one.pax_headers for one in members) else tarfile.GNU_FORMAT
    with pytest.raises(ActionFailed, match=said):
        unpack(tar([manifest, image, *members], kind))


def _without(name: str) -> list[tuple[str, bytes]]:
    return [one for one in [*oci(), *docker()] if name not in one[0]]


_BLOB = oci()[-1][0]
_REFUSED: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "neither index.json nor manifest.json"),
    (lambda: b"no archive", "it is not a tar file"),
    (lambda: bytes(10240), "neither index.json nor manifest.json"),
    (lambda: b"\x28\xb5\x2f\xfd" + b"x" * 100, "compressed with zstd, which bk does not read"),
    (lambda: b"\x1f\x8b" + b"x" * 100, "it cannot be decompressed"),
    (lambda: gzip.compress(tar(oci()))[:-20], "it cannot be decompressed"),
    (lambda: bz2.compress(tar(oci()))[:-20], "it is truncated"),
    (lambda: lzma.compress(tar(oci()))[:-20], "it is truncated"),
    (lambda: b"BZh9" + b"x" * 100, "it cannot be decompressed"),
    (lambda: b"\xfd7zXZ\0" + b"x" * 100, "it cannot be decompressed"),
    (lambda: gzip.compress(gzip.compress(tar(oci()))), "it is not a tar file"),
    (lambda: tar(oci())[:1600], "it is truncated|it lacks|is not a tar|damaged"),
    (lambda: tar(oci())[:512], "it is truncated in 'index.json'"),
    (lambda: tar(oci(manifests=None)), "index.json: it is neither a manifest nor an index"),
    (lambda: tar(oci(manifests=None, mediaType=INDEXES[0])), "it holds 0 images, not one"),
    (lambda: tar(oci(manifests=[])), "it holds 0 images, not one"),
    (lambda: tar(oci(manifests={})), "'manifests' must be a list"),
    (lambda: tar(oci(manifests=[None])), r"'manifests\[0\]' must be an object"),
    (lambda: tar([("index.json", b"[" * 100_000)]), "index.json: it is nested too deeply"),
    (lambda: tar([("index.json", b" " * (MANIFEST_LIMIT + 1))]), "'index.json' is larger than 4194304 bytes"),
    (lambda: tar([("index.json", b"<html>")]), "index.json: it is HTML"),
    (lambda: tar([("/index.json", oci()[0][1])]), "neither index.json nor manifest.json"),
    (lambda: tar([("../index.json", oci()[0][1])]), "neither index.json nor manifest.json"),
    (lambda: tar([*oci(), oci()[0]]), "'index.json' occurs twice"),
    (lambda: tar([*oci(), (_BLOB, b"other")]), "' occurs twice"),
    (lambda: tar([one for one in oci() if one[0] != _BLOB]), "it lacks 'blobs/sha256"),
    (lambda: tar([(name, data if name != _BLOB else b"{}") for name, data in oci()]), "it has the digest"),
    (lambda: tar([(name, data if data != b"layer" else b"LAYER") for name, data in oci()]), "with the digest sha256"),
    (lambda: tar([(name, data if data != b"layer" else b"layer+") for name, data in oci()]), "the blob .* has 6 bytes"),
    (lambda: tar([("manifest.json", b"null")]), "it holds 0 images"),
    (lambda: tar([("manifest.json", b"[null]")]), r"'\[0\]' must be an object"),
    (lambda: tar([("manifest.json", encoded(json.loads(docker()[0][1]) * 2)), *docker()[1:]]), "it holds 2 images"),
    (lambda: tar(docker(Config="../c.json")), "it lacks '../c.json'"),
    (lambda: tar(docker(Config="/etc/passwd")), "it lacks '/etc/passwd'"),
    (lambda: tar(docker(Config=None)), "it lacks '.'"),
    (lambda: tar(docker(Layers=["a"])), "it lacks 'a'"),
    (lambda: tar(docker(Layers=None)), "it has 0 layers, and its configuration names 1"),
    (lambda: tar(docker(Layers=["a/layer.tar"] * 2)), "it has 2 layers, and its configuration names 1"),
    (lambda: tar(docker(layer=TAR[:-512])), "and its configuration names"),
    (lambda: tar(docker(layer=bz2.compress(TAR))), "'a/layer.tar' is compressed with bzip2"),
    (lambda: tar(docker(layer=lzma.compress(TAR))), "'a/layer.tar' is compressed with xz"),
    (lambda: tar([*docker(Config=f"{'0' * 64}.json"), (f"{'0' * 64}.json", config(TAR))]), "' has the digest"),
    (
        lambda: tar([*docker(Layers=[f"blobs/sha256/{'0' * 64}"]), (f"blobs/sha256/{'0' * 64}", TAR)]),
        "' has the digest",
    ),
    (lambda: tar([*docker()[:1], ("c.json", b"[]"), *docker()[2:]]), "c.json: it must be an object"),
    (lambda: tar((f"{number}", b"") for number in range(20_001)), "more than 20000 members"),
]


@pytest.mark.parametrize(("data", "said"), _REFUSED)
def test_an_archive_that_holds_no_image_is_refused(
    unpack: Callable[[bytes], Path], tmp_path: Path, data: Callable[[], bytes], said: str
) -> None:
    with pytest.raises(ActionFailed, match=said):
        unpack(data())
    assert not (tmp_path / "made/layout/index.json").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "nothing"])
def test_what_is_no_file_is_no_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.tar"
    (tmp_path / "secret").write_bytes(tar(oci()))
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "nothing": lambda: None,
    }
    make[kind]()
    with pytest.raises(ActionFailed, match=r"it is (not a regular file|missing)"):
        archive.unpack(path, tmp_path / "layout")


def test_what_is_decompressed_is_bounded(unpack: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "LEAST_LIMIT", 4 << 20)
    bomb = tar([*oci(), ("zeros", bytes(8 << 20))])
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        with pytest.raises(ActionFailed, match="expand to more than 4194304"):
            unpack(pack(bomb))
    noise = os.urandom(1 << 20)
    assert unpack(gzip.compress(tar([*oci(), ("zeros", bytes(8 << 20)), ("noise", noise)])))


_CHILD = """
import resource, sys
from pathlib import Path
from bkrules.errors import ActionFailed
from bkrules.images import archive, tar_reader
tar_reader.LEAST_LIMIT = 200 << 20
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
try:
    archive.unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    print("unpacked")
except ActionFailed as error:
    print(error)
"""


def _bomb(name: str) -> bytes:
    big = 150 << 20
    header = tarfile.TarInfo("x")
    if name == "blob":
        return tar([*docker()[:2], ("a/layer.tar", bytes(big))])
    if name == "document":
        return tar([("index.json", b" " * big)])
    if name == "too much":
        return tar([("x", bytes(big)), ("y", bytes(big))])
    header.type, header.size = (tarfile.GNUTYPE_LONGNAME if name == "name" else tarfile.XHDTYPE), big
    return header.tobuf(tarfile.GNU_FORMAT) + b"1" * big


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("blob", "and its configuration names"),
        ("document", "is larger than 4194304 bytes"),
        ("too much", "expand to more than"),
        ("name", "it has a header of 157286400 bytes"),
        ("attributes", "it has a header of 157286400 bytes"),
    ],
)
def test_a_small_archive_takes_little_memory(tmp_path: Path, name: str, said: str) -> None:
    """Some hundred kilobytes that become hundreds of megabytes, in a process that may not have that much memory."""
    path = tmp_path / "image.tar"
    path.write_bytes(gzip.compress(_bomb(name), 1))
    assert path.stat().st_size < 2 << 20
    command = [sys.executable, "-c", _CHILD, str(path), str(tmp_path / "layout"), str(BUDGET)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said in done.stdout, done.stderr


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "byte", "block", "swap", "header"]), st.integers(0, 1 << 16), st.binary(max_size=12)
    ),
    min_size=1,
    max_size=4,
)


def _changed(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, number, more in changes:
        at = number % max(1, len(data))
        block = at // 512 * 512
        if kind == "cut":
            data = data[:at]
        elif kind == "byte":
            data = data[:at] + more + data[at + len(more) :]
        elif kind == "block":
            data = data[:block] + data[block + 512 :]
        elif kind == "swap":
            data = data[block : block + 1536] + data
        else:
            data = _resealed(
                data[:block] + data[block : block + 512][: at % 512] + more + data[at + len(more) :], block
            )
    return data


def _resealed(data: bytes, block: int) -> bytes:
    """The same with a checksum that fits, so that the change is looked at."""
    header = data[block : block + 512]
    if len(header) < 512:
        return data
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return data[: block + 148] + f"{total:06o}\0 ".encode() + data[block + 156 :]


@settings(max_examples=rounds(150))
@given(
    st.sampled_from(["oci", "docker"]),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    _CHANGES,
    st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
    st.booleans(),
)
def test_any_archive_is_unpacked_or_refused(
    kind: str, form: int, changes: list[tuple[str, int, bytes]], pack: Callable[[bytes], bytes], late: bool
) -> None:
    """By an error of bk, never by another; only blobs are written, below their digests."""
    import tempfile

    members: list[Member] = [*(oci() if kind == "oci" else docker()), link("x" * 150, "y" * 150)]
    data = tar(members, form)
    data = _changed(pack(data), changes) if late else pack(_changed(data, changes))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "image.tar")
        path.write_bytes(data)
        try:
            archive.unpack(path, Path(scratch, "made/layout"))
        except ActionFailed as error:
            str(error).encode()
        found = [path for path in Path(scratch).rglob("*") if path.is_file() and path.name != "image.tar"]
        for file in found:
            inner = str(file.relative_to(f"{scratch}/made/layout"))
            if inner not in ("index.json", "oci-layout"):
                assert inner == f"blobs/{name_of(file.read_bytes()).replace(':', '/')}"
