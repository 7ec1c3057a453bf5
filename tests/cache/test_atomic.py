from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from bkrules.cache import atomic


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"a", b"x" * (1 << 20)], ids=["empty", "short", "long"])
def test_a_written_file_has_its_bytes_and_nothing_lies_beside_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a/b/file"
    atomic.write(str(path), data)
    assert path.read_bytes() == data
    assert files(tmp_path) == ["file"]
    atomic.write(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert files(tmp_path) == ["file"]


def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    atomic.write(str(tmp_path / "file"), b"", 0o555)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o555


def test_a_file_is_replaced_and_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        atomic.write(str(path), b"new")
        assert reader.read() == b"old"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    atomic.write(str(tmp_path / "file"), b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def write(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        atomic.write(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic.write(str(tmp_path / "taken"), b"data")
    assert files(tmp_path) == []


def test_temporary_names_differ_and_lie_in_the_same_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    names = {atomic.temporary(str(path)) for _ in range(100)}
    assert len(names) == 100
    assert {Path(name).parent for name in names} == {tmp_path}
    assert str(path) not in names


def test_readers_and_writers_at_once_see_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 100_000 for letter in b"abc"]
    atomic.write(str(path), contents[0])
    errors: list[BaseException] = []

    def write(data: bytes) -> None:
        try:
            for _ in range(20):
                atomic.write(str(path), data)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(data,)) for data in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    for writer in writers:
        writer.join()
    assert errors == []
    assert files(tmp_path) == ["file"]


def test_a_placed_file_is_a_hard_link(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "a/b/target"
    source.write_bytes(b"data")
    atomic.place(str(source), target)
    assert target.samefile(source)
    assert target.stat().st_nlink == 2


def test_a_placed_file_replaces_what_was_there(tmp_path: Path) -> None:
    source, target, old = tmp_path / "source", tmp_path / "target", tmp_path / "old"
    source.write_bytes(b"new")
    old.write_bytes(b"old")
    target.symlink_to(old)
    atomic.place(str(source), target)
    assert target.samefile(source)
    assert old.read_bytes() == b"old"


def test_a_file_placed_where_it_is_leaves_nothing_beside_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    os.link(source, target)
    atomic.place(str(source), target)
    assert target.samefile(source)
    assert files(tmp_path) == ["source", "target"]


def test_many_place_one_file_at_once(tmp_path: Path) -> None:
    sources = [tmp_path / "one", tmp_path / "other"]
    for source in sources:
        source.write_bytes(source.name.encode())
    target = tmp_path / "target"
    errors = []

    def place(source: Path) -> None:
        try:
            for _ in range(200):
                atomic.place(str(source), target)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=place, args=(source,)) for source in sources * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(tmp_path) == ["one", "other", "target"]


def test_a_file_on_another_filesystem_is_copied_with_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    source.chmod(0o555)

    def link(_source: str, _target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    atomic.place(str(source), target)
    assert target.read_bytes() == b"data"
    assert not target.samefile(source)
    assert stat.S_IMODE(target.stat().st_mode) == 0o555


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_a_name_of_full_length_is_placed(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "source", tmp_path / name
    source.write_text("x")
    for _ in range(2):
        atomic.place(str(source), target)
    atomic.write(str(tmp_path / "other" / name), b"y")
    assert (target.read_text(), (tmp_path / "other" / name).read_text()) == ("x", "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "other", "source"])


def test_a_file_is_not_placed_over_a_folder(tmp_path: Path) -> None:
    """Neither where the folder is the target, nor where a file is in the place of its folder: nothing changes."""
    source, folder, file = tmp_path / "source", tmp_path / "folder", tmp_path / "file"
    source.write_bytes(b"data")
    folder.mkdir()
    file.write_bytes(b"foreign")
    with pytest.raises(IsADirectoryError):
        atomic.place(str(source), folder)
    with pytest.raises(OSError, match="file"):
        atomic.place(str(source), file / "target")
    with pytest.raises(FileNotFoundError):
        atomic.place(str(tmp_path / "missing"), tmp_path / "a/target")
    assert files(tmp_path) == ["file", "source"]
    assert file.read_bytes() == b"foreign"
