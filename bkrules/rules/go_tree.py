"""Folders with Go modules that replace pinned ones: a checkout of BuildKit, for instance."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bkrules.errors import UsageError, did_you_mean
from bkrules.incremental.dependencies import current
from bkrules.model.action import HostFolder
from bkrules.system.files import read_text
from bkrules.system.trees import MOST_FILES, TooManyFiles, list_files

OPTION = "--override_module"
TREES = "trees"
"""The key under which a go_binary has the trees that replace its modules, among its extra attributes."""
OVERRIDES = "override"
"""The folder of trees in place of dependencies, among the inputs of a GoBuild: each by the path of its module."""
VENDORED = "vendor/modules.txt"
_MOD = "go.mod"
_MODULE = re.compile(r'^\s*module\s+"?([^\s"()]+)', re.MULTILINE)
_REPLACE = re.compile(
    r'^\s*(?:replace\s+)?"?([^\s"(]+)"?(?:\s+(v\S+))?\s+=>\s+"?([^\s"]+)"?(?:\s+(v\S+))?', re.MULTILINE
)
_REQUIRE = re.compile(r'^\s*(?:require\s+)?"?([^\s"(]+)"?\s+v\S+\s*$', re.MULTILINE)
_IGNORED = ("vendor", "testdata")


class Replacement(NamedTuple):
    """A `replace` of a go.mod: of a module, or of one version of it, by a module and its version, or by a folder without one."""

    module: str
    version: str
    by: str
    new_version: str

    @property
    def is_folder(self) -> bool:
        """Whether a folder replaces the module."""
        return not self.new_version


@dataclass(frozen=True, eq=False)
class ModuleTree:
    """A folder with the module `module`; `modules` are the folders of all modules in it, by their paths."""

    module: str
    folder: HostFolder
    modules: Mapping[str, str]

    def has(self, path: str) -> bool:
        """Return whether there is a file at this path below the folder."""
        return path in self.folder.names

    def read(self, module: str, name: str) -> str:
        """Return the text of a file next to the go.mod of a module; empty when there is none."""
        path = posixpath.normpath(f"{self.modules[module]}/{name}")
        return read_text(f"{self.folder.path}/{path}") if self.has(path) else ""

    def replacements(self) -> list[Replacement]:
        """Return the replacements of the go.mod of `module`, with folders relative to the tree.

        Raises UsageError for a folder outside of the tree.
        """
        own = self.modules[self.module]
        return [self._inside(one, own) if one.is_folder else one for one in replaced(self.read(self.module, _MOD))]

    def _inside(self, one: Replacement, own: str) -> Replacement:
        place = posixpath.normpath(posixpath.join(own, one.by))
        if place.startswith(("../", "/")) or place == "..":
            what = f"{OPTION}={self.module}={self.folder.path}: its {own}/{_MOD} replaces {one.module} with {one.by}, "
            raise UsageError(
                "override-module",
                f"{what}which is outside of the folder",
                hint="name a folder above both: the go.mod may lie anywhere below it",
            )
        return one._replace(by=place)


def read_tree(module: str, path: str) -> ModuleTree:
    """Return the tree with a module in the folder at an absolute path. Raises UsageError when it has no such module."""
    option = f"{OPTION}={module}={path}"
    try:
        listing = list_files(path, current().note_for_all)
        "\n".join([*listing.files, *(text for link in listing.links for text in link)]).encode()
    except OSError as error:
        raise UsageError("override-module", f"{option}: cannot read {error.filename}: {error.strerror}") from error
    except TooManyFiles as error:
        hint = "name the folder of the module, and nothing above it that it does not need"
        raise UsageError(
            "override-module", f"{option}: more than {MOST_FILES:,} files are below it", hint=hint
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError("override-module", f"{option}: the name of a file there is not UTF-8") from error
    folder = HostFolder(path, listing.files, listing.links)
    modules: dict[str, str] = {}
    for file in sorted(_mods(listing.files), key=lambda name: (name.count("/"), name)):
        found = module_of(read_text(f"{path}/{file}"))
        if found:
            modules.setdefault(found, posixpath.dirname(file) or ".")
    if not modules:
        hint = "name the folder of a Go module, or one above it"
        raise UsageError("override-module", f"{option}: there is no {_MOD} in that folder or below it", hint=hint)
    if module not in modules:
        raise UsageError(
            "override-module",
            f"{option}: no {_MOD} there is of the module {module!r}",
            hint=did_you_mean(module, modules, "its modules"),
        )
    tree = ModuleTree(module, folder, modules)
    tree.replacements()
    return tree


def _mods(files: Iterable[str]) -> Iterator[str]:
    """Yield the go.mod files among these that Go would not ignore."""
    for file in files:
        *folders, name = file.split("/")
        if name == _MOD and not any(folder in _IGNORED or folder[0] in "._" for folder in folders):
            yield file


def module_of(text: str) -> str:
    """Return the path of the module of a go.mod; empty when it has none."""
    found = _MODULE.search(text)
    return found[1] if found else ""


def replaced(text: str) -> list[Replacement]:
    """Return the replacements of a go.mod."""
    return [Replacement(*(part or "" for part in found.groups())) for found in _REPLACE.finditer(_bare(text))]


def required(text: str) -> set[str]:
    """Return the modules that a go.mod requires, directly or not."""
    return set(_REQUIRE.findall(_bare(text)))


def _bare(text: str) -> str:
    """Return a go.mod without comments."""
    return re.sub("//.*", "", text)


def with_replacements(text: str, trees: Iterable[ModuleTree], place: str) -> str:
    """Return a go.mod with the modules of these trees in place of those that it requires.

    `place` is the folder, relative to the go.mod, below which each tree is by the path of its module. Replacements that the
    tree's own go.mod has come with it, since Go ignores those of a dependency.
    """
    lines: dict[tuple[str, str], str] = {}
    needed = required(text)
    for tree in trees:
        at = f"{place}/{tree.module}"
        for one in tree.replacements():
            by = f"{at}/{one.by}" if one.is_folder else f"{one.by} {one.new_version}"
            lines[one.module, one.version] = by
        for module in needed.intersection(tree.modules):
            lines = {key: by for key, by in lines.items() if key[0] != module}
            lines[module, ""] = f"{at}/{tree.modules[module]}"
    names = {module for module, _ in lines}
    kept = "\n".join(line for line in text.split("\n") if not _is_of(line, names))
    new = [f"replace {' '.join(filter(None, key))} => {by}" for key, by in sorted(lines.items())]
    return "\n".join([kept.rstrip("\n"), *new, ""])


def _is_of(line: str, names: set[str]) -> bool:
    """Return whether a line of a go.mod replaces one of these modules."""
    found = replaced(line)
    return bool(found) and found[0].module in names


def is_workspace(tree: ModuleTree, module: str) -> bool:
    """Return whether a go.work of the tree applies to a module."""
    folder = tree.modules[module]
    above = [""] if folder == "." else ["", *(f"{part}/" for part in _above(folder))]
    return any(tree.has(f"{one}go.work") for one in above)


def _above(folder: str) -> Iterator[str]:
    parts = folder.split("/")
    return (os.path.join(*parts[:count]) for count in range(1, len(parts) + 1))
