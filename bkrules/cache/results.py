"""Parse the bytes of an action result, which may come from anybody who can write to the disk cache or a remote one.

No part of an entry is used before the whole is checked: its outputs are those that the action declares, each a file or
a folder as declared; a Tree names every file once, in order, by valid names. Anything else makes the entry a miss.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from bkrules.model import digest, reapi
from bkrules.model.action import DirectoryNode, FileNode, Form, Node, from_message, merkle, to_message
from bkrules.model.digest import Digest
from bkrules.system.files import open_regular

MOST_RESULT = 4 << 20
"""The limit in bytes of an action result."""
MOST_TREE = 64 << 20
"""The limit in bytes of a Tree."""
DEEPEST = 128
"""The limit of nested folders."""
MOST_NODES = 100_000
"""The limit of files and folders in an output; a few messages can describe more than fit anywhere."""
MOST_MESSAGES = 8 * MOST_NODES
"""The limit of messages and texts in an entry or a Tree: four for a file, and some for its folder."""
LONGEST_NAME = 255
"""The limit in bytes of a name, as on Linux."""
LONGEST_PATH = 1024
"""The limit in bytes of a path below an output."""
_OUTPUT_MESSAGES = 8  # messages and texts about one output, and no fewer about the rest of an entry
_MOST_SECONDS = 366 * 86_400
_NANOS = 10**9
_LARGE_TREE = 256 << 10  # bytes
_LARGE = threading.Lock()
"""Held while a large Tree is parsed, which takes up to a few hundred MiB: one at a time, whatever a cache sends."""
_LINKS = ("output_file_symlinks", "output_directory_symlinks", "output_symlinks")

Declared = Mapping[str, Form]
"""The outputs of an action by their paths, each with its form."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The outputs of an action, and the seconds it took when it ran.

    In the encoded result, the paths of the outputs begin with `above`, the folder in which a command makes them.
    """

    outputs: Mapping[str, Node]
    seconds: float
    above: str = ""

    def files(self) -> Iterator[FileNode]:
        """Return all files of the result."""
        for node in self.outputs.values():
            yield from files_of(node)


def files_of(node: Node) -> Iterable[FileNode]:
    """Return the files of an output."""
    return [node] if isinstance(node, FileNode) else node.files.values()


def read_entry(path: str) -> bytes:
    """Return the bytes of an entry on the disk, at most one more than `read` accepts. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(MOST_RESULT + 1)


class Entry:
    """A parsed action result. Raises ValueError for malformed bytes, or when the outputs are not those declared.

    `declared` is None where the action is not known. The paths of `declared` are below `above`, as in `ActionResult`.
    """

    def __init__(self, data: bytes, declared: Declared | None = None, above: str = "") -> None:
        if len(data) > MOST_RESULT:
            raise ValueError(f"it has more than {MOST_RESULT} bytes")
        most = MOST_MESSAGES if declared is None else _OUTPUT_MESSAGES * (len(declared) + _OUTPUT_MESSAGES)
        message = reapi.decode("ActionResult", data, most)
        if message["exit_code"] or not message["execution_metadata"]:
            raise ValueError(
                "it is the result of a failure, or truncated"
            )  # bk keeps no failures, and writes the metadata last
        if any(message[field] for field in _LINKS):
            raise ValueError("an output of it is a symbolic link")
        self._files = {item["path"]: item for item in message["output_files"]}
        self._folders = {item["path"]: from_message(item["tree_digest"]) for item in message["output_directories"]}
        paths = [*self._files, *self._folders]
        if len(set(paths)) != len(message["output_files"]) + len(message["output_directories"]):
            raise ValueError("it has an output twice")
        for path in paths:
            _check_path(path)
        self._above = above
        if declared is not None:
            self._check({above + path: form for path, form in declared.items()})
        if any(name.size > MOST_TREE for name in self._folders.values()):
            raise ValueError("a folder of it is too large")
        self._seconds = _seconds(message["execution_metadata"].get("virtual_execution_duration"))

    def _check(self, declared: Declared) -> None:
        outputs = {**dict.fromkeys(self._files, Form.FILE), **dict.fromkeys(self._folders, Form.FOLDER)}
        for path in sorted(outputs.keys() | declared.keys()):
            if path not in declared:
                raise ValueError(f"it has an output that the action does not declare: {path!r}"[:300])
            if path not in outputs:
                if declared[path] == Form.OPTIONAL:
                    continue
                raise ValueError(f"it lacks the output {path}")
            if (outputs[path] == Form.FILE) != (declared[path] == Form.FILE):
                raise ValueError(f"its output {path} is {outputs[path]}, but was declared as {declared[path]}")

    @property
    def trees(self) -> list[Digest]:
        """The digests of the Trees of its folders."""
        return list(self._folders.values())

    def result(self, read: Callable[[Digest], bytes | None], place: Callable[[Digest], str]) -> ActionResult:
        """Return the result. `read` returns the bytes of a Tree, `place` the path of a blob. Raises ValueError."""
        outputs: dict[str, Node] = {path: _file(item, place) for path, item in self._files.items()}
        for path, name in self._folders.items():
            data = read(name)
            if data is None:
                raise ValueError("a folder of it is missing")
            outputs[path] = DirectoryNode(read_tree(data, place))
        shown = {path.removeprefix(self._above): node for path, node in outputs.items()}
        return ActionResult(shown, self._seconds, self._above)


