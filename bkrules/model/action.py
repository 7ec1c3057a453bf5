"""Actions: declared by analysis, run by execution, and named by digests.

An action has the fields of REAPI's Action and Command. Its key is the digest of their canonical encoding, with the
inputs as a Merkle tree of Directory messages. Nothing else may change the result of an action, so a runner reads only
what the key covers: the arguments and the resolved inputs.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from bkrules.errors import BkError
from bkrules.model import digest, reapi
from bkrules.model.digest import Digest
from bkrules.model.label import Label
from bkrules.model.resources import LIMITS, UNASKED, Limits, Request

SALT = b"bk/1"
_HASH = re.compile("[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the workspace; `path` is relative to its root."""

    path: str


@dataclass(frozen=True)
class Text:
    """Bytes that analysis already knows.

    The key covers `data`. When `shown` is given, the action reads `shown` instead: `data` has all of it that can change a
    result, so not such details as line numbers. A function makes it when an action is about to run. Texts with the same
    `data` are equal. One object stands for a text in all actions of a build, since its digest is computed once.
    """

    data: bytes
    shown: bytes | Callable[[], bytes] | None = field(default=None, compare=False)

    @cached_property
    def digest(self) -> Digest:
        """The digest of the bytes that the key covers."""
        return digest.of_bytes(self.data)

    def read(self) -> bytes:
        """Return the bytes that an action reads."""
        shown = self.shown() if callable(self.shown) else self.shown
        return self.data if shown is None else shown


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file that this machine provides: an absolute path, or a command's name to be found on PATH.

    An `executable` one has the same key as a binary that bk builds.
    """

    path: str
    executable: bool = False


@dataclass(frozen=True, eq=False)
class HostFolder:
    """A folder of this machine, at an absolute path, with the files below it that an action reads.

    `links` are the symbolic links to folders below it, with their targets. One object stands for the folder in all actions
    of a build, since it may have thousands of files.
    """

    path: str
    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The files, for questions whether one is there."""
        return frozenset(self.files)


@dataclass(frozen=True, slots=True)
class Output:
    """An output of another action; `producer` is the id of that action."""

    producer: str
    path: str


@dataclass(frozen=True, slots=True)
class ReachedOutput(Output):
    """A test binary of Go, of which the key covers only what one test reaches.

    The same action made the folder `reached`, which says by its names what that is, `TEST/DIGEST`: the first of the `names`
    that it has counts, and the whole binary when it has none.
    """

    reached: str
    names: tuple[str, ...]


Artifact = Source | Text | HostFile | HostFolder | Output
Pair = tuple[str, Artifact]


class SharedInputs:
    """Inputs that many actions have. One object stands for them, so that bk computes once what follows from them."""

    def __init__(self, inputs: Mapping[str, Artifact]) -> None:
        self.pairs: tuple[Pair, ...] = tuple(sorted(inputs.items(), key=_path))
        self.by_path: Mapping[str, Artifact] = dict(self.pairs)

    @cached_property
    def dependencies(self) -> tuple[str, ...]:
        """The ids of the actions whose outputs are among them, sorted."""
        return _producers(self.pairs)

    def outputs_in(self, paths: Iterable[str]) -> bool:
        """Return whether one of these paths is that of an output of another action."""
        return any(isinstance(self.by_path.get(path), Output) for path in paths)


class Inputs(tuple[Pair, ...]):
    """The sorted inputs of an action: `shared` ones, and its `own`, each of which may replace a shared one.

    None replaces an output: the action would still depend on it.
    """

    shared: SharedInputs
    own: tuple[Pair, ...]

    @classmethod
    def of(cls, shared: SharedInputs, own: Mapping[str, Artifact]) -> Inputs:
        """Return these inputs. Those of `own` that are equal to shared ones count as shared."""
        if shared.outputs_in(own):
            shared = SharedInputs({**shared.by_path, **own})
        more = tuple((path, item) for path, item in own.items() if shared.by_path.get(path) != item)
        pairs = list(shared.pairs)
        for pair in more:
            place = bisect_left(pairs, pair[0], key=_path)
            pairs[place : place + (pair[0] in shared.by_path)] = [pair]
        inputs = cls(pairs)
        inputs.shared, inputs.own = shared, more
        return inputs


def _path(pair: Pair) -> str:
    return pair[0]


