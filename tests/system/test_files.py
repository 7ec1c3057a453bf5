from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from bkrules.system import files


def test_a_regular_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xff")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link") == b"a\xff"
    assert files.read_text(str(tmp_path / "link")) == "a�"


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
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        files.read_regular(path)
    assert caught.value.errno == expected
    if kind != "nowhere":
        with pytest.raises(OSError) as caught:
            files.open_lock(path)
        assert caught.value.errno == expected
    assert os.listdir("/proc/self/fd") == before, "what was opened is closed"


def test_a_lock_is_made_and_found(tmp_path: Path) -> None:
    for _ in range(2):
        os.close(files.open_lock(tmp_path / "lock"))
    assert (tmp_path / "lock").is_file()
