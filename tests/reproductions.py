"""Reproductions that a test makes or forges, without a cell."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bkrules.analysis.runs import ENVIRONMENT
from bkrules.cache.results import read_tree, write_tree
from bkrules.model import digest
from bkrules.model.action import Action, DirectoryNode, FileNode, merkle, messages_of
from bkrules.model.digest import Digest
from bkrules.model.label import Label
from bkrules.model.parameters import CellLimits, ExtraWorker, TestCell
from bkrules.model.wire import text_of
from bkrules.repro.archive import BLOBS, MANIFEST
from bkrules.repro.manifest import Blob, blob

IMAGE = "docker.io/library/busybox:latest"
TEST = "t/test_it.py"
PARAMETERS = TestCell(
    plugin="oci",
    settings={},
    mirror=(IMAGE,),
    plugins=(),
    unsupported=(),
    limits=CellLimits(1 << 30, 100, 1 << 30),
    worker="oci",
    axes={},
    isolation="cell",
    module=TEST,
    test="test_it",
)


@dataclass
class Made:
    """The parts of a reproduction, for a test to change before it writes them."""

    parameters: TestCell = PARAMETERS
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))
    mnemonic: str = "TestCell"
    files: dict[str, bytes] = field(
        default_factory=lambda: {
            f"src/{TEST}": b"def test_it(): assert False\n",
            "tools/registry": b"the registry",
            "host/python": b"an interpreter",
            "mirror/docker.io/library/busybox/latest/index.json": b"{}",
        }
    )
    manifest: dict[str, Any] = field(default_factory=dict)

    def blobs(self) -> tuple[bytes, dict[str, bytes]]:
        """Return the manifest and the blobs, consistent with each other."""
        nodes = {
            name: FileNode(digest.of_bytes(data), "", name.startswith("tools/")) for name, data in self.files.items()
        }
        action = Action(
            id="",
            label=Label("p", "m"),
            mnemonic=self.mnemonic,
            arguments=(text_of(self.parameters),),
            inputs=(),
            outputs=("test.log",),
            environment=tuple(self.environment.items()),
            timeout=60,
        )
        command, message = messages_of(action, merkle(nodes)[0])
        tree = write_tree(DirectoryNode(nodes))[0]
        held = [command, message, tree, *(data for name, data in self.files.items() if not name.startswith("host/"))]
        document = {
            "schema": 1,
            "bk": "0.1.0",
            "matrix": "//p:m",
            "test": "test_it",
            "worker": "oci",
            "axes": [],
            "plugin": "bk-worker-oci 0.1.0",
            "action": blob(digest.of_bytes(message)).to(),
            "tree": blob(digest.of_bytes(tree)).to(),
            "result": {"status": "failed", "class": "test"},
            **self.manifest,
        }
        return json.dumps(document).encode(), {hashlib.sha256(data).hexdigest(): data for data in held}

    def write(self, path: Path) -> Path:
        """Write the file."""
        manifest, blobs = self.blobs()
        return pack(path, {MANIFEST: manifest, **{BLOBS + name: data for name, data in blobs.items()}})


def made(**changes: Any) -> Made:
    """Return a reproduction with changed parameters of its cell."""
    return Made(replace(PARAMETERS, **changes))


def extra_worker(name: str) -> ExtraWorker:
    """Return an extra worker of that id."""
    return ExtraWorker(id=name, label="//p:w", plugin="oci", settings={}, unsupported=())


def pack(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """Write an archive with these members: files, or headers such as of links."""
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, member in members.items():
            header = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(member, tarfile.TarInfo) else member
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def unpack(path: Path) -> dict[str, bytes]:
    """Return the members of an archive that bk wrote."""
    with tarfile.open(path) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}


def forge(path: Path, to: Path, change: Callable[[dict[str, bytes], dict[str, FileNode]], None]) -> Path:
    """Write a changed copy of a reproduction that is consistent again: `change` gets the blobs by their hashes, and the inputs."""
    members = unpack(path)
    manifest = json.loads(members[MANIFEST])
    blobs = {name.removeprefix(BLOBS): data for name, data in members.items() if name != MANIFEST}
    files = read_tree(blobs[manifest["tree"]["hash"]], lambda _name: "")
    root = merkle(files)[0]
    change(blobs, files)
    message = blobs[manifest["action"]["hash"]].replace(root.hash.encode(), merkle(files)[0].hash.encode())
    tree = write_tree(DirectoryNode(files))[0]
    for name, data in (("action", message), ("tree", tree)):
        made_blob = digest.of_bytes(data)
        blobs[made_blob.hash] = data
        manifest[name] = Blob(made_blob.hash, made_blob.size).to()
    return pack(to, {MANIFEST: json.dumps(manifest).encode(), **{BLOBS + name: data for name, data in blobs.items()}})


def put(blobs: dict[str, bytes], data: bytes) -> Digest:
    """Add a blob."""
    name = digest.of_bytes(data)
    blobs[name.hash] = data
    return name