def write_tree(node: DirectoryNode) -> tuple[bytes, Digest]:
    """Return the Tree of a folder, and the digest of its root."""
    root, blobs = merkle(node.files)
    children = [reapi.decode("Directory", data) for name, data in sorted(blobs.items()) if name != root]
    return reapi.encode("Tree", {"root": reapi.decode("Directory", blobs[root]), "children": children}), root


def write_result(result: ActionResult, put: Callable[[bytes], Digest]) -> tuple[bytes, list[Digest]]:
    """Return an action result's bytes, and the digests of the Trees that `put` stores."""
    files, directories, trees = [], [], []
    for name, node in sorted(result.outputs.items()):
        path = result.above + name
        if isinstance(node, FileNode):
            files.append({"path": path, "digest": to_message(node.digest), "is_executable": node.executable})
            continue
        data, root = write_tree(node)
        trees.append(put(data))
        directories.append(
            {"path": path, "tree_digest": to_message(trees[-1]), "root_directory_digest": to_message(root)}
        )
    whole, nanos = divmod(int(result.seconds * _NANOS), _NANOS)
    message = {
        "output_files": files,
        "output_directories": directories,
        "execution_metadata": {"virtual_execution_duration": {"seconds": whole, "nanos": nanos}},
    }
    return reapi.encode("ActionResult", message), trees


def _seconds(duration: reapi.Message | None) -> float:
    if duration is None:
        return 0.0
    seconds, nanos = duration["seconds"], duration["nanos"]
    if not (0 <= seconds <= _MOST_SECONDS and 0 <= nanos < _NANOS):
        raise ValueError("its time is invalid")
    return float(seconds + nanos / _NANOS)


def _file(item: reapi.Message, place: Callable[[Digest], str]) -> FileNode:
    name = from_message(item["digest"])
    return FileNode(name, place(name), item["is_executable"])


def read_tree(data: bytes, place: Callable[[Digest], str]) -> dict[str, FileNode]:
    """Return the files of an untrusted Tree by their paths; `place` returns the path of a blob. Raises ValueError."""
    if len(data) > _LARGE_TREE:
        with _LARGE:
            return _read_tree(data, place)
    return _read_tree(data, place)


def _read_tree(data: bytes, place: Callable[[Digest], str]) -> dict[str, FileNode]:
    tree = reapi.decode("Tree", data, MOST_MESSAGES)
    if tree["root"] is None:
        raise ValueError("the tree has no root")
    if reapi.encode("Tree", tree) != data:
        raise ValueError("the tree has entries that bk does not support, such as links")
    children = {digest.of_bytes(reapi.encode("Directory", child)): child for child in tree["children"]}
    files: dict[str, FileNode] = {}
    nodes = 0

    def walk(directory: reapi.Message, prefix: str, depth: int) -> None:
        nonlocal nodes
        nodes += len(directory["files"]) + len(directory["directories"])
        if depth > DEEPEST or nodes > MOST_NODES:
            raise ValueError("the tree is too large")
        _check_names(directory)
        for item in directory["files"]:
            _check_path(prefix + item["name"])
            files[prefix + item["name"]] = _file(item, place)
        for item in directory["directories"]:
            _check_path(prefix + item["name"])
            name = from_message(item["digest"])
            if name not in children:
                raise ValueError(f"the tree lacks {prefix}{item['name']}")
            walk(children[name], f"{prefix}{item['name']}/", depth + 1)

    walk(tree["root"], "", 0)
    return files


def _check_names(directory: reapi.Message) -> None:
    """Raise ValueError unless the names of a Directory are unique, in order and valid."""
    both = []
    for field in ("files", "directories"):
        names = [item["name"] for item in directory[field]]
        if any(before >= after for before, after in pairwise(names)):
            raise ValueError("the tree has duplicate or unsorted names")
        both += names
    if len(set(both)) != len(both):
        raise ValueError("the tree has a file and a folder of one name")
    if any("/" in name for name in both):
        raise ValueError("the tree has a name that leads out of its folder")


def _check_path(path: str) -> None:
    """Raise ValueError unless a file or a folder can have that path below a folder."""
    if len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"it has a path of more than {LONGEST_PATH} bytes")
    for name in path.split("/"):
        if name in ("", ".", "..") or "\0" in name:
            raise ValueError("it has a name that leads out of its folder")
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(f"it has a name of more than {LONGEST_NAME} bytes")
