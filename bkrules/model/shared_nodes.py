"""Keys of actions that share inputs: what follows from the shared ones is computed once."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from bkrules.model import digest
from bkrules.model.action import (
    Action,
    DirectoryNode,
    FileNode,
    Key,
    Node,
    directory,
    key_of,
    leaves_of_arguments,
    leaves_of_fields,
    leaves_of_inputs,
    messages_of,
    nested,
)
from bkrules.model.digest import Digest


class SharedNodes:
    """Resolved inputs that many actions share."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._leaves = leaves_of_inputs(nodes)
        self._of_fields: dict[tuple[object, ...], dict[str, str]] = {}
        self._below: dict[str, dict[str, Node]] = {}
        self._last: tuple[Mapping[str, Node], Digest, dict[str, str]] | None = None
        for path, node in nodes.items():
            self._below.setdefault(_top(path), {})[path] = node
        self._root = {
            top: node if isinstance(node, FileNode | DirectoryNode) else directory(node, {})
            for top, node in nested(nodes).items()
        }

    def key(self, action: Action, own: Mapping[str, Node]) -> Key:
        """Return the key of an action with these inputs, and its `own` in addition or in place of some.

        It is equal to that of `key_of` with all of them. One object for the `own` inputs of several actions costs their
        digest once.
        """
        if any(isinstance(self.nodes.get(path), DirectoryNode) for path in own):
            return key_of(action, {**self.nodes, **own})  # the leaves of the replaced folder would stay
        last = self._last
        if last is None or last[0] is not own:
            last = self._last = own, self._root_with(own), leaves_of_inputs(own)
        message = messages_of(action, last[1])[1]
        leaves = leaves_of_arguments(action), last[2], self._fields(action), self._leaves
        return Key(digest.of_bytes(message), ChainMap(*leaves))

    def _root_with(self, own: Mapping[str, Node]) -> Digest:
        """Return the digest of the input root with these inputs too."""
        root: dict[str, Any] = dict(self._root)
        for top in {_top(path) for path in own}:
            below = {path: node for path, node in own.items() if _top(path) == top}
            root[top] = nested({**self._below.get(top, {}), **below})[top]
        return directory(root, {})

    def _fields(self, action: Action) -> dict[str, str]:
        fields = action.mnemonic, action.made_in, action.environment, action.platform, action.outputs, action.timeout
        if fields not in self._of_fields:
            self._of_fields[fields] = leaves_of_fields(action)
        return self._of_fields[fields]


def _top(path: str) -> str:
    return path.partition("/")[0]
