"""The root file system of layers that are put over each other."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from bkrules.declarative.rootfs import MOST_TEXT, RootFs


def layer(entries: Mapping[str, Any]) -> io.BytesIO:
    """A layer: bytes are files, a text is the target of a symbolic link, None a folder, and a dictionary the fields of a member."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, value in entries.items():
            member = tarfile.TarInfo(name)
            content = b""
            if isinstance(value, bytes):
                content = value
            elif isinstance(value, str):
                member.type, member.linkname = tarfile.SYMTYPE, value
            elif value is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            else:
                content = value.get("data", b"")
                for field, one in value.items():
                    setattr(member, field, one) if field != "data" else None
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data.seek(0)
    return data


def rootfs(*layers: Mapping[str, Any], wanted: tuple[str, ...] = ()) -> RootFs:
    found = RootFs(wanted)
    for one in layers:
        found.add_layer(layer(one))
    return found


def test_entries_have_all_that_a_worker_may_get_wrong() -> None:
    link = {"type": tarfile.LNKTYPE, "linkname": "bin/a"}
    device = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}
    xattrs = {"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.bytes": "\udcff\0", "mtime": "1.5"}
    file = {"data": b"x", "mode": 0o104755, "uid": 1000, "gid": 100, "pax_headers": xattrs}
    entries = rootfs({"./": None, "bin/": None, "bin/a": file, "b": link, "c": "bin/a", "dev/null": device}).entries
    assert list(entries) == ["/", "/bin", "/bin/a", "/b", "/c", "/dev/null"]
    found = entries["/bin/a"]
    assert (found.kind, found.mode, found.owner, found.size) == ("file", "4755", "1000:100", 1)
    assert found.sha256 == hashlib.sha256(b"x").hexdigest()
    assert found.xattrs == {"user.note": "kept", "user.bytes": "0xff00"}
    assert (entries["/b"].link, entries["/b"].sha256) == ("/bin/a", found.sha256)
    assert (entries["/c"].kind, entries["/c"].link) == ("symlink", "bin/a")
    assert (entries["/dev/null"].kind, entries["/dev/null"].device) == ("character device", "1:3")


def test_a_whiteout_removes_what_is_below_and_nothing_of_its_own_layer() -> None:
    low = {"a": None, "a/one": b"1", "a/two": b"2", "b": None, "b/three": b"3", "ab": b"4"}
    high = {"a": None, "a/.wh..wh..opq": b"", "a/new": b"5", ".wh.b": b""}
    assert list(rootfs(low, high).entries) == ["/a", "/ab", "/a/new"]
    assert sorted(rootfs(low, {"a/new": b"5", "a/.wh..wh..opq": b""}).entries) == [
        "/a",
        "/a/new",
        "/ab",
        "/b",
        "/b/three",
    ]


def test_a_file_in_the_place_of_a_folder_removes_what_was_in_it() -> None:
    assert list(rootfs({"a": None, "a/one": b"1"}, {"a": b"file"}).entries) == ["/a"]
    assert list(rootfs({"a": b"file"}, {"a": None, "a/one": b"1"}).entries) == ["/a", "/a/one"]


def test_texts_are_those_of_the_last_layer() -> None:
    wanted = ("/a", "/b", "/c", "/d")
    low = {"a": b"old", "b": b"gone", "c": b"\xff", "d": b"x" * (MOST_TEXT + 1), "e": b"unwanted"}
    assert rootfs(low, {"a": b"new", ".wh.b": b""}, wanted=wanted).contents == {"/a": "new"}
    assert rootfs({"a": b"same"}, {"other": b""}, wanted=wanted).contents == {"/a": "same"}


def test_a_layer_may_be_compressed_and_must_be_a_layer() -> None:
    found = RootFs()
    data = layer({"a": b"1", "b": b"2"}).getvalue()
    found.add_layer(io.BytesIO(gzip.compress(data[:700]) + gzip.compress(data[700:])))
    assert list(found.entries) == ["/a", "/b"]
    with pytest.raises(tarfile.TarError):
        found.add_layer(io.BytesIO(b"\x28\xb5\x2f\xfd zstd, and no tar at all"))
    with pytest.raises(tarfile.TarError, match="hard link to /none"):
        rootfs({"a": {"type": tarfile.LNKTYPE, "linkname": "none"}})
