from __future__ import annotations

import marshal
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bkrules.cache.file_digests import FileDigests
from bkrules.model import digest
from bkrules.model.digest import Digest


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "state/digests")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    return path


def learn(store: str, file: Path) -> None:
    digests = FileDigests(store)
    assert digests.of(str(file)) == digest.of_bytes(file.read_bytes())
    digests.save()


def replace_content(file: Path, data: bytes) -> None:
    """Write until the ctime differs: its resolution is that of the kernel's tick."""
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_bytes(data)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_ino == before.st_ino


@pytest.mark.usefixtures("an_hour_later")
def test_an_unchanged_file_is_read_once(store: str, file: Path, reads: list[str]) -> None:
    learn(store, file)
    assert reads == [str(file)]
    assert FileDigests(store).of(str(file)) == digest.of_bytes(b"before")
    assert reads == [str(file)]


def test_a_file_is_read_once_in_a_build(store: str, file: Path, reads: list[str]) -> None:
    digests = FileDigests(store)
    assert digests.of(str(file)) == digests.of(str(file))
    assert reads == [str(file)]


def test_a_young_file_is_not_remembered(store: str, file: Path, reads: list[str]) -> None:
    """It could change again within one tick of the clock that stamps it."""
    learn(store, file)
    learn(store, file)
    assert reads == [str(file), str(file)]


def test_a_file_with_an_old_mtime_but_a_young_ctime_is_not_remembered(store: str, file: Path, reads: list[str]) -> None:
    os.utime(file, ns=(0, 0))
    learn(store, file)
    learn(store, file)
    assert reads == [str(file), str(file)]


@pytest.mark.usefixtures("an_hour_later")
def test_a_file_from_the_future_is_not_remembered(store: str, file: Path, reads: list[str]) -> None:
    ahead = file.stat().st_mtime_ns + 7200 * 10**9
    os.utime(file, ns=(ahead, ahead))
    learn(store, file)
    learn(store, file)
    assert reads == [str(file), str(file)]


@pytest.mark.usefixtures("an_hour_later")
def test_a_change_that_keeps_size_and_mtime_is_noticed(store: str, file: Path) -> None:
    learn(store, file)
    replace_content(file, b"after!")
    assert FileDigests(store).of(str(file)) == digest.of_bytes(b"after!")


@pytest.mark.usefixtures("an_hour_later")
def test_another_file_under_the_same_name_is_noticed(store: str, file: Path) -> None:
    learn(store, file)
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"after!")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)
    assert FileDigests(store).of(str(file)) == digest.of_bytes(b"after!")


@pytest.mark.usefixtures("an_hour_later")
def test_what_was_learned_of_other_files_is_kept(store: str, file: Path, reads: list[str]) -> None:
    second = file.with_name("second")
    second.write_bytes(b"2")
    learn(store, file)
    learn(store, second)
    del reads[:]
    digests = FileDigests(store)
    digests.of(str(file))
    digests.of(str(second))
    assert reads == []


@pytest.mark.usefixtures("an_hour_later")
def test_the_store_is_written_only_when_something_was_learned(store: str, file: Path) -> None:
    learn(store, file)
    before = os.stat(store)
    learn(store, file)
    after = os.stat(store)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.usefixtures("an_hour_later")
@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(bytes(100), id="zeros"),
        pytest.param(marshal.dumps({"a": "b"})[:-1], id="cut"),
        pytest.param(marshal.dumps(None), id="none"),
        pytest.param(marshal.dumps(["a"]), id="list"),
    ],
)
def test_a_damaged_store_is_an_empty_one(store: str, file: Path, damaged: bytes, reads: list[str]) -> None:
    os.makedirs(os.path.dirname(store))
    Path(store).write_bytes(damaged)
    learn(store, file)
    assert reads == [str(file)]
    learn(store, file)
    assert reads == [str(file)]


def test_a_file_that_is_gone_is_an_error_though_it_was_known(store: str, file: Path) -> None:
    learn(store, file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        FileDigests(store).of(str(file))


def test_threads_read_a_file_once(store: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that begin together have the same tools, and a binary takes a tenth of a second to read."""
    digests, reads, another = FileDigests(store), 0, threading.Event()
    of_file = digest.of_file

    def read(path: str) -> Digest:
        nonlocal reads
        reads += 1
        if reads == 2:
            another.set()
        another.wait(0.5)
        return of_file(path)

    monkeypatch.setattr(digest, "of_file", read)
    with ThreadPoolExecutor(2) as pool:
        names = set(pool.map(digests.now, [str(file)] * 2))

    assert names == {digest.of_bytes(b"before")}
    assert reads == 1
