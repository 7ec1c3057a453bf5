"""A local folder of a build, packed as its frontend reads it, and unpacked in a cell."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from bkrules.declarative.own_build import unpack
from bkrules.errors import ActionFailed, UsageError
from bkrules.repro import local_folder
from bkrules.repro.dockerignore import Ignored
from bkrules.repro.local_folder import LocalFolder, ignored_of


def fill(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, errors="surrogateescape")
    return folder


def names(folder: LocalFolder) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(folder.pack({}).data)) as tar:
        return tar.getnames()


def test_modes_times_links_and_empty_folders_survive(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", "run.sh", "d/secret", "läßt \udcff")
    (source / "run.sh").chmod(0o4775)
    (source / "d/secret").chmod(0o600)
    (source / "empty").mkdir(mode=0o700)
    (source / "link").symlink_to("d/secret")
    (source / "out").symlink_to("/etc/passwd")
    (source / "d").chmod(0o555)
    for path in ("run.sh", "d", "empty"):
        os.utime(source / path, (1_000_000_000, 1_000_000_000))
    packed = LocalFolder("context", source).pack({})
    archive = tmp_path / "archive"
    archive.write_bytes(packed.data)
    unpack(archive, tmp_path / "copy")
    found, wanted = (
        {
            path.relative_to(root): (path.lstat().st_mode, path.is_symlink() or int(path.lstat().st_mtime))
            for path in root.rglob("*")
        }
        for root in (tmp_path / "copy", source)
    )
    assert found == wanted
    assert (tmp_path / "copy/d/secret").read_text() == "d/secret"
    assert os.readlink(tmp_path / "copy/out") == "/etc/passwd"
    with tarfile.open(archive) as tar:
        assert {(member.uid, member.uname) for member in tar} == {(0, "")}


def test_the_frontend_reads_no_more(tmp_path: Path) -> None:
    paths = ("a", "d/keep", "d/x", ".git/config", "Dockerfile", ".dockerignore", "e/f/g")
    folder = fill(tmp_path, *paths)
    ignored = Ignored("*\n!d/keep\n!Dockerfile")
    assert names(LocalFolder("context", folder, ignored)) == [".dockerignore", "Dockerfile", "d", "d/keep"]
    assert names(LocalFolder("context", folder, Ignored("d\n.git"))) == [
        *(".dockerignore", "Dockerfile", "a", "e", "e/f", "e/f/g"),
    ]
    only = {"Dockerfile", "e/f/g", "missing"}
    assert names(LocalFolder("dockerfile", folder, only=only)) == ["Dockerfile", "e", "e/f", "e/f/g"]
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").symlink_to("a")
    assert "a" in names(LocalFolder("dockerfile", folder, only=only)), "a link may lead to any file"


def test_the_first_file_with_patterns_counts(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a")
    (tmp_path / "two").write_text("b")
    ignored = ignored_of(tmp_path / "none/x", tmp_path / "one", tmp_path / "two")
    assert (ignored.has("a"), ignored.has("b")) == (True, False)
    assert not ignored_of(tmp_path / "none").has("a")
    (tmp_path / "bad").write_text("[")
    with pytest.raises(UsageError, match=f"{tmp_path}/.dockerignore: the pattern"):
        ignored_of(tmp_path / "bad")


def test_what_no_file_can_carry_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = LocalFolder("context", tmp_path)
    for place, why in ((tmp_path / "none", "does not exist"), (fill(tmp_path, "file") / "file", "is not a folder")):
        with pytest.raises(UsageError, match=f"--local context: {place} {why}"):
            LocalFolder("context", place).pack({})
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
    with pytest.raises(UsageError, match=f"{tmp_path}/socket is a socket, which no file can carry"):
        folder.pack({})
    assert names(LocalFolder("context", tmp_path, Ignored("socket"))) == ["file"]
    (tmp_path / "socket").unlink()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="is a FIFO"):
        folder.pack({})
    (tmp_path / "fifo").unlink()
    fill(tmp_path, "large/x").joinpath("large/x").write_bytes(bytes(3 << 20))
    with pytest.raises(
        UsageError, match=r"has 3\.0 MiB, and a file may have 2\.0 MiB; the largest are large \(3\.0 MiB"
    ):
        folder.pack({}, 2 << 20)
    monkeypatch.setattr(local_folder, "MOST_FILES", 2)
    with pytest.raises(UsageError, match="has more than 2 files"):
        folder.pack({})


def test_a_secret_is_an_error_and_a_telling_name_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, "a/.env", "config/id_rsa", "env", "b").joinpath("key").write_text(
        "-----BEGIN RSA PRIVATE KEY-----\n"
    )
    folder = LocalFolder("context", tmp_path)
    assert folder.pack({}).telling == ("a/.env", "config/id_rsa", "key")
    with pytest.raises(ActionFailed, match=f"{tmp_path}/a/.env contains the value of TOKEN") as caught:
        folder.pack({b"a/.env": "TOKEN"})
    assert caught.value.reason == "secret"


@pytest.mark.parametrize("name", ["../x", "/x", "link/x", "a/../../x", "link/../x"])
def test_no_member_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with tarfile.open(tmp_path / "archive", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(str(tmp_path / "x") if name == "/x" else name))
    with pytest.raises(ValueError, match="leads out of its folder"):
        unpack(tmp_path / "archive", tmp_path / "copy")
    assert not (tmp_path / "x").exists()
    assert not list((tmp_path / "outside").iterdir())


def test_a_device_is_not_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as tar:
        device = tarfile.TarInfo("device")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    with pytest.raises(ValueError, match="no file, folder or symbolic link"):
        unpack(tmp_path / "archive", tmp_path / "copy")