def _producers(pairs: Iterable[Pair]) -> tuple[str, ...]:
    return tuple(sorted({item.producer for _, item in pairs if isinstance(item, Output)}))


@dataclass(frozen=True, slots=True)
class Cell:
    """A point of a matrix, as it is reported: `test_pull/worker=oci/compression=estargz`.

    A cell that runs several times in a build has a copy for each run: `run` of `runs`, counted from 1. `flaky` is the
    matrix's attribute. `skip` is why the cell does not run, when that is known before anything starts. `jail`: the cell
    is in a user namespace. `compares`: it reads what the other cells of its matrix made.
    """

    matrix: Label
    test: str
    worker: str
    axes: tuple[tuple[str, str], ...]
    run: int = 0
    runs: int = 0
    flaky: bool = False
    skip: str = ""
    size: str = "medium"
    jail: bool = False
    compares: bool = False

    @property
    def point(self) -> str:
        """BuildKit's name of the cell, the same for all of its runs."""
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """The name of the cell, with the run when there are several."""
        return f"{self.point}/run_{self.run}_of_{self.runs}" if self.runs else self.point

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the name. Each part may contain a slash."""
        return (self.test, f"worker={self.worker}", *(f"{axis}={choice}" for axis, choice in self.axes))

    @property
    def folder(self) -> str:
        """The folder of the cell below the matrix's outputs, which no other cell has."""
        run = [f"run_{self.run}_of_{self.runs}"] if self.runs else []
        test, *others = self.parts
        return "/".join([_test_folder(test), *map(_folder, others), *run])

    @property
    def label(self) -> str:
        """The cell as a label of its matrix."""
        return f"{self.matrix}[{self.name}]"


class Form(StrEnum):
    """The form of a declared output: a file, a folder, or a folder that the action need not make."""

    FILE = "a file"
    FOLDER = "a folder"
    OPTIONAL = "a folder or nothing"


_PLAIN_TEST = re.compile(r"\w+(?:(?:::|[.-])\w+)*(?:\[[\w.+,=@~-]*\])?", re.ASCII).fullmatch
_PLAIN_PART = re.compile(r"[\w.+,=@~ -]+", re.ASCII).fullmatch
_UNUSUAL = re.compile(r"[^\w.+=@-]+", re.ASCII)
_LONGEST_NAME = 160
_SHOWN_OF_NAME = 100
_DIGITS = 16


def _test_folder(test: str) -> str:
    """Return a test's name as a folder name: without `::`, which some stores of CI artifacts refuse.

    A subtest of Go is in the folder of its parent.
    """
    is_plain = len(test) <= _LONGEST_NAME and all(map(_PLAIN_TEST, test.split("/")))
    return test.replace("::", ".") if is_plain else _digested(test)


def _folder(part: str) -> str:
    return part if len(part) <= _LONGEST_NAME and _PLAIN_PART(part) else _digested(part)


