"""The action cache: REAPI ActionResult messages by action digest, in `ac/ab/abcd...`.

A result is a hit only when every blob that it names is in the CAS. Whatever is wrong with an entry is a miss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bkrules import digest, reapi
from bkrules.action import DirectoryNode, FileNode, Node, from_message, merkle, to_message
from bkrules.cache import atomic, maintenance
from bkrules.cache.cas import Cas
from bkrules.digest import Digest
from bkrules.observed import note


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action made, and the seconds it took when it ran."""

    outputs: Mapping[str, Node]
    seconds: float


class ActionCache:
    """Results below `root`, whose blobs are in `cas`."""

    def __init__(self, root: str, cas: Cas) -> None:
        self.root = root
        self.cas = cas

    def path(self, key: Digest) -> str:
        """Where the entry of an action is, or would be."""
        return f"{self.root}/{key.hash[:2]}/{key.hash}"

    def get(self, key: Digest) -> ActionResult | None:
        """The result of an action, or None."""
        try:
            with open(note(self.path(key)), "rb") as file:
                message = reapi.decode("ActionResult", file.read())
            found = self._result(message)
            if found is not None:
                maintenance.touch(self.path(key))
            return found
        except (OSError, ValueError):
            return None

    def put(self, key: Digest, result: ActionResult) -> None:
        """Store a result whose blobs are in the CAS already."""
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
        atomic.write(self.path(key), reapi.encode("ActionResult", message))

    def drop(self, key: Digest) -> None:
        """Forget an entry, for instance because a blob of it turned out to be damaged."""
        try:
            os.unlink(self.path(key))
        except FileNotFoundError:
            return

    def _result(self, message: reapi.Message) -> ActionResult | None:
        outputs: dict[str, Node] = {}
        for item in message["output_files"]:
            outputs[item["path"]] = self._file(item)
        for item in message["output_directories"]:
            data = self.cas.read(from_message(item["tree_digest"]))
            if data is None:
                return None
            outputs[item["path"]] = DirectoryNode(self._tree(reapi.decode("Tree", data)))
        for node in outputs.values():
            parts = [node] if isinstance(node, FileNode) else node.files.values()
            if not all(self.cas.has(part.digest) for part in parts if note(part.path)):
                return None
        metadata = message["execution_metadata"]
        if metadata is None:
            return None  # it is written last: the entry was cut short
        spent = metadata.get("virtual_execution_duration") or {"seconds": 0, "nanos": 0}
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

        def walk(directory: reapi.Message, prefix: str) -> None:
            for item in directory["files"]:
                found[prefix + item["name"]] = self._file(item)
            for item in directory["directories"]:
                name = from_message(item["digest"])
                if name not in children:
                    raise ValueError(f"the tree lacks {prefix}{item['name']}")
                walk(children[name], f"{prefix}{item['name']}/")

        walk(tree["root"], "")
        return found
