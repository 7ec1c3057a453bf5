from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh import in_fresh_process

from bkrules.system import files


def test_a_regular_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xff")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link") == b"a\xff"
    assert files.read_text(str(tmp_path / "link")) == "a�"


def is_an_error(path: str, expected: int, read: Callable[[str], object] = files.read_regular) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        read(path)
    assert caught.value.errno == expected
    assert os.listdir("/proc/self/fd") == before, "what was opened is closed"


def is_no_lock(path: str, expected: int) -> None:
    is_an_error(path, expected, files.open_lock)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "nowhere", "itself"])
def test_what_is_no_file_is_an_error_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "nowhere": "/no/such", "itself": "x"}[kind])
    expected = {"folder": errno.EISDIR, "nowhere": errno.ENOENT, "itself": errno.ELOOP}.get(kind, errno.ENXIO)
    in_fresh_process(is_an_error, str(path), expected)
    if kind != "nowhere":
        in_fresh_process(is_no_lock, str(path), expected)


def test_a_lock_is_made_and_found(tmp_path: Path) -> None:
    for _ in range(2):
        os.close(files.open_lock(tmp_path / "lock"))
    assert (tmp_path / "lock").is_file()
