"""What a cell writes to /out: it has a limit, and only files, folders and links of it reach bk's folder of results."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_cells import LIMITS, BareCells

from bkrules.cell.out_folder import OutFolder

MOST = 1 << 20
SMALL = {**LIMITS, "disk": 8 << 20}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path / "source"


@pytest.fixture
def out(source: Path) -> Iterator[OutFolder]:
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    yield OutFolder(descriptor, str(source.parent / "target"), MOST)
    os.close(descriptor)


def test_logs_grow_and_the_rest_comes_at_the_end(out: OutFolder, source: Path) -> None:
    target = source.parent / "target"
    (source / "a.log").write_text("one\n")
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/data").write_bytes(b"x" * 70_000)
    (source / "deep/er/data").chmod(0o4750)
    out.sync()
    assert {path.name for path in target.iterdir()} == {"a.log"}
    first = (target / "a.log").stat().st_ino
    with (source / "a.log").open("a") as log:
        log.write("two\n")

    out.finish()

    assert (target / "a.log").read_text() == "one\ntwo\n"
    assert (target / "a.log").stat().st_ino == first
    assert (target / "deep/er/data").read_bytes() == b"x" * 70_000
    assert (target / "deep/er/data").stat().st_mode & 0o7777 == 0o750
    assert out.strange == []


def test_a_log_whose_end_is_moved_to_another_file_is_cut(out: OutFolder, source: Path) -> None:
    """As it is when a daemon's stacks are moved out of its log."""
    (source / "a.log").write_text("log stacks")
    out.sync()
    os.truncate(source / "a.log", 3)

    out.finish()

    assert (source.parent / "target/a.log").read_text() == "log"


def test_a_log_that_is_replaced_is_followed(out: OutFolder, source: Path) -> None:
    (source / "a.log").write_text("old")
    out.sync()
    (source / "b").write_text("new")
    (source / "b").rename(source / "a.log")

    out.finish()

    assert (source.parent / "target/a.log").read_text() == "oldnew"


def test_each_test_of_a_shared_cell_gets_its_own_part(out: OutFolder, source: Path, tmp_path: Path) -> None:
    (source.parent / "second").mkdir()
    (source / "daemon.log").write_text("of the first\n")
    (source / "test.log").write_text("first")
    out.begin(str(source.parent / "second"))
    out.sync()
    (source / "new").write_text("second")
    (source / "new").rename(source / "test.log")
    with (source / "daemon.log").open("a") as log:
        log.write("of the second\n")

    out.finish_test()

    found = {path.name: path.read_text() for path in (source.parent / "second").iterdir()}
    assert found == {"daemon.log": "of the second\n", "test.log": "second"}


def test_nothing_is_followed_and_nothing_is_waited_for(out: OutFolder, source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    (source / "test.log").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path)
    os.mkfifo(source / "fifo.log")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    os.mknod(source / "disk", 0o60600, os.makedev(7, 0))

    out.sync()
    out.finish()

    target = tmp_path / "target"
    assert out.strange == [f"{target}/disk", f"{target}/fifo.log", f"{target}/socket"]
    assert sorted(path.name for path in target.iterdir()) == ["folder", "test.log"]
    assert os.readlink(target / "test.log") == str(tmp_path / "secret")  # still a link, which nobody reads


