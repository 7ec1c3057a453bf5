"""Machines that share a remote cache, and the results that a wrong cache may have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bkrules.cache import http_store
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.http_store import ASK_FIRST
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest, reapi
from bkrules.model.action import DirectoryNode, FileNode, Form, Node, to_message

KEY = digest.of_bytes(b"an action")
TOOL = os.urandom(ASK_FIRST + 1)
SECRET = "s3cr3t-of-the-cache"
DECLARED = {"tool": Form.FILE, "log": Form.FILE, "layout": Form.FOLDER, "empty": Form.FOLDER}


@dataclass
class Machine:
    """One machine: its own disk cache, and a remote cache that it shares with others."""

    actions: ActionCache
    remote: Remote
    warnings: list[str] = field(default_factory=list)

    def stored(self, data: bytes, *, executable: bool = False) -> FileNode:
        """A file in the disk cache."""
        name = self.actions.cas.put(data)
        return FileNode(name, self.actions.cas.path(name), executable)

    def result(self) -> ActionResult:
        """A result with files, an empty one, folders, an empty one."""
        files = {"index.json": self.stored(b"{}"), "blobs/a": self.stored(b"aa"), "blobs/b": self.stored(b"bb")}
        outputs: dict[str, Node] = {
            "tool": self.stored(TOOL, executable=True),
            "log": self.stored(b""),
            "layout": DirectoryNode(files),
            "empty": DirectoryNode({}),
        }
        return ActionResult(outputs, 1.5)

    def put(self) -> ActionResult:
        """Run, as it were, and send."""
        made = self.result()
        self.actions.put(KEY, made)
        assert self.remote.flush() == ""
        return made

    def ask(self, *, whole: bool = True) -> ActionResult | None:
        """The remote cache's answer."""
        return self.actions.ask(KEY, whole=whole, declared=DECLARED)


Make = Callable[..., Machine]


def maker(root: Path, address: str) -> Make:
    """Return a function that makes machines, each with an empty disk cache, and with that remote cache or another one."""
    count = 0

    def make(url: str = "", **options: object) -> Machine:
        nonlocal count
        count += 1
        place = root / f"machine{count}"
        warnings: list[str] = []
        cas = Cas(str(place / "cas"), FileDigests(str(place / "digests")))
        remote = Remote(RemoteOptions(url or address, **options), cas, warnings.append)  # type: ignore[arg-type]
        return Machine(ActionCache(str(place / "ac"), cas, remote), remote, warnings)

    return make


def same(found: ActionResult | None, made: ActionResult) -> bool:
    """Whether results are equal but for the places of their files."""

    def content(result: ActionResult) -> object:
        return {
            name: (node.digest, [(path, one.digest, one.executable) for path, one in sorted(node.files.items())])
            if isinstance(node, DirectoryNode)
            else (node.digest, node.executable)
            for name, node in result.outputs.items()
        }

    return found is not None and found.seconds == made.seconds and content(found) == content(made)


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def ac(**fields: object) -> bytes:
    described = {"execution_metadata": {"worker": "w"}, **fields}
    return reapi.encode("ActionResult", described)


def right(files: Sequence[str] = (), folders: Sequence[str] = ()) -> bytes:
    empty = to_message(digest.EMPTY)
    return ac(
        output_files=[{"path": path, "digest": empty} for path in files],
        output_directories=[{"path": path, "tree_digest": empty} for path in folders],
    )


def tree_bomb() -> dict[str, bytes]:
    """A few small messages that describe 2^40 files."""
    data = reapi.encode("Directory", {"files": [{"name": "f", "digest": to_message(digest.EMPTY)}]})
    children = [data]
    for _ in range(40):
        name = to_message(digest.of_bytes(data))
        data = reapi.encode(
            "Directory", {"directories": [{"name": "a", "digest": name}, {"name": "b", "digest": name}]}
        )
        children.append(data)
    return _tree(children)


def deep_tree() -> dict[str, bytes]:
    data = reapi.encode("Directory", {})
    children = [data]
    for _ in range(2000):
        data = reapi.encode("Directory", {"directories": [{"name": "a", "digest": to_message(digest.of_bytes(data))}]})
        children.append(data)
    return _tree(children)


def named_tree(name: str) -> dict[str, bytes]:
    return _tree([reapi.encode("Directory", {"files": [{"name": name, "digest": to_message(digest.EMPTY)}]})])


def _tree(children: list[bytes]) -> dict[str, bytes]:
    decoded = [reapi.decode("Directory", child) for child in children]
    data = reapi.encode("Tree", {"root": decoded[-1], "children": decoded[:-1]})
    name = digest.of_bytes(data)
    described = {"path": "layout", "tree_digest": to_message(name)}
    return {f"/ac/{KEY.hash}": ac(output_directories=[described]), f"/cas/{name.hash}": data}


WRONG_RESULTS: dict[str, Callable[[], dict[str, bytes]]] = {
    "empty": lambda: {f"/ac/{KEY.hash}": b""},
    "a page": lambda: {f"/ac/{KEY.hash}": b"<html><body>log in first</body></html>"},
    "text": lambda: {f"/ac/{KEY.hash}": b"\x12\x03\x0a\x01\xff"},
    "JSON": lambda: {f"/ac/{KEY.hash}": b'{"outputFiles": []}'},
    "a failure": lambda: {f"/ac/{KEY.hash}": ac(exit_code=3)},
    "no digest": lambda: {f"/ac/{KEY.hash}": ac(output_files=[{"path": "a"}])},
    "a digest of dots": lambda: {
        f"/ac/{KEY.hash}": ac(output_files=[{"path": "a", "digest": {"hash": "../" * 21 + "x", "size_bytes": 1}}])
    },
    "a size below 0": lambda: {
        f"/ac/{KEY.hash}": ac(output_files=[{"path": "a", "digest": {"hash": "0" * 64, "size_bytes": -1}}])
    },
    "a huge Tree": lambda: {
        f"/ac/{KEY.hash}": ac(
            output_directories=[{"path": "a", "tree_digest": {"hash": "0" * 64, "size_bytes": 1 << 40}}]
        )
    },
    "a Tree that is missing": lambda: {
        f"/ac/{KEY.hash}": ac(output_directories=[{"path": "a", "tree_digest": {"hash": "0" * 64, "size_bytes": 9}}])
    },
    "a huge result": lambda: {f"/ac/{KEY.hash}": bytes(http_store.MOST_RESULT + 1)},
    "a deep Tree": deep_tree,
    "a Tree of 2^40 files": tree_bomb,
    "a name of dots": lambda: named_tree(".."),
    "a name of 300 bytes": lambda: named_tree("x" * 300),
    "a folder where a file is declared": lambda: {f"/ac/{KEY.hash}": right(folders=["tool", "layout"])},
    "a file where a folder is declared": lambda: {f"/ac/{KEY.hash}": right(files=["tool", "layout"])},
    "a link": lambda: {f"/ac/{KEY.hash}": ac(output_symlinks=[{"path": "tool", "target": "/etc/passwd"}])},
    "an absolute path": lambda: {f"/ac/{KEY.hash}": right(files=["/tool"])},
    "a path of dots": lambda: {f"/ac/{KEY.hash}": right(files=["../tool"])},
    "a name with a slash": lambda: named_tree("../a"),
    "a name with a NUL": lambda: named_tree("a\0b"),
    "no name": lambda: named_tree(""),
}
