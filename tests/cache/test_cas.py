from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.model import digest
from bkrules.model.digest import Digest

HELLO = digest.of_bytes(b"hello")


def damage(cas: Cas, name: Digest, data: bytes) -> None:
    path = Path(cas.path(name))
    path.unlink()
    path.write_bytes(data)


def names(cas: Cas) -> list[str]:
    return sorted(path.name for path in Path(cas.root).rglob("*") if path.is_file())


def test_bytes_come_back(cas: Cas) -> None:
    assert not cas.has(HELLO)
    assert cas.read(HELLO) is None
    assert cas.put(b"hello") == HELLO
    assert cas.has(HELLO)
    assert cas.intact(HELLO)
    assert cas.read(HELLO) == b"hello"
    assert names(cas) == [HELLO.hash]


def test_a_files_bytes_come_back(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    assert cas.put_file(str(tmp_path / "file")) == HELLO
    assert cas.read(HELLO) == b"hello"
    assert (tmp_path / "file").exists()
    assert names(cas) == [HELLO.hash]


def test_a_blob_lies_below_the_start_of_its_digest(cas: Cas) -> None:
    cas.put(b"hello")
    assert Path(cas.path(HELLO)) == Path(cas.root, "2c", HELLO.hash)
    assert Path(cas.path(HELLO)).is_file()


def test_the_empty_blob_is_a_blob(cas: Cas) -> None:
    assert not cas.has(digest.EMPTY)
    cas.put(b"")
    assert cas.read(digest.EMPTY) == b""


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("way", ["bytes", "file"])
def test_everyone_may_read_and_run_a_blob_and_nobody_write_it(cas: Cas, tmp_path: Path, way: str) -> None:
    if way == "bytes":
        cas.put(b"hello")
    else:
        (tmp_path / "file").write_bytes(b"hello")
        cas.put_file(str(tmp_path / "file"))
    assert stat.S_IMODE(Path(cas.path(HELLO)).stat().st_mode) == 0o555


def test_a_blob_is_written_once(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    cas.put(b"hello")
    before = Path(cas.path(HELLO)).stat()
    cas.put(b"hello")
    cas.put_file(str(tmp_path / "file"))
    after = Path(cas.path(HELLO)).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_digest_of_another_size_is_another_blob(cas: Cas) -> None:
    cas.put(b"hello")
    other = Digest(HELLO.hash, HELLO.size + 1)
    assert not cas.has(other)
    assert cas.read(other) is None


def test_a_cut_blob_is_missing_and_can_be_stored_again(cas: Cas) -> None:
    cas.put(b"hello")
    damage(cas, HELLO, b"hell")
    assert not cas.has(HELLO)
    assert not cas.intact(HELLO)
    assert cas.read(HELLO) is None
    cas.put(b"hello")
    assert cas.read(HELLO) == b"hello"


def test_a_damaged_blob_is_never_read_and_is_removed_when_found(cas: Cas) -> None:
    cas.put(b"hello")
    damage(cas, HELLO, b"jello")
    assert cas.read(HELLO) is None
    assert not cas.intact(HELLO)
    assert not cas.has(HELLO)
    assert names(cas) == []


@pytest.mark.parametrize("data", [b"hello", b"jello"], ids=["right", "damaged"])
def test_a_blob_that_another_process_removes_while_it_is_read(tmp_path: Path, data: bytes) -> None:
    class Digests(FileDigests):
        def now(self, path: str) -> Digest:
            found = super().now(path)
            os.unlink(path)
            return found

    cas = Cas(str(tmp_path / "cas"), Digests(str(tmp_path / "digests")))
    cas.put(b"hello")
    damage(cas, HELLO, data)
    assert not cas.intact(HELLO)
    assert not cas.has(HELLO)


def test_a_blob_that_was_damaged_can_be_stored_again(cas: Cas) -> None:
    cas.put(b"hello")
    damage(cas, HELLO, b"jello")
    assert not cas.intact(HELLO)
    cas.put(b"hello")
    assert cas.intact(HELLO)
    assert cas.read(HELLO) == b"hello"


def test_a_file_that_is_not_there(cas: Cas, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cas.put_file(str(tmp_path / "none"))
    assert names(cas) == []


def test_several_writers_at_once(tmp_path: Path) -> None:
    """Each with its own store, as several processes of bk would have."""
    blobs = [bytes([number]) * 50_000 for number in range(10)]
    (tmp_path / "file").write_bytes(blobs[0])
    errors: list[BaseException] = []

    def write() -> None:
        cas = Cas(str(tmp_path / "cas"), FileDigests(str(tmp_path / "digests")))
        try:
            for data in blobs:
                cas.put(data)
            cas.put_file(str(tmp_path / "file"))
            assert all(cas.intact(digest.of_bytes(data)) for data in blobs)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    cas = Cas(str(tmp_path / "cas"), FileDigests(str(tmp_path / "digests")))
    assert names(cas) == sorted(digest.of_bytes(data).hash for data in blobs)


@pytest.mark.usefixtures("strict_umask")
def test_what_is_stored_anew_takes_the_place_of_a_damaged_blob(cas: Cas, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    with (tmp_path / "file").open("rb") as file:
        ways: list[Callable[[], Digest]] = [
            lambda: cas.put(b"hello"),
            lambda: cas.put_file(file.name),
            lambda: cas.put_open(file.fileno()),
        ]
        for put in ways:
            put()
            damage(cas, HELLO, b"jello")
            assert put() == HELLO
            assert cas.read(HELLO) == b"hello"


def test_a_blob_that_was_made_unreadable_is_readable_again(cas: Cas) -> None:
    cas.put(b"hello")
    Path(cas.path(HELLO)).chmod(0o600)
    assert cas.intact(HELLO)
    assert stat.S_IMODE(Path(cas.path(HELLO)).stat().st_mode) == 0o555


@pytest.mark.parametrize("known", ["in this process", "from before"])
@pytest.mark.usefixtures("an_hour_later")
def test_a_blob_that_is_damaged_in_place_with_its_old_time_is_noticed(tmp_path: Path, known: str) -> None:
    def opened() -> tuple[Cas, FileDigests]:
        digests = FileDigests(str(tmp_path / "digests"))
        return Cas(str(tmp_path / "cas"), digests), digests

    cas, digests = opened()
    cas.put(b"hello")
    path = Path(cas.path(HELLO))
    (tmp_path / "shown").hardlink_to(path)
    if known == "from before":
        assert cas.intact(HELLO)
        digests.save()
        cas, digests = opened()
    rewrite(tmp_path / "shown", b"jello")
    assert not cas.intact(HELLO)
    assert not path.exists()


def rewrite(path: Path, data: bytes) -> None:
    """Write in place and set the time of the last change back; again, until the kernel's clock has moved on."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_blob_that_fits_on_no_disk_is_refused_before_its_first_byte(cas: Cas) -> None:
    def chunks() -> Iterator[bytes]:
        pytest.fail("a byte was read")
        yield b""

    with pytest.raises(OSError, match="No space left on device for") as caught:
        cas.receive(Digest("0" * 64, 1 << 60), chunks())
    assert caught.value.errno == errno.ENOSPC
    data = bytes(1 << 20)
    cas.receive(digest.of_bytes(data), iter([data]))
    assert cas.read(digest.of_bytes(data)) == data


def test_blobs_at_once_share_the_room_of_the_disk(cas: Cas, tmp_path: Path) -> None:
    """Each of them would fit."""
    disk = os.statvfs(tmp_path)
    most = disk.f_bavail * disk.f_frsize * 3 // 4

    def chunks() -> Iterator[bytes]:
        with pytest.raises(OSError, match="No space left on device for"):
            cas.receive(Digest("1" * 64, most), iter(()))
        yield b"x"

    for _ in range(2):  # what fails claims nothing any more
        with pytest.raises(ValueError, match="not those of"):
            cas.receive(Digest("0" * 64, most), chunks())
