"""Portable actions: those that an engine of the Remote Execution API can run, in the CAS that bk and the engine share.

A client sends an action with all that it names; a runner reads it back. Nothing of it is used before the whole is
checked: its messages must be those that bk would write, byte for byte, so a runner ignores no field.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from bkrules.cache.cas import Cas
from bkrules.cache.remote import Remote
from bkrules.cache.results import MOST_NODES, files_of, read_tree
from bkrules.errors import RemoteFailed
from bkrules.execution.portable_cell import CELL, OUT, CellForm, read_form
from bkrules.model import digest, reapi
from bkrules.model.action import SALT, Action, FileNode, Node, from_message, merkle, messages_of
from bkrules.model.digest import Digest

MOST_FORM = 64 << 20
"""The limit in bytes of the description of a cell, which may have the values of a whole axis."""
MOST_MESSAGE = 4 << 20
"""The limit in bytes of a message of an action: that of a message of gRPC."""

WORD = "bk: "
"""The beginning of the last line of a failure's stderr, in which bk's runner says how it failed."""

_SEND = "send it:  bk cache push --actions PATTERN... --remote_cache=URL"
_RUNS = "bk runs the actions that `bk cache push --actions` sends"


@dataclass(frozen=True)
class Portable:
    """An action as a runner needs it. `inputs` are its files by their paths, `outputs` their names below `OUT`.

    `timeout` is in seconds; 0 means none.
    """

    key: Digest
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    inputs: Mapping[str, FileNode]
    outputs: tuple[str, ...]
    platform: tuple[tuple[str, str], ...]
    timeout: int
    cached: bool


def send(action: Action, inputs: Mapping[str, Node], cas: Cas, remote: Remote) -> Digest:
    """Send an action and its inputs to the CAS of a remote cache. Return the action's digest.

    A file that is not on the disk is an output that the remote cache has. Raises RemoteFailed.
    """
    root, directories = merkle(inputs)
    messages = [*directories.values(), *messages_of(action, root)]
    files = {file.digest: file.path for node in inputs.values() for file in files_of(node)}
    unknown = remote.unknown(files)
    paths = {name: path for name, path in files.items() if name in unknown and os.path.exists(path)}
    blobs = {digest.of_bytes(data): data for data in messages}
    paths |= {cas.put(blobs[name]): cas.path(name) for name in remote.unknown(blobs)}
    if not remote.send(paths):
        hint = f"is the address of {remote.option} right, and does its server take blobs?"
        raise RemoteFailed("remote-cache", f"{action.label}: cannot send the action: {remote.fault}", hint=hint)
    return digest.of_bytes(messages[-1])


class Reader:
    """Reads actions from the CAS of a remote cache, through the disk cache."""

    def __init__(self, cas: Cas, remote: Remote) -> None:
        self._cas, self._remote = cas, remote

    def read(self, key: Digest) -> Portable:
        """Return the action of that digest; its input files may not be on the disk. Raises RemoteFailed."""
        action = self._message("Action", key, f"the action {key.hash}/{key.size}")
        if action["salt"] != SALT:
            what = f"the action {key.hash} is of another program, or of another version of bk: its salt is {action['salt']!r}"
            raise RemoteFailed("not-portable", what, hint=f"this bk runs actions with the salt {SALT!r}")
        try:
            return self._portable(key, action)
        except ValueError as error:
            raise RemoteFailed("not-portable", f"the action {key.hash} cannot run: {error}", hint=_RUNS) from error

    def form(self, action: Portable) -> CellForm | None:
        """Return the cell that an action runs; None for a command. Raises RemoteFailed."""
        if action.arguments[0] != CELL:
            return None
        name = action.inputs[CELL].digest
        if name.size > MOST_FORM:
            raise RemoteFailed("not-portable", f"its cell has {name.size} bytes, but may have {MOST_FORM}")
        self._need([name], "its cell")
        try:
            form = read_form(self._cas.read(name) or b"")
            if sorted(form.outputs) != sorted(action.outputs):
                raise ValueError("its outputs are not those of its command")
            return form
        except ValueError as error:
            raise unreadable(action, error) from error

    def fetch(self, action: Portable) -> None:
        """Fetch the input files of an action to the disk cache. Raises RemoteFailed."""
        paths = {file.digest: path for path, file in action.inputs.items()}
        if lost := self._remote.fetch(paths):
            path = min(paths[name] for name in lost)
            self._absent(f"{len(lost)} of {len(paths)} input files, such as {path}")

    def _portable(self, key: Digest, action: reapi.Message) -> Portable:
        """Return the action of a message. Raises ValueError and RemoteFailed."""
        command = self._message("Command", from_message(action["command_digest"]), "its command")
        inputs = self._tree(from_message(action["input_root_digest"]))
        arguments, outputs = command["arguments"], command["output_paths"]
        if not arguments or arguments[0] not in inputs:
            raise ValueError(f"its first argument is no file of its inputs: {arguments[:1]}")
        if command["working_directory"] or command["platform"]:
            raise ValueError("its command has a working directory or a platform")
        if not outputs or not all(path.startswith(OUT) for path in outputs):
            raise ValueError(f"an output is not below {OUT}: {outputs}")
        names = tuple(path.removeprefix(OUT) for path in outputs)
        read_names(names)
        timeout = action["timeout"] or {"seconds": 0, "nanos": 0}
        if timeout["seconds"] < 0 or timeout["nanos"]:
            raise ValueError("its timeout is no number of seconds")
        return Portable(
            key,
            tuple(arguments),
            _pairs(command["environment_variables"]),
            inputs,
            names,
            _pairs(action["platform"]["properties"] if action["platform"] else ()),
            timeout["seconds"],
            not action["do_not_cache"],
        )

    def _tree(self, root: Digest) -> dict[str, FileNode]:
        """Return the files of an input root by their paths. Raises ValueError and RemoteFailed."""
        known: dict[Digest, reapi.Message] = {}
        level = {root}
        while level:
            if len(known) + len(level) > MOST_NODES:
                raise ValueError("its input root is too large")
            self._need(level, "a folder of its inputs")
            known |= {name: self._message("Directory", name, "a folder of its inputs") for name in sorted(level)}
            inner = (item["digest"] for name in level for item in known[name]["directories"])
            level = {from_message(item) for item in inner} - known.keys()
        children = [message for name, message in sorted(known.items()) if name != root]
        return read_tree(reapi.encode("Tree", {"root": known[root], "children": children}), self._cas.path)

    def _message(self, kind: str, name: Digest, what: str) -> reapi.Message:
        """Return a message of the CAS. Raises RemoteFailed."""
        if name.size > MOST_MESSAGE:
            raise RemoteFailed("not-portable", f"{what} has {name.size} bytes, but may have {MOST_MESSAGE}")
        self._need([name], what)
        data = self._cas.read(name)
        try:
            message = reapi.decode(kind, data or b"")
            is_whole = data is not None and reapi.encode(kind, message) == data
        except ValueError:
            is_whole = False
        if not is_whole:
            raise RemoteFailed("not-portable", f"{what} is no {kind} as bk writes it", hint=_RUNS)
        return message

    def _need(self, names: Iterable[Digest], what: str) -> None:
        """Fetch blobs. Raises RemoteFailed."""
        if self._remote.fetch(names):
            self._absent(what)

    def _absent(self, what: str) -> NoReturn:
        reason = "absent-blob" if self._remote.readable else "remote-cache"
        raise RemoteFailed(reason, f"cannot get {what}: {self._remote.fault}", hint=_SEND)


def unreadable(action: Portable, error: ValueError) -> RemoteFailed:
    """Return the error for a cell that another bk has sent."""
    what = f"the action {action.key.hash} runs a cell that this bk cannot read: {error}"
    return RemoteFailed("not-portable", what, hint="send it with the bk of the machine that runs it")


def read_names(names: Iterable[str]) -> None:
    """Raise ValueError unless each name is a path below a folder."""
    for name in names:
        if any(part in ("", ".", "..") or "\0" in part for part in name.split("/")):
            raise ValueError(f"it has an output that leads out of its folder: {name!r}")


def _pairs(properties: Iterable[reapi.Message]) -> tuple[tuple[str, str], ...]:
    return tuple((item["name"], item["value"]) for item in properties)
