"""The proxy in front of a real registry: what it counts is what a client received."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import registries
from registries import FILES

from bkrules.mirror.proxy import MirrorProxy
from bkrules.mirror.registry import accepts
from bkrules.system.waiting import readable

REPOSITORIES = 60


@pytest.fixture
def port(binary: Path, tmp_path: Path) -> Iterator[int]:
    """Where a proxy answers for a registry with so many repositories that it sends the list of them in chunks."""
    root = tmp_path / "tree"
    root.mkdir()
    image = registries.image(tmp_path / "image", FILES)
    for number in range(REPOSITORIES):
        registries.fill(root, f"library/{'long' * 10}-{number:03}:1", image)
    path = tmp_path / "registry.sock"
    config = tmp_path / "config.json"
    document = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(root)}}}
    config.write_text(json.dumps({**document, "http": {"net": "unix", "addr": str(path)}}))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([binary, "serve", config], stdout=log, stderr=log)
    ended = os.pidfd_open(process.pid)
    while not accepts(str(path)):
        assert not readable([ended], 0.001), (tmp_path / "log").read_text()
    os.close(ended)
    proxy = MirrorProxy()
    listener = socket.create_server(("127.0.0.1", 0))
    found = listener.getsockname()[1]
    proxy.add(listener.detach(), str(path))
    yield found
    proxy.close()
    process.terminate()
    process.wait()


def test_the_count_is_what_a_client_received(port: int) -> None:
    received = []
    chunked = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:

        def ask(method: str, path: str, **headers: str) -> bytes:
            nonlocal chunked
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            chunked += answer.headers.get("Transfer-Encoding") == "chunked"
            body = answer.read()
            received.append((method, path.partition("?")[0], answer.status, len(body)))
            return body

        names = json.loads(ask("GET", f"/v2/_catalog?n={REPOSITORIES}"))["repositories"]
        for name in names[:3]:
            kind = "application/vnd.oci.image.manifest.v1+json"
            manifest = json.loads(ask("GET", f"/v2/{name}/manifests/1", Accept=kind))
            layer = manifest["layers"][0]["digest"]
            ask("HEAD", f"/v2/{name}/blobs/{layer}")
            ask("GET", f"/v2/{name}/blobs/{layer}", Range="bytes=100-199")
            ask("GET", f"/v2/{name}/blobs/{layer}")
            ask("GET", f"/v2/_catalog?n={REPOSITORIES}")
            ask("GET", f"/v2/{name}/blobs/sha256:{'0' * 64}")
            ask("GET", f"/v2/{name}/tags/list")
            ask("PUT", f"/v2/{name}/manifests/2", Expect="100-continue")

    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/_bk/requests")
        document = json.loads(connection.getresponse().read())
    assert document["uncounted"] == []
    assert [tuple(one.values()) for one in document["requests"]] == received
    assert len(names) == REPOSITORIES
    assert chunked == 4