def _digested(text: str) -> str:
    """Return the readable part of a text and a digest of it. No name that is used unchanged contains the `#`."""
    whole = digest.of_bytes(text.encode(errors="surrogatepass")).hash[:_DIGITS]
    return f"{_UNUSUAL.sub('_', text)[:_SHOWN_OF_NAME]}#{whole}"


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a build. `id` is unique in a build. The key does not cover id, label, cell, request, limits and where.

    `folders` are the outputs that are folders, and `optional` those of them that the action need not make. `fault` is
    the error of an action that fails without a run. `where` is the place of its target in a build file. `made_in` is the
    folder of the input root in which a command makes its outputs. Such an action is REAPI's word for word, so an engine
    can run it; others have no such folder, and bk runs them by their mnemonic.
    """

    id: str
    label: Label
    mnemonic: str
    arguments: tuple[str, ...]
    inputs: tuple[Pair, ...]
    outputs: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    platform: tuple[tuple[str, str], ...] = ()
    timeout: int = 0
    cell: Cell | None = None
    request: Request = UNASKED
    folders: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    limits: Limits = LIMITS
    fault: BkError | None = None
    made_in: str = ""
    where: str = field(default="", compare=False)

    @property
    def declared(self) -> dict[str, Form]:
        """The outputs, each with its form."""
        forms = {**dict.fromkeys(self.folders, Form.FOLDER), **dict.fromkeys(self.optional, Form.OPTIONAL)}
        return {path: forms.get(path, Form.FILE) for path in self.outputs}

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of REAPI's Command: those of a command, or the mnemonic and its arguments."""
        return self.arguments if self.made_in else (self.mnemonic, *self.arguments)

    @property
    def above(self) -> str:
        """The folder of the input root that the paths of the outputs begin with, with its slash; empty for none."""
        return f"{self.made_in}/" if self.made_in else ""

    @property
    def title(self) -> str:
        """The action in progress lines: a cell's name, or the target's label."""
        return self.cell.name if self.cell else str(self.label)

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The ids of the actions whose outputs this action reads, sorted."""
        if not isinstance(self.inputs, Inputs):
            return _producers(self.inputs)
        own, shared = _producers(self.inputs.own), self.inputs.shared.dependencies
        return tuple(sorted({*own, *shared})) if own else shared

    @property
    def parameters(self) -> object:
        """The JSON in the last argument, for the mnemonics that bk itself runs."""
        return json.loads(self.arguments[-1])


@dataclass(frozen=True, slots=True)
class FileNode:
    """A resolved input or an output: the bytes of one file, readable at `path` now."""

    digest: Digest
    path: str
    executable: bool = False


@dataclass(frozen=True)
class DirectoryNode:
    """A resolved folder; `files` are keyed by their paths below it. Each file of an `edited` one is a leaf of a key."""

    files: Mapping[str, FileNode] = field(default_factory=dict)
    edited: bool = False

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of a file in each folder below it, by the path of that folder."""
        return {above: name for above, _, name in (path.rpartition("/") for path in self.files)}

    @cached_property
    def tree(self) -> tuple[Digest, dict[Digest, bytes]]:
        """The digest of the folder's Directory message, and every such message of its tree."""
        return merkle(self.files)

    @property
    def digest(self) -> Digest:
        """The digest of the folder's Directory message."""
        return self.tree[0]


Node = FileNode | DirectoryNode


def merkle(nodes: Mapping[str, Node]) -> tuple[Digest, dict[Digest, bytes]]:
    """Return the digest of the input root, and every Directory message of the tree by its digest."""
    blobs: dict[Digest, bytes] = {}
    return directory(nested(nodes), blobs), blobs