def test_a_link_in_bks_own_folder_is_not_written_through(out: OutFolder, source: Path, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("of the host")
    (tmp_path / "target/a.log").symlink_to(tmp_path / "host")
    (source / "a.log").write_text("of the cell")

    with pytest.raises(OSError, match="symbolic links"):
        out.finish()

    assert (tmp_path / "host").read_text() == "of the host"


@pytest.mark.parametrize("how", ["replaced", "cut", "others"])
def test_logs_that_are_written_anew_have_a_limit(out: OutFolder, source: Path, how: str) -> None:
    """Each is smaller than /out, and all together would fill the disk of the machine."""
    for number in range(10):
        log = source / (f"{number}.log" if how == "others" else "a.log")
        new = source / "new"
        (new if how == "replaced" else log).write_bytes(os.urandom(MOST // 2))
        if how == "replaced":
            new.rename(log)
        out.sync()
        if how == "cut":
            os.truncate(log, 0)
            out.sync()
        elif how == "others":
            log.unlink()
    out.finish()

    assert out.is_over
    assert sum(path.stat().st_size for path in (source.parent / "target").iterdir()) <= 2 * MOST


def test_holes_make_no_room_for_more(out: OutFolder, source: Path) -> None:
    with (source / "a.log").open("wb") as log:
        for _ in range(10):
            log.seek(1 << 30, os.SEEK_CUR)
            log.write(bytes(range(256)) * (MOST // 512))
            log.flush()
            out.sync()

    assert out.is_over


def test_holes_stay_holes(out: OutFolder, source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 36)
        file.write(b"end")
        file.truncate(1 << 37)

    out.finish()

    copied = (source.parent / "target/sparse").stat()
    assert copied.st_size == 1 << 37
    assert copied.st_blocks < 100


def test_a_tree_that_is_too_deep_is_named(out: OutFolder, source: Path) -> None:
    folder = os.open(source, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)

    out.finish()

    assert len(out.strange) == 1


FILLS = """
import os
def test_it(sandbox):
    number = 0
    with open({path!r}, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
"""
SILENT = FILLS.replace(
    "file.write(bytes(1 << 16))", "try: file.write(bytes(1 << 12))\n            except OSError: {then}"
)


@pytest.mark.parametrize(
    ("test", "what"),
    [
        (FILLS.format(path="/out/big"), "the cell's folder /out of 8 MiB is full; "),
        (FILLS.format(path="/out/test.log"), "the cell's folder /out of 8 MiB is full; "),
        (FILLS.format(path="/out/cell.log"), "the cell's folder /out of 8 MiB is full; "),
        (FILLS.format(path="/tmp/big"), "the cell's disk of 8 MiB is full; "),
        (FILLS.format(path="/run/bk/big"), "the cell's disk of 8 MiB is full; "),
        (SILENT.format(path="/run/bk/big", then="os._exit(3)"), "the cell's disk of 8 MiB is full; exit status 3"),
        (SILENT.format(path="/out/big", then="os._exit(3)"), "the cell's folder /out of 8 MiB is full; exit status 3"),
        (SILENT.format(path="/big", then="raise AssertionError('no more')"), "the cell's disk of 8 MiB is full; "),
    ],
)
def test_a_full_disk_is_a_lack_of_resources(cells: BareCells, test: str, what: str) -> None:
    result = cells.run(test, limits=SMALL)

    assert (result["status"], result["class"]) == ("failed", "resources"), result
    assert result["reason"].startswith(what)
    assert sum(path.stat().st_size for path in result["out"].rglob("*")) <= SMALL["disk"]


def test_a_test_that_passes_on_a_full_disk_has_passed(cells: BareCells) -> None:
    for folder in ("/", "/out"):
        result = cells.run(SILENT.format(path=f"{folder}/big", then="return"), limits=SMALL)

        assert result["status"] == "passed", result


def test_a_folder_without_inodes(cells: BareCells) -> None:
    test = """
        import os
        def test_it(sandbox):
            os.mkdir("/out/many")
            for number in range(10_000_000):
                os.close(os.open(f"/out/many/{number}", os.O_CREAT))
    """
    result: dict[str, Any] = cells.run(test, limits=SMALL)

    assert (result["status"], result["class"]) == ("failed", "resources"), result
    assert "no space left on device" in result["reason"].lower()


def test_a_log_that_is_written_anew_for_ever_is_a_lack_of_resources(cells: BareCells) -> None:
    test = """
        import os
        def test_it():
            for _ in range(10_000):
                with open("/out/new", "wb") as file:
                    file.write(os.urandom(4 << 20))
                os.rename("/out/new", "/out/x.log")
    """
    result = cells.run(test, limits=SMALL, timeout=8)

    assert (result["status"], result["class"]) == ("failed", "resources"), result
    assert sum(path.stat().st_size for path in result["out"].rglob("*")) <= 2 * SMALL["disk"]


MOUNTS = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, data):
    assert libc.mount(source, target, kind, 0 if kind else 4096, data) == 0, os.strerror(ctypes.get_errno())
def seen():
    "Return once bk has copied logs: it looks at them several times a second."
    for _ in range(100):
        time.sleep(0.01)
"""


@pytest.mark.parametrize("end", ["", "assert False"])
def test_what_a_test_mounts_in_out_is_not_entered(cells: BareCells, end: str) -> None:
    """Neither a server of FUSE that never answers, nor a file that bk may read and the cell may not."""
    test = f"""{MOUNTS}
def test_it():
    for name in ("fuse.log", "bound.log"):
        open("/out/" + name, "w").close()
    fuse = os.open("/dev/fuse", os.O_RDWR)
    mount(b"x", b"/out/fuse.log", b"fuse", b"fd=%d,rootmode=100000,user_id=0,group_id=0" % fuse)
    mount(b"/etc/passwd", b"/out/bound.log", None, None)
    seen()
    {end}
"""
    result = cells.run(test)

    assert (result["status"], result.get("class")) == (("failed", "test") if end else ("passed", None)), result
    assert (result["out"] / "bound.log").read_bytes() == b""
