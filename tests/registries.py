"""Registries that tests start: real ones, and a proxy before them that does what busy or broken ones do."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bkrules.images import layout
from bkrules.images.copy import Copier
from bkrules.images.digests import ImageDigest
from bkrules.images.docker_auth import Credentials
from bkrules.images.layer import Entry, layer
from bkrules.images.registry_client import RegistryClient
from bkrules.images.storage import Tree, write_tree
from bkrules.model import digest
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.reference import Reference

NAME = "library/sample"
HASHED = (
    "me:$2b$04$abcdefghijklmnopqrstuuPT0cs.zGMMB9aUG3xKmxLeI//6s0m5C"  # bcrypt of "letmein", all that a registry reads
)
ME = Credentials("me", "letmein")
FILES = {"hello.txt": b"hello\n", "bulk": os.urandom(3 << 20)}
INDEX = "application/vnd.oci.image.index.v1+json"


@contextmanager
def registry(binary: Path, folder: Path, *, readonly: bool = True, **more: Any) -> Iterator[str]:
    """A registry of the storage tree in `folder`; where it answers. `more` are sections of its configuration."""
    http = {"addr": "127.0.0.1:0", **more.pop("http", {})}
    storage = {"filesystem": {"rootdirectory": str(folder)}, "maintenance": {"readonly": {"enabled": readonly}}}
    config = folder.parent / f"{folder.name}.json"
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": http, **more}))
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen([binary, "serve", config], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"listening on (127\.0\.0\.1:\d+|/\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def image(
    folder: Path, files: Mapping[str, bytes], architecture: str = "amd64", base: Path | None = None
) -> DirectoryNode:
    """An image of one layer, or of one more than its base."""
    tar = layer({path: Entry(data) for path, data in files.items()})
    layout.write_image(folder, tar, architecture=architecture, cmd=(), env=(), base=base)
    found = [path for path in folder.rglob("*") if path.is_file()]
    return DirectoryNode({str(path.relative_to(folder)): FileNode(digest.of_file(path), str(path)) for path in found})


def fill(root: Path, name: str, *images: DirectoryNode, platforms: Sequence[str] = ()) -> str:
    """Put an image into a storage tree, or an index of several with these platforms; its digest."""
    reference = Reference("x", *name.rsplit(":", 1))
    if not platforms:
        write_tree(root, {reference: images[0]})
        return tagged(root, reference)
    tree, entries = Tree(root), []
    for number, (one, platform) in enumerate(zip(images, platforms, strict=True)):
        part = Reference(reference.host, reference.repository, f"part-{number}")
        write_tree(root, {part: one})
        system, architecture, *variant = platform.split("/")
        said = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append({**tree.manifest(tagged(root, part)).descriptor, "platform": said})
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    name = ImageDigest(f"{digest.of_bytes(data)}")
    tree.put(name, len(data), lambda: [data])
    tree.add(reference, name)
    return name


def tagged(root: Path, reference: Reference) -> ImageDigest:
    """The digest that a tag has in a storage tree."""
    found = Tree(root).tagged(reference)
    assert found is not None
    return found


@dataclass
class Proxy:
    """What stands before a registry. `answer` may answer a request itself; then what it returns is true."""

    target: str = ""
    address: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Authorization of each request."""
    answer: Callable[[Forwarder], object] = lambda _request: False

    def count(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in path for _, path, _ in self.asked)


class Forwarder(BaseHTTPRequestHandler):
    """One connection through the proxy."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bool:
        """Answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def forward(self) -> tuple[int, bytes, dict[str, str]]:
        """What the registry answers."""
        connection = http.client.HTTPConnection(self.proxy.target, timeout=30)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k != "Host"}
        connection.request(self.command, self.path, sent, headers)
        answer = connection.getresponse()
        body = answer.read()
        kept = (
            "Content-Type",
            "Docker-Content-Digest",
            "Content-Range",
            "Content-Length",
            "WWW-Authenticate",
            "Location",
        )
        found = {name: value for name in kept if (value := answer.getheader(name))}
        if "Location" in found:
            found["Location"] = found["Location"].replace(self.proxy.target, self.proxy.address)
        connection.close()
        return answer.status, body, found

    def do_GET(self) -> None:
        self.proxy.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        if not self.proxy.answer(self):
            self.reply(*self.forward())

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are http.server's


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy before the registry at `target`."""
    found = Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Forwarder,), {"proxy": found}))
    found.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def copy(address: str, folder: Path, find: Callable[[str], Credentials | None] = lambda _: None, **more: str) -> str:
    """Copy the image to a storage tree; its digest."""
    tree = Tree(folder)
    with closing(RegistryClient(address, find)) as client, Copier() as copier:
        manifest = copier.image(client, NAME, more.pop("reference", "1"), tree, **more)
    tree.add(Reference("x", NAME, "1"), manifest.digest)
    return manifest.digest


def whole(folder: Path) -> set[str]:
    """The digests of the blobs of a storage tree, each of which has the right bytes."""
    found = {f"sha256:{path.parent.name}": path for path in folder.rglob("data") if path.is_file()}
    for name, path in found.items():
        assert digest.of_file(path).hash == name.removeprefix("sha256:")
    return set(found)