def nested(nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Return these nodes as a tree of dictionaries, each a folder."""
    root: dict[str, Any] = {}
    for path, node in nodes.items():
        *parents, name = path.split("/")
        folder = root
        for parent in parents:
            folder = folder.setdefault(parent, {})
        folder[name] = node
    return root


def directory(folder: Mapping[str, Any], blobs: dict[Digest, bytes]) -> Digest:
    """Return the digest of a folder of `nested`, and add the messages of its tree to `blobs`. A digest stands for a folder."""
    files: list[bytes] = []
    directories: list[bytes] = []
    for name in sorted(folder):
        node = folder[name]
        if isinstance(node, FileNode):
            files.append(_file_message(name, node.digest.hash, node.digest.size, node.executable))
            continue
        if isinstance(node, DirectoryNode):
            found, inner = node.tree
            blobs.update(inner)
        else:
            found = node if isinstance(node, Digest) else directory(node, blobs)
        directories.append(_folder_message(name, found.hash, found.size))
    own, data = _directory_message(tuple(files), tuple(directories))
    blobs[own] = data
    return own


# Many actions have the same tools and libraries as inputs, so bk keeps their encoding for a while.
@functools.lru_cache(maxsize=1 << 14)
def _file_message(name: str, content: str, size: int, executable: bool) -> bytes:
    message = {"name": name, "digest": reapi.encode_digest(content, size), "is_executable": executable}
    return reapi.encode("FileNode", message)


@functools.lru_cache(maxsize=1 << 12)
def _folder_message(name: str, content: str, size: int) -> bytes:
    return reapi.encode("DirectoryNode", {"name": name, "digest": reapi.encode_digest(content, size)})


@functools.lru_cache(maxsize=1 << 12)
def _directory_message(files: tuple[bytes, ...], directories: tuple[bytes, ...]) -> tuple[Digest, bytes]:
    data = reapi.encode("Directory", {"files": files, "directories": directories})
    return digest.of_bytes(data), data


@dataclass(frozen=True, slots=True)
class Key:
    """The digest of an action, and the named leaves that it covers."""

    digest: Digest
    leaves: Mapping[str, str]


def key_of(action: Action, inputs: Mapping[str, Node]) -> Key:
    """Return the key of an action whose inputs are resolved."""
    message = messages_of(action, merkle(inputs)[0])[1]
    leaves = leaves_of_arguments(action) | leaves_of_fields(action) | leaves_of_inputs(inputs)
    return Key(digest.of_bytes(message), dict(sorted(leaves.items())))


def leaves_of_arguments(action: Action) -> dict[str, str]:
    """Return the leaves of an action's arguments."""
    return {f"argument/{number}": text for number, text in enumerate(action.arguments)}


def leaves_of_fields(action: Action) -> dict[str, str]:
    """Return the leaves of an action that are neither inputs nor arguments."""
    leaves = {"salt": SALT.decode()} | ({} if action.made_in else {"mnemonic": action.mnemonic})
    leaves |= {f"env/{name}": value for name, value in action.environment}
    leaves |= {f"platform/{name}": value for name, value in action.platform}
    leaves |= {f"output/{action.above}{path}": "" for path in action.outputs}
    return leaves | ({"timeout": str(action.timeout)} if action.timeout else {})


def leaves_of_inputs(inputs: Mapping[str, Node]) -> dict[str, str]:
    """Return the leaves of resolved inputs. Many actions have the same ones, and bk keeps leaves until the end of a build."""
    leaves = {sys.intern(f"input/{path}"): sys.intern(_leaf(node)) for path, node in inputs.items()}
    for path, node in inputs.items():
        if isinstance(node, DirectoryNode) and node.edited:
            leaves |= {f"input/{path}/{name}": _leaf(file) for name, file in node.files.items()}
    return leaves


def messages_of(action: Action, root: Digest) -> tuple[bytes, bytes]:
    """Return the Command and the Action messages of an action; `root` is the digest of its input root."""
    command = reapi.encode("Command", {"arguments": action.command})
    command += _end_of_command(action.environment, action.above, action.outputs)
    own = digest.of_bytes(command)
    message = {
        "command_digest": reapi.encode_digest(own.hash, own.size),
        "input_root_digest": reapi.encode_digest(root.hash, root.size),
    }
    return command, reapi.encode("Action", message) + _end_of_action(action.timeout, action.platform)


# The fields of a message are in the order of their tags, so the last ones, which many actions share, are the end of its bytes.
@functools.lru_cache(maxsize=1 << 8)
def _end_of_command(environment: tuple[tuple[str, str], ...], above: str, outputs: tuple[str, ...]) -> bytes:
    paths = sorted(above + path for path in outputs)
    return reapi.encode("Command", {"environment_variables": _properties(environment), "output_paths": paths})


@functools.lru_cache(maxsize=1 << 8)
def _end_of_action(timeout: int, platform: tuple[tuple[str, str], ...]) -> bytes:
    message = {
        "timeout": {"seconds": timeout} if timeout else None,
        "salt": SALT,
        "platform": {"properties": _properties(platform)} if platform else None,
    }
    return reapi.encode("Action", message)


def _leaf(node: Node) -> str:
    """Return a node as text: all that its key covers, since a folder and a file may have the same bytes."""
    if isinstance(node, DirectoryNode):
        return f"folder {node.digest}"
    return f"executable {node.digest}" if node.executable else str(node.digest)


@functools.lru_cache(maxsize=1 << 10)
def _properties(pairs: tuple[tuple[str, str], ...]) -> tuple[bytes, ...]:
    return tuple(reapi.encode("Property", {"name": name, "value": value}) for name, value in sorted(pairs))


def to_message(value: Digest) -> reapi.Message:
    """Return a digest as REAPI's message."""
    return {"hash": value.hash, "size_bytes": value.size}


def from_message(message: reapi.Message | None) -> Digest:
    """Return the digest in a REAPI message. Raises ValueError when it is missing or malformed."""
    if not message or not _HASH(message["hash"]) or message["size_bytes"] < 0:
        raise ValueError("a digest is missing")
    return Digest(message["hash"], message["size_bytes"])


def parameters(value: Any) -> str:
    """Return a value as the JSON that `Action.parameters` reads, sorted so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
