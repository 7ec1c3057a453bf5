"""The action cache: REAPI ActionResult messages by action digest, in `ac/ab/abcd...`.

A result of the disk cache is a hit only when every blob that it names is in the CAS. Of a remote cache it is one by its names
alone: the bytes come when something needs them. Whatever is wrong with an entry is a miss.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bkrules import digest, reapi
from bkrules.action import DirectoryNode, FileNode, Node, from_message, merkle, to_message
from bkrules.cache import atomic, maintenance
from bkrules.cache.cas import Cas
from bkrules.digest import Digest
from bkrules.observed import note

if TYPE_CHECKING:
    from bkrules.cache.remote import Remote

MOST_TREE = 64 << 20  # bytes of a Tree that is taken from a server
DEEPEST = 128  # folders in each other
MOST_NODES = 100_000  # of a folder; a few messages can describe more than fit anywhere


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action made, and the seconds it took when it ran."""

    outputs: Mapping[str, Node]
    seconds: float

    def files(self) -> Iterator[FileNode]:
        """Every file of it."""
        for node in self.outputs.values():
            yield from _files(node)


def _files(node: Node) -> Iterable[FileNode]:
    return [node] if isinstance(node, FileNode) else node.files.values()


class ActionCache:
    """Results below `root`, whose blobs are in `cas`, and those of the `remote` cache."""

    def __init__(self, root: str, cas: Cas, remote: Remote | None = None) -> None:
        self.root = root
        self.cas = cas
        self.remote = remote

    def path(self, key: Digest) -> str:
        """Where the entry of an action is, or would be."""
        return f"{self.root}/{key.hash[:2]}/{key.hash}"

    def get(self, key: Digest) -> ActionResult | None:
        """The result of an action from the disk, or None."""
        try:
            with open(note(self.path(key)), "rb") as file:
                found = self._result(reapi.decode("ActionResult", file.read()))
            maintenance.touch(self.path(key))
        except (OSError, ValueError):
            return None
        return found if all(self.cas.has(file.digest) for file in found.files() if note(file.path)) else None

    def ask(self, key: Digest, *, whole: bool) -> ActionResult | None:
        """The result of an action from the remote cache, or None; with `whole`, its bytes are on the disk then."""
        assert self.remote is not None
        data = self.remote.result(key)
        if data is None:
            return None
        try:
            message = reapi.decode("ActionResult", data)
            trees = [from_message(item["tree_digest"]) for item in message["output_directories"]]
            if any(name.size > MOST_TREE for name in trees):
                raise ValueError("a folder of it is too large")
            if self.remote.fetch(trees):
                return None
            found = self._result(message)
        except ValueError as error:
            self.disbelieve(key, f"it is no action result of bk: {error}")
            return None
        return None if whole and not self.bring(key, found) else found

    def disbelieve(self, key: Digest, why: str) -> None:
        """Note that the remote cache's result of an action is no good. Raises MachineLacks when that cache is required."""
        assert self.remote is not None
        self.remote.lied(f"GET ac/{key.hash}: {why}")

    def fetch(self, nodes: Iterable[Node]) -> set[Digest]:
        """Bring the bytes of files and folders from the remote cache; the digests of those that could not be had."""
        assert self.remote is not None
        return self.remote.fetch(file.digest for node in nodes for file in _files(node))

    def bring(self, key: Digest, found: ActionResult) -> bool:
        """Bring the bytes of a result from the remote cache, and keep it; whether they could all be had."""
        assert self.remote is not None
        if self.remote.fetch(file.digest for file in found.files()):
            return False
        self._write(key, found)
        return True

    def put(self, key: Digest, result: ActionResult) -> None:
        """Store a result whose blobs are in the CAS already, and send it to the remote cache."""
        data, trees = self._write(key, result)
        if self.remote is not None:
            self.remote.upload(key, data, [*trees, *(file.digest for file in result.files())])

    def _write(self, key: Digest, result: ActionResult) -> tuple[bytes, list[Digest]]:
        """Write an entry; its bytes, and the digests of the Trees that it names."""
        files, directories = [], []
        for path, node in sorted(result.outputs.items()):
            if isinstance(node, FileNode):
                files.append({"path": path, "digest": to_message(node.digest), "is_executable": node.executable})
            else:
                directories.append({"path": path, **self._put_tree(node)})
        whole, nanos = divmod(int(result.seconds * 1e9), 10**9)
        message = {
            "output_files": files,
            "output_directories": directories,
            "execution_metadata": {"virtual_execution_duration": {"seconds": whole, "nanos": nanos}},
        }
        data = reapi.encode("ActionResult", message)
        atomic.write(self.path(key), data)
        return data, [from_message(item["tree_digest"]) for item in directories]

    def drop(self, key: Digest) -> None:
        """Forget a result on the disk, if there is one. The protocol of a remote cache knows no such request."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(key))

    def _result(self, message: reapi.Message) -> ActionResult:
        """What a message means, whose Trees are in the CAS. Raises ValueError."""
        if message["exit_code"] or not message["execution_metadata"]:
            raise ValueError("it is of a failure, or cut short")  # bk keeps no failures, and writes the metadata last
        outputs: dict[str, Node] = {}
        for item in message["output_files"]:
            outputs[item["path"]] = self._file(item)
        for item in message["output_directories"]:
            data = self.cas.read(from_message(item["tree_digest"]))
            if data is None:
                raise ValueError("a folder of it is missing")
            outputs[item["path"]] = DirectoryNode(self._tree(reapi.decode("Tree", data)))
        spent = message["execution_metadata"].get("virtual_execution_duration") or {"seconds": 0, "nanos": 0}
        return ActionResult(outputs, spent["seconds"] + spent["nanos"] / 1e9)

    def _file(self, item: reapi.Message) -> FileNode:
        name = from_message(item["digest"])
        return FileNode(name, self.cas.path(name), item["is_executable"])

    def _put_tree(self, node: DirectoryNode) -> reapi.Message:
        root, blobs = merkle(node.files)
        children = [reapi.decode("Directory", data) for name, data in sorted(blobs.items()) if name != root]
        tree = reapi.encode("Tree", {"root": reapi.decode("Directory", blobs[root]), "children": children})
        return {"tree_digest": to_message(self.cas.put(tree)), "root_directory_digest": to_message(root)}

    def _tree(self, tree: reapi.Message) -> dict[str, FileNode]:
        children = {}
        for child in tree["children"]:
            children[digest.of_bytes(reapi.encode("Directory", child))] = child
        found: dict[str, FileNode] = {}

        nodes = 0

        def walk(directory: reapi.Message, prefix: str, depth: int) -> None:
            nonlocal nodes
            names = [item["name"] for item in (*directory["files"], *directory["directories"])]
            nodes += len(names)
            if depth > DEEPEST or nodes > MOST_NODES:
                raise ValueError("the tree is too large")
            if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
                raise ValueError("the tree has a name that leads elsewhere")
            for item in directory["files"]:
                found[prefix + item["name"]] = self._file(item)
            for item in directory["directories"]:
                name = from_message(item["digest"])
                if name not in children:
                    raise ValueError(f"the tree lacks {prefix}{item['name']}")
                walk(children[name], f"{prefix}{item['name']}/", depth + 1)

        if tree["root"] is None:
            raise ValueError("the tree has no root")
        walk(tree["root"], "", 0)
        return found
