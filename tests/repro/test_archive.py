"""The file of a reproduction is read as one of a stranger."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest
from reproductions import pack

from bkrules.build.session import NotBuilt
from bkrules.errors import ActionFailed
from bkrules.images import tar_reader
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.report.build_result import BuildResult
from bkrules.repro import archive
from bkrules.repro.archive import BLOBS, MANIFEST, Content

DATA = b"some bytes"
NAME = digest.of_bytes(DATA)


def refused(file: Path, name: Digest = NAME) -> str:
    """Return why bk refuses to read a blob of the file."""
    with pytest.raises(ActionFailed) as caught, archive.opened(file, file.parent) as found:
        found.read(name, 1 << 20)
    assert caught.value.reason in ("bad-reproduction", "bad-archive")
    return caught.value.message


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    contents = {NAME: Content(NAME, str(source)), digest.EMPTY: archive.of_bytes(b"")}
    for name in ("one", "two"):
        with open(tmp_path / name, "wb") as file:
            archive.write(file, b"{}", dict(reversed(contents.items())) if name == "two" else contents)
        source.touch()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with archive.opened(tmp_path / "one", tmp_path) as found:
        assert (found.manifest, found.read(NAME, 10), found.has(digest.EMPTY)) == (b"{}", DATA, True)
    with tarfile.open(tmp_path / "one") as tar:
        assert {(member.mtime, member.uname, member.uid) for member in tar.getmembers()} == {(0, "", 0)}


def test_an_input_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"other byte")
    with pytest.raises(ValueError, match="not those of"), open(tmp_path / "file", "wb") as file:
        archive.write(file, b"{}", {NAME: Content(NAME, str(source))})


def test_a_blob_must_have_its_digest_and_its_size(tmp_path: Path) -> None:
    file = pack(tmp_path / "file", {MANIFEST: b"{}", BLOBS + NAME.hash: b"other byte"})
    assert "forged or damaged" in refused(file)
    file = pack(tmp_path / "file", {MANIFEST: b"{}", BLOBS + NAME.hash: DATA * 2})
    assert "forged or damaged" in refused(file)
    file = pack(tmp_path / "file", {MANIFEST: b"{}", BLOBS + NAME.hash: DATA})
    assert "may have 1048576" in refused(file, Digest(NAME.hash, 1 << 30))
    assert "it lacks the blob" in refused(file, digest.EMPTY)


def test_an_error_of_what_reads_a_file_stays_as_it_is(tmp_path: Path) -> None:
    file = pack(tmp_path / "file", {MANIFEST: b"{}"})
    raised = NotBuilt(BuildResult((), 0.0))
    with pytest.raises(NotBuilt) as caught, archive.opened(file, tmp_path):
        raise raised
    assert caught.value is raised


def test_nothing_is_unpacked_and_no_link_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    link = tarfile.TarInfo(BLOBS + NAME.hash)
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    file = pack(tmp_path / "file", {MANIFEST: b"{}", "link": link, "../../outside": b"x", "/absolute": b"x"})
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "link out of the archive" in refused(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert "it has no bk-repro.json" in refused(pack(tmp_path / "file", {"other": b""}))


def test_a_bomb_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "LEAST_LIMIT", 1 << 20)
    file = pack(tmp_path / "file", {MANIFEST: b"{}", BLOBS + NAME.hash: bytes(64 << 20)})
    assert "expand to more than" in refused(file)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"not an archive")
    assert "it is not a tar file" in refused(file)
    file.write_bytes(gzip.compress(b"x" * 4096)[:30])
    assert "cannot be decompressed" in refused(file)
    (tmp_path / "link").symlink_to(file)
    assert "not a regular file" in refused(tmp_path / "link")
