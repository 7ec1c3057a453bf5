"""Files from the web, from a real server on this machine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from peers import peer, reply
from spaces import Space

from bkrules.runners.fetch_file import _fetch

DATA = b"#!/bin/sh\necho from the web > $1\n"
PIN = hashlib.sha256(DATA).hexdigest()
HEAD = 'from bkrules import genrule, host_binary, http_file, workspace\nworkspace(name = "test")\n'


class Web(ThreadingHTTPServer):
    """Serves DATA at `/file`, at `/busy` the second time, and other bytes at `/wrong`."""

    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Web

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        found = {"/file": DATA, "/wrong": b"other bytes", "/busy": DATA}.get(self.path)
        status = 404 if found is None else 503 if self.server.asked == ["/busy"] else 200
        body = found if found and status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def rule(web: Web, *paths: str, more: str = "") -> str:
    urls = [f"http://127.0.0.1:{web.server_port}{path}" if path.startswith("/") else path for path in paths]
    return f'{HEAD}http_file(name = "file", urls = {urls}, sha256 = "{PIN}", {more})\n'


@pytest.mark.parametrize("paths", [["/file"], ["/nothing", "/file"], ["/wrong", "/file"], ["/busy"]], ids=str)
def test_a_file_is_fetched_once(space: Space, web: Web, paths: list[str]) -> None:
    space.write("WORKSPACE.py", rule(web, *paths, more='downloaded_file_path = "a.sh"'))

    first, second = space.bk("build", "//:file"), space.bk("build", "//:file")

    assert first.returncode == 0, first.stdout + first.stderr
    assert (space.root / "bk-out/file/a.sh").read_bytes() == DATA
    assert "1 cached" in second.stdout
    assert web.asked == (["/busy"] * 2 if paths == ["/busy"] else paths)


def test_a_file_of_this_machine(space: Space, web: Web, tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(DATA)
    place = (tmp_path / "a file").as_uri()
    space.write("WORKSPACE.py", rule(web, place, more='downloaded_file_path = "f"'))
    assert space.bk("build", "//:file").returncode == 0
    assert (space.root / "bk-out/file/f").read_bytes() == DATA


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/fd", "{fifo}"])
def test_what_is_no_file_of_this_machine_is_not_read(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"regular file|Is a directory"):
        _fetch(f"file://{path.replace('{fifo}', str(tmp_path / 'fifo'))}", tmp_path / "found")


def test_what_no_place_has_is_said_of_each(space: Space, web: Web) -> None:
    space.write("WORKSPACE.py", rule(web, "/nothing", "/wrong", "http://127.0.0.1:1/file"))

    done = space.bk("build", "//:file")

    assert done.returncode == 1
    assert f"//:file: no URL has the file with sha256 {PIN}" in done.stdout
    assert "/nothing: 404 " in done.stdout
    assert f"/wrong: it has another sha256: {hashlib.sha256(b'other bytes').hexdigest()}" in done.stdout
    assert "127.0.0.1:1/file: " in done.stdout


def test_an_executable_is_a_tool(space: Space, web: Web) -> None:
    text = rule(web, "/file", more="executable = True")
    text += 'host_binary(name = "sh")\ngenrule(name = "use", outs = ["out"], tools = [":file", ":sh"], '
    text += 'cmd = ["$(location :sh)", "$(location :file)", "$@"])\n'
    space.write("WORKSPACE.py", text)
    done = space.bk("build", "//:use")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (space.root / "bk-out/use/out").read_text() == "from the web\n"


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (f'urls = [], sha256 = "{PIN}"', "'urls' names no place"),
        (f'urls = ["ftp://a/b"], sha256 = "{PIN}"', "'ftp://a/b' is not a URL"),
        ('urls = ["https://a/b"], sha256 = "12"', "'sha256' must be 64 hexadecimal digits, but was '12'"),
        (f'urls = ["https://a/b?c"], sha256 = "{PIN}"', "'b?c' cannot be the file's name"),
    ],
)
def test_a_rule_that_makes_no_sense(space: Space, attributes: str, said: str) -> None:
    space.write("WORKSPACE.py", f'{HEAD}http_file(name = "file", {attributes})\n')
    done = space.bk("build", "//:file")
    assert done.returncode == 1
    assert said in done.stderr
    assert "WORKSPACE.py:3" in done.stderr


def test_netrc_is_read_for_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the one of a URL nor for one that it sends on to."""
    (tmp_path / "netrc").write_text("default login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with peer(lambda connection, _head: connection.sendall(reply(200, b"a"))) as other:
        place = f"http://127.0.0.1:{other.port}/"
        with peer(lambda connection, _head: connection.sendall(reply(302, Location=place))) as first:
            _fetch(first.url, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"a"
        assert first.header("Authorization") == other.header("Authorization") == []
