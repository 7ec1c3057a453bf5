"""Debian packages, whole and malformed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from debs import FORMAT, ar, deb, tar
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.errors import ActionFailed
from bkrules.images import deb_reader, tar_reader
from bkrules.images.tar_reader import ZSTD

FILES = {"bin/sh": b"a shell", "etc/motd": b"hello"}
WHOLE = deb(FILES)
Read = Callable[[bytes, str], bytes]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a file of a package."""

    def run(data: bytes, path: str) -> bytes:
        (tmp_path / "it.deb").write_bytes(data)
        with deb_reader.opened(tmp_path / "it.deb", tmp_path, unpack) as files:
            return b"".join(files.pieces(path))

    return run


def unpack(source: Path, target: Path) -> None:
    """Drop the magic number: what stands for a decompressor here."""
    target.write_bytes(source.read_bytes().removeprefix(ZSTD))


def package(data: bytes, name: str = "data.tar.xz") -> bytes:
    return ar([FORMAT, ("control.tar.xz", b""), (name, data)])


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("data.tar", bytes),
        ("data.tar.gz", gzip.compress),
        ("data.tar.bz2", bz2.compress),
        ("data.tar.xz", lzma.compress),
        ("data.tar.zst", lambda data: ZSTD + data),
    ],
)
def test_files_are_read(read: Read, name: str, compress: Callable[[bytes], bytes]) -> None:
    data = package(compress(tar(FILES, {"bin/ash": "sh"})), name)
    assert read(data, "bin/sh") == read(data, "bin/ash") == b"a shell"
    assert read(data, "etc/motd") == b"hello"


def test_which_files_are_executable(tmp_path: Path) -> None:
    (tmp_path / "it.deb").write_bytes(package(tar(FILES, {"ash": "bin/sh"})))
    with deb_reader.opened(tmp_path / "it.deb", tmp_path, unpack) as files:
        assert [name for name in files.names if files.is_executable(name)] == ["bin/sh", "ash"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a Debian package"),
        (b"!<arch>\n", "0 archives of files"),
        (WHOLE[:-20], "truncated in 'data.tar.xz'"),
        (WHOLE[:100], "damaged after 72 bytes"),
        (WHOLE.replace(b"`\n", b"`~", 1), "damaged after 8 bytes"),
        (ar([("data.tar", tar(FILES)), FORMAT]), "not a Debian package of format 2"),
        (ar([("debian-binary", b"3.0\n"), ("data.tar", tar(FILES))]), "not a Debian package of format 2"),
        (ar([FORMAT, ("data.tar", tar(FILES)), ("data.tar.xz", b"")]), "2 archives of files"),
        (ar([FORMAT, *[("x", b"")] * 40]), "more than 32 members"),
        (package(b"no archive"), "not a tar file"),
        (package(lzma.compress(tar(FILES))[:-30]), "truncated"),
        (package(tar({"bin/other": b""})), "lacks 'bin/sh'"),
        (package(tar(FILES).replace(b"bin/sh", b"bin/xx")), "bad checksum"),
    ],
)
def test_a_malformed_package_is_refused(read: Read, data: bytes, said: str) -> None:
    with pytest.raises(ActionFailed, match=said):
        read(data, "bin/sh")


def test_an_absolute_link_leads_to_a_file_of_the_package(read: Read) -> None:
    assert read(package(tar(FILES, {"usr/share/motd": "/etc/motd"})), "usr/share/motd") == b"hello"


@pytest.mark.parametrize("target", ["/etc/passwd", "/../etc/motd", "../../etc/passwd", "/", "nothing", "loop"])
def test_a_link_leads_to_nothing_but_the_package(read: Read, target: str) -> None:
    with pytest.raises(ActionFailed, match=r"link out of the archive|which it lacks|form a cycle"):
        read(package(tar(FILES, {"loop": target})), "loop")


def test_a_package_expands_to_a_limit(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "LEAST_LIMIT", 1 << 20)
    with pytest.raises(ActionFailed, match=r"expand to more than"):
        read(package(lzma.compress(tar({"bin/sh": bytes(8 << 20)}))), "bin/sh")


@settings(max_examples=rounds(200))
@given(data=st.data())
def test_a_changed_package_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever bytes change, reading ends in the file's bytes or in ActionFailed."""
    plain = package(tar(FILES), "data.tar")
    at = data.draw(st.integers(0, len(plain) - 1))
    change = data.draw(st.binary(min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("deb")
    (folder / "it.deb").write_bytes(plain[:at] + change + plain[at + len(change) :])
    try:
        with deb_reader.opened(folder / "it.deb", folder, unpack) as files:
            assert len(b"".join(files.pieces("bin/sh"))) == files.size("bin/sh")
    except ActionFailed as error:
        assert error.reason == "bad-archive"
