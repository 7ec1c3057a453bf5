"""Keys as `bk-out` keeps them: leaves that many cells have are in one file below the folder of their matrix.

A `key.json` has the leaves of its cell, and the paths of the files with the others: those of the machine and of bk, and those of
the worker and its mirror. Such a file is named by the digest of its bytes, so a reader can prove it.
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bkrules.cache import atomic
from bkrules.execution.layout import KEY, PREVIOUS, SHARED
from bkrules.incremental.dependencies import current
from bkrules.model import digest
from bkrules.model.action import Key
from bkrules.report.indented import indented
from bkrules.system.files import read_regular

MOST_KEY = 16 << 20
"""The limit in bytes of a file with leaves."""
_SHARED = (
    ("salt", "platform/", "input/bkrules/", "input/host/", "input/python/"),
    ("input/config/", "input/mirror/", "input/packages/", "input/plugin/", "input/registry/"),
)
"""The beginnings of the leaves in each file: of those that do not depend on the test. A binary of `tools` may be the test."""
_OF_ALL = tuple(start for group in _SHARED for start in group)
_MOST_FILES = 64
"""The number of files with leaves in a matrix up to which those of older keys stay."""
_FILE = re.compile(rf"(?:\.\./)+{re.escape(SHARED)}/([0-9a-f]{{64}})\.json").fullmatch
_NAME = re.compile(r"[0-9a-f]{64}\.json").fullmatch
_Leaves = tuple[tuple[str, str], ...]


def whole_document(key: Key, mnemonic: str) -> bytes:
    """Return the bytes of the `key.json` of an action that is no cell: it has all leaves."""
    return _document(key, mnemonic, leaves=dict(sorted(key.leaves.items())))


def _document(key: Key, mnemonic: str, **parts: object) -> bytes:
    return indented({"key": key.digest.hash, "mnemonic": mnemonic, **parts}).encode()


class KeptKeys:
    """The keys of the cells of one matrix, whose `folder` has the files with the leaves that they share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[_Leaves, str] = {}
        self._divided: dict[tuple[int, ...], tuple[object, list[str], _Leaves]] = {}
        self._is_new = False

    def document(self, key: Key, mnemonic: str, cell: str) -> bytes:
        """Return the bytes of the `key.json` in the folder `cell` below that of the matrix, after writing the shared leaves."""
        files, leaves = self._parts(key.leaves)
        above = "../" * (cell.count("/") + 1)
        return _document(key, mnemonic, shared=[above + file for file in files], leaves=dict(leaves))

    def _parts(self, leaves: Mapping[str, str]) -> tuple[list[str], _Leaves]:
        """Return the files with shared leaves, and the sorted leaves that are in no file."""
        if not isinstance(leaves, ChainMap) or any(name.startswith(_OF_ALL) for name in leaves.maps[0]):
            return self._divide(leaves)
        own, *others = leaves.maps  # the others are those of many cells
        place = tuple(map(id, others))
        if place not in self._divided:
            self._divided[place] = others, *self._divide(ChainMap(*others))
        _, files, rest = self._divided[place]
        return files, tuple(sorted((*own.items(), *(leaf for leaf in rest if leaf[0] not in own))))

    def _divide(self, leaves: Mapping[str, str]) -> tuple[list[str], _Leaves]:
        items = sorted(leaves.items())
        groups = (tuple(leaf for leaf in items if leaf[0].startswith(group)) for group in _SHARED)
        return [self._file(group) for group in groups if group], tuple(
            leaf for leaf in items if not leaf[0].startswith(_OF_ALL)
        )

    def _file(self, leaves: _Leaves) -> str:
        """Return the name of the file with these leaves, which is written where it is missing or damaged."""
        if leaves not in self._names:
            data = indented(dict(leaves)).encode()
            self._names[leaves] = name = f"{SHARED}/{digest.of_bytes(data).hash}.json"
            path = self._folder / name
            current().note(str(path))
            if _read(str(path)) != data:
                atomic.write(str(path), data)
                self._is_new = True
        return self._names[leaves]

    def sweep(self) -> None:
        """Remove the files that no key of the matrix names any more, when a new one came and there are many."""
        if not self._is_new:
            return
        folder = self._folder / SHARED
        present = {name for name in os.listdir(folder) if _NAME(name)}
        if len(present) > _MOST_FILES:
            for name in present.difference(_named(self._folder)):
                (folder / name).unlink()


def _named(matrix: Path) -> Iterator[str]:
    """Yield the names of the files with leaves that the keys of a matrix name."""
    for folder, _, names in os.walk(matrix):
        for name in {KEY, PREVIOUS}.intersection(names):
            yield from (posixpath.basename(path) for path in _files(_parsed(_read(f"{folder}/{name}") or b"")))


def read_leaves(path: Path) -> dict[str, str] | None:
    """Return the leaves of the key in a file of `bk-out`; None when it has no key, or when a file with leaves is missing."""
    return leaves_of(_parsed(_read(str(path)) or b""), str(path), _read)


def leaves_of(document: Mapping[str, Any], path: str, fetch: Callable[[str], bytes | None]) -> dict[str, str] | None:
    """Return the leaves of the key at `path`. Return None when it has none, or when a file with some of them is missing.

    `fetch` returns the bytes of a file, or None.
    """
    own = document.get("leaves")
    if not isinstance(own, dict):
        return None
    leaves: dict[str, str] = {}
    for file in _files(document):
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        data = None if place.startswith("../") else fetch(place)
        if data is None or f"{digest.of_bytes(data).hash}.json" != posixpath.basename(file):
            return None
        leaves |= _proven(data)
    return leaves | _texts(own)


def _files(document: Mapping[str, Any]) -> list[str]:
    """Return the files with further leaves of a key. A test can write to the folder of its cell, so nothing is believed."""
    shared = document.get("shared")
    return [path for path in shared if isinstance(path, str) and _FILE(path)] if isinstance(shared, list) else []


def _read(path: str) -> bytes | None:
    try:
        return read_regular(path, MOST_KEY)
    except OSError:
        return None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


@functools.lru_cache(maxsize=_MOST_FILES)
def _proven(data: bytes) -> dict[str, str]:
    return _texts(_parsed(data))


def _texts(leaves: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): value for name, value in leaves.items() if isinstance(value, str)}
