"""What actions and cells leave is read beneath a folder, on a real file system."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.model import digest
from bkrules.sandbox import outputs
from bkrules.sandbox.outputs import BadOutput, Room, TooLarge

SECRET = "a file of the host"
DEEP = 3000


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "host"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    return path


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    return Cas(str(tmp_path / "cas"), FileDigests(""))


def store(out: Path, name: str, cas: Cas, most: int = 0) -> bytes:
    with outputs.opened(out) as folder:
        found, _ = outputs.store(folder, name, cas, Room(most))
    data = cas.read(found)
    assert data is not None
    return data


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


def folder(path: Path) -> None:
    path.mkdir()


SPECIAL: list[tuple[Callable[[Path], None], str]] = [
    (fifo, "out is a FIFO"),
    (listener, "out is a socket"),
    (device, "out is a device"),
    (folder, "out is a folder, not a file"),
    (lambda path: path.symlink_to("/etc/passwd"), "out is a symbolic link"),
    (lambda path: path.symlink_to("/proc/self/fd/0"), "out is a symbolic link"),
    (lambda path: path.symlink_to("out"), "out is a symbolic link"),
    (lambda path: path.symlink_to("nowhere"), "out is a symbolic link"),
]


@pytest.mark.parametrize(("make", "said"), SPECIAL)
def test_what_is_no_file_is_refused_by_name(out: Path, cas: Cas, make: Callable[[Path], None], said: str) -> None:
    """A FIFO is never opened, or this would hang; and the zeros of a device have no end."""
    make(out / "out")

    with pytest.raises(BadOutput, match=said):
        store(out, "out", cas)
    assert not os.path.exists(cas.root)


@pytest.mark.parametrize(
    ("link", "target", "name", "said"),
    [
        ("a", "host", "a/secret", "a/secret is behind a, a symbolic link"),
        ("a/b", "host", "a/b/secret", "a/b/secret is behind a/b, a symbolic link"),
        ("a", "out", "a/file", "a/file is behind a, a symbolic link"),
        ("x", "host", "../host/secret", "../host/secret is not below its folder"),
    ],
)
def test_a_link_above_an_output_is_not_followed(
    out: Path, secret: Path, cas: Cas, link: str, target: str, name: str, said: str
) -> None:
    (out / "file").write_text("inside")
    (out / link).parent.mkdir(exist_ok=True)
    (out / link).symlink_to(secret if target == "host" else out)

    with pytest.raises(BadOutput, match=said):
        store(out, name, cas)


@pytest.mark.parametrize("data", [b"", b"small", b"x" * (digest.CHUNK + 1), b"y" * (3 * digest.CHUNK)])
def test_files_of_any_size_mode_and_number_of_names(out: Path, cas: Cas, data: bytes) -> None:
    (out / "one").write_bytes(data)
    (out / "one").chmod(0)
    os.link(out / "one", out / "two")

    assert [store(out, name, cas) for name in ("one", "two", "one")] == [data] * 3
    stored = Path(cas.path(digest.of_bytes(data)))
    assert stored.stat().st_ino != (out / "one").stat().st_ino
    assert stored.stat().st_nlink == 1


def test_a_file_with_holes_counts_as_what_it_would_be(out: Path, cas: Cas) -> None:
    with (out / "holes").open("wb") as file:
        file.truncate(1 << 42)

    with pytest.raises(TooLarge, match="holes has 4194304 MiB"):
        store(out, "holes", cas, most=1 << 30)


def test_outputs_have_room_together(out: Path, cas: Cas) -> None:
    room = Room(10)
    for name in ("a", "b", "c"):
        (out / name).write_bytes(b"1234")
    with outputs.opened(out) as top:
        for name in ("a", "b"):
            outputs.store(top, name, cas, room)
        with pytest.raises(TooLarge, match="c has"):
            outputs.store(top, "c", cas, room)


def test_a_file_that_grows_while_it_is_read_is_refused(out: Path, cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it grows between the two times that it is read: once for its name, and once for the copy."""
    path = out / "log"
    path.write_bytes(b"x" * (digest.CHUNK + 1))
    first = digest.of_chunks

    def then_grow(chunks: object) -> digest.Digest:
        found = first(chunks)  # type: ignore[arg-type]
        with path.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(digest, "of_chunks", then_grow)

    with pytest.raises(BadOutput, match="log changed while bk read it"):
        store(out, "log", cas)
    assert [name for _, _, names in os.walk(cas.root) for name in names] == []


