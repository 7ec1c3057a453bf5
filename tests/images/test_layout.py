from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bkrules.images import layout
from bkrules.images.documents import Descriptor
from bkrules.images.layer import Entry, layer, noise, symlink

Write = Callable[..., Path]

ENTRIES = {
    "bin/sh": symlink("box"),
    "bin/box": Entry(b"\x7fELF", 0o755),
    "etc/deep/er/file": Entry(b"text"),
    "etc/empty": Entry(),
    "top": Entry(b"1"),
}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def blob_of(folder: Path, blob: Descriptor) -> bytes:
    return (folder / "blobs" / blob.digest.path).read_bytes()


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blob_of(folder, layout.read_manifest(folder).blobs[0]))
    return found


def layers_of(folder: Path) -> list[bytes]:
    return [gzip.decompress(blob_of(folder, one)) for one in layout.read_manifest(folder).blobs[1:]]


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Moves this process to another time zone, with another umask and user name."""
    before = os.umask(0o022)

    def move() -> None:
        os.umask(0o077)
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        monkeypatch.setenv("USER", "somebody")
        time.tzset()

    yield move
    os.umask(before)
    monkeypatch.undo()
    time.tzset()


def test_an_image_is_the_same_bytes_everywhere(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    def write(folder: Path, entries: dict[str, Entry]) -> dict[str, bytes]:
        tar = layer(entries)
        layout.write_image(folder, tar, architecture="amd64", cmd=["/bin/sh"], env=["PATH=/bin"], base=None)
        return bytes_of(folder)

    first = write(tmp_path / "one", ENTRIES)
    elsewhere()
    assert write(tmp_path / "another/one", dict(reversed(ENTRIES.items()))) == first


def test_nothing_of_a_user_or_a_clock_is_in_a_layer() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer(ENTRIES))) as tar:
        members = tar.getmembers()
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {(0, 0, "", "", 0)}


def test_a_layer_has_its_entries_below_their_folders() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer(ENTRIES))) as tar:
        members = {one.name: one for one in tar}
        content = tar.extractfile("etc/deep/er/file")
        assert content is not None
        assert content.read() == b"text"
    assert list(members) == [
        *("bin", "etc", "etc/deep", "etc/deep/er"),
        *("bin/box", "bin/sh", "etc/deep/er/file", "etc/empty", "top"),
    ]
    assert all(members[name].isdir() and members[name].mode == 0o755 for name in ("bin", "etc", "etc/deep"))
    assert (members["bin/box"].mode, members["etc/empty"].mode) == (0o755, 0o644)
    assert members["bin/sh"].issym()
    assert members["bin/sh"].linkname == "box"


def test_the_gzip_header_has_no_time_and_no_name(tmp_path: Path, write: Write) -> None:
    folder = write(tmp_path / "image", {"a": "1"})
    _, described = layout.read_manifest(folder).blobs
    header = blob_of(folder, described)[:10]
    assert header[:2] == b"\x1f\x8b"
    assert header[3] == 0
    assert header[4:8] == bytes(4)


@pytest.mark.parametrize("is_based", [False, True])
def test_an_image_may_add_no_layer(tmp_path: Path, write: Write, is_based: bool) -> None:
    base = write(tmp_path / "base", {"a": "1"}) if is_based else None
    layers = layers_of(base) if base else []

    layout.write_image(tmp_path / "made", None, architecture="amd64", cmd=["/bin/it"], env=[], base=base)

    config = config_of(tmp_path / "made")
    assert layers_of(tmp_path / "made") == layers
    assert len(config["rootfs"]["diff_ids"]) == len(layers)
    assert config["history"][-1]["empty_layer"]
    assert len([step for step in config["history"] if not step.get("empty_layer")]) == len(layers)
    assert config["config"]["Cmd"] == ["/bin/it"]


def test_an_image_is_a_valid_layout(tmp_path: Path, write: Write) -> None:
    folder = write(tmp_path / "image", {"a": "1"}, cmd=("/bin/sh", "-c"))
    files = bytes_of(folder)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/sha256/")}
    assert len(blobs) == 3
    assert all(Path(name).name == hashlib.sha256(data).hexdigest() for name, data in blobs.items())
    [described] = json.loads(files["index.json"])["manifests"]
    manifest = layout.read_manifest(folder)
    assert described == manifest.descriptor
    for one in manifest.blobs:
        assert len(blob_of(folder, one)) == one.size
    assert [
        described["mediaType"],
        json.loads(manifest.data)["mediaType"],
        *(one.media_type for one in manifest.blobs),
    ] == [
        layout.MANIFEST,
        layout.MANIFEST,
        layout.CONFIG,
        layout.LAYER,
    ]
    config = config_of(folder)
    assert (config["architecture"], config["os"], config["config"]) == ("amd64", "linux", {"Cmd": ["/bin/sh", "-c"]})
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layers_of(folder)[0]).hexdigest()}"]
    assert len(config["history"]) == 1


def test_a_base_adds_its_layers_below(tmp_path: Path, write: Write) -> None:
    base = write(tmp_path / "base", {"a": "1"}, cmd=("/bin/base",))
    before = bytes_of(base)
    folder = write(tmp_path / "image", {"b": "2"}, base=base)
    assert bytes_of(base) == before
    assert layout.read_manifest(folder).blobs[1:2] == layout.read_manifest(base).blobs[1:]
    assert [names_in(tar) for tar in layers_of(folder)] == [["a"], ["b"]]
    config = config_of(folder)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers_of(folder)]
    assert len(config["history"]) == 2
    assert config["config"] == {"Cmd": ["/bin/base"]}


def test_a_command_replaces_that_of_the_base(tmp_path: Path, write: Write) -> None:
    base = write(tmp_path / "base", {"a": "1"}, cmd=("/bin/base",))
    assert config_of(write(tmp_path / "image", {}, base=base, cmd=("/bin/own",)))["config"] == {"Cmd": ["/bin/own"]}


def test_an_entrypoint_stays_until_another_replaces_it(tmp_path: Path, write: Write) -> None:
    base = tmp_path / "base"
    layout.write_image(base, layer({}), architecture="amd64", cmd=(), env=(), base=None, entrypoint=["/run"])
    assert config_of(base)["config"] == {"Entrypoint": ["/run"]}
    assert config_of(write(tmp_path / "image", {}, base=base))["config"] == {"Entrypoint": ["/run"]}


def test_labels_add_to_those_of_the_base(tmp_path: Path) -> None:
    base, image = tmp_path / "base", tmp_path / "image"
    for folder, labels in ((base, {"a": "1", "b": "2"}), (image, {"b": "3"})):
        below = base if folder == image else None
        layout.write_image(folder, None, architecture="amd64", cmd=(), env=(), base=below, labels=labels)
    assert config_of(image)["config"] == {"Labels": {"a": "1", "b": "3"}}


def test_noise_follows_from_its_name_and_begins_alike_at_every_size() -> None:
    long = noise("a", 1000)
    for size in (0, 1, 31, 32, 33, 64, 999):
        assert noise("a", size) == long[:size]
        assert len(noise("a", size)) == size
    assert noise("b", 1000)[:32] not in long


def test_noise_does_not_compress() -> None:
    data = noise("data/00.bin", 1 << 16)
    assert len(zlib.compress(data, 9)) > len(data)
