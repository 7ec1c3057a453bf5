"""The targets of packages that the last load kept, for completion: read without rules and without evaluating a file.

A package whose files have changed since then is read by its syntax alone: the names that its calls give literally.
"""

from __future__ import annotations

import ast
import hashlib
import marshal
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bkrules.loading.root import MARKER
from bkrules.system.files import read_regular

BUILD_FILE = "BUILD.py"
OUTPUT = "bk-out"
_PACKAGES = f"{OUTPUT}/.state/packages"
_CHECKSUM = 4
_TEST = re.compile(rb"^(?:async )?def (test_?\w+)|^class (Test\w*)|^    (?:async )?def (test_?\w+)", re.MULTILINE)


@dataclass(frozen=True)
class KeptTarget:
    """A target, its rule, and those of its attributes and of the settings of its plugin that are known."""

    name: str
    rule: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Kept:
    """The packages of the workspace at `root`, as far as they are known without loading them. Raises nothing."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._entries = _read(f"{root}/{_PACKAGES}")
        self._targets: dict[str, list[KeptTarget]] = {}

    def packages(self) -> list[str]:
        """Return the packages of the last load that still have a build file."""
        return [name for name in self._entries if os.path.isfile(f"{self.root}/{_build_file(name)}")]

    def is_package(self, name: str) -> bool:
        """Return whether a folder is a package."""
        return os.path.isfile(f"{self.root}/{_build_file(name)}")

    def targets(self, package: str) -> list[KeptTarget]:
        """Return the targets of a package; those that a macro makes only when its files are unchanged."""
        if package not in self._targets:
            self._targets[package] = self._loaded(package)
        return self._targets[package]

    def _loaded(self, package: str) -> list[KeptTarget]:
        try:
            files, *_, blob = self._entries[package]
            if all(self._digest(path) == digest for path, digest, _ in files):
                return [KeptTarget(*target[:4]) for target in marshal.loads(blob)[-1]]
        except (OSError, KeyError, ValueError, TypeError, EOFError):
            pass  # the next lines read the file itself
        return self._literal(package)

    def tests(self, path: str) -> list[str]:
        """Return the names of the tests in a file of Python, as pytest writes them."""
        try:
            text = read_regular(f"{self.root}/{path}")
        except OSError:
            return []
        names, group = [], ""
        for function, of_class, method in _TEST.findall(text):
            if of_class:
                group = of_class.decode()
            elif function:
                names.append(function.decode())
            elif group:
                names.append(f"{group}::{method.decode()}")
        return names

    def _digest(self, path: str) -> str:
        return hashlib.sha256(read_regular(f"{self.root}/{path}")).hexdigest()

    def _literal(self, package: str) -> list[KeptTarget]:
        try:
            tree = ast.parse(read_regular(f"{self.root}/{_build_file(package)}"))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        targets = []
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id != "workspace":
                names = [word.value for word in call.keywords if word.arg == "name"]
                targets += [
                    KeptTarget(name.value, call.func.id)
                    for name in names
                    if isinstance(name, ast.Constant) and isinstance(name.value, str)
                ]
        return targets


def _build_file(package: str) -> str:
    return f"{package}/{BUILD_FILE}" if package else MARKER


def _read(store: str) -> dict[str, Any]:
    try:
        _, entries = marshal.loads(memoryview(read_regular(store))[_CHECKSUM:])
    except (OSError, ValueError, TypeError, EOFError):
        return {}
    return entries if isinstance(entries, dict) else {}