def test_a_file_that_is_replaced_while_it_is_read_is_stored_as_it_was(out: Path, secret: Path, cas: Cas) -> None:
    (out / "log").write_text("before")
    with outputs.opened(out) as top, outputs.file(top, "log") as descriptor:
        (out / "log").unlink()
        (out / "log").symlink_to(secret / "secret")

        assert cas.read(cas.put_open(descriptor)) == b"before"


def test_a_folder_is_its_files(out: Path) -> None:
    (out / "all/a/b").mkdir(parents=True)
    (out / "all/empty").mkdir()
    names = ("a/b/c", "a/new\nline", "a/b/" + "n" * 255)
    for name in names:
        (out / "all" / name).write_text(name)

    with outputs.opened(out) as top:
        assert sorted(outputs.files(top, "all")) == sorted(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"bad\xff", r"all/bad\\xff has a name that is not UTF-8"),
        (b"/".join([b"d" * 200] * 6), "has a path of more than 1024 bytes"),
    ],
)
def test_a_folder_with_a_name_that_cannot_be_kept(out: Path, name: bytes, said: str) -> None:
    path = Path(os.fsdecode(os.fsencode(out / "all") + b"/" + name))
    path.parent.mkdir(parents=True)
    path.write_text("x")

    with outputs.opened(out) as top, pytest.raises(BadOutput, match=said):
        list(outputs.files(top, "all"))


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_a_folder_is_refused(out: Path, secret: Path, *, inside: bool) -> None:
    (out / "all/a").mkdir(parents=True)
    (out / "all/a/file").write_text("x")
    (out / "all/link").symlink_to("a/file" if inside else secret)

    with outputs.opened(out) as top, pytest.raises(BadOutput, match="all/link is a symbolic link"):
        list(outputs.files(top, "all"))


def test_a_file_where_a_folder_was_declared(out: Path) -> None:
    (out / "all").write_text("x")

    with outputs.opened(out) as top, pytest.raises(BadOutput, match="all is a file, not a folder"):
        list(outputs.files(top, "all"))


def deep(path: Path, levels: int) -> None:
    """Make folders in folders, deeper than any path may be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=descriptor))
    os.close(descriptor)


def test_cleaning_leaves_files_and_folders_alone(out: Path, secret: Path) -> None:
    (out / "a").mkdir()
    for name in ("test.log", "a/b"):
        (out / name).write_text("kept")
    (out / "worker.log").symlink_to(secret / "secret")
    (out / "a/all").symlink_to(secret)
    (out / "large").write_bytes(b"x" * 11)
    os.mkfifo(out / "fifo")
    listener(out / "a/socket")
    deep(out / "a", DEEP)

    found = outputs.clean(out, 10)

    assert sorted(found[:5] if len(found) > 6 else found) == sorted(found)
    assert {
        "worker.log is a symbolic link",
        "a/all is a symbolic link",
        "fifo is a FIFO",
        "a/socket is a socket",
    } < set(found)
    assert "large has 0 MiB" in found
    assert any("has a path of more than 1024 bytes" in one for one in found)
    assert sorted(path.name for path in out.iterdir()) == ["a", "test.log"]
    assert (out / "a/b").read_text() == "kept"
    assert (secret / "secret").read_text() == SECRET
    assert outputs.clean(out, 10) == []


@pytest.mark.parametrize("what", ["link", "folder", "fifo", "file", "nothing"])
def test_what_bk_writes_goes_to_no_other_file(out: Path, secret: Path, what: str) -> None:
    if what == "link":
        (out / "test.log").symlink_to(secret / "secret")
    elif what == "folder":
        (out / "test.log/deep").mkdir(parents=True)
    elif what == "fifo":
        os.mkfifo(out / "test.log")
    elif what == "file":
        os.link(secret / "secret", out / "test.log")

    outputs.replace(out, "test.log", b"of bk")

    assert (out / "test.log").read_text() == "of bk"
    assert (secret / "secret").read_text() == SECRET


def test_a_tree_of_any_depth_is_removed_and_nothing_beyond_it(out: Path, secret: Path) -> None:
    deep(out, DEEP)
    (out / "link").symlink_to(secret)
    (out / "a/b").mkdir(parents=True)
    (out / "a/b/locked").mkdir(mode=0)

    outputs.remove_tree(out)

    assert not out.exists()
    assert (secret / "secret").read_text() == SECRET
    outputs.remove_tree(out)  # nothing is there, and nothing happens


def test_the_end_of_a_log(out: Path, secret: Path) -> None:
    (out / "log").write_bytes(b"0123456789")
    (out / "link").symlink_to(secret / "secret")

    assert outputs.tail(out / "log", 4) == "6789"
    assert outputs.tail(out / "link") == outputs.tail(out / "none") == ""
