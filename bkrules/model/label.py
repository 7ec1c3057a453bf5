"""Labels and target patterns, as Bazel writes them.

A label names one target or one source file: `//pkg:name`. `//pkg` is short for `//pkg:pkg`'s last part, and
inside a BUILD.py `:name` means the same package. Patterns name many: `//pkg:all`, `//pkg/...`, `-//pkg:name`; without `//`
they start in the current folder: `pkg:name`, `./pkg/...`. `@module//pkg:name` is in a module; there, `//pkg:name` is of that
module too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bkrules.errors import UsageError

_DOTS = {"", ".", ".."}
_PACKAGE = re.compile(r"(?:[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*)?")
_NAME = re.compile(r"(?!@)[A-Za-z0-9_.+=,@~/-]+")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHAPE = "write '//package:name' or ':name'"


class LabelError(ValueError):
    """A string that is not a label."""


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """`//package:name`; `package` is a folder of the workspace, with `/`, or empty for its root.

    `@module//package:name` has the package `@module/package`, and the root of the module is the package `@module`.
    """

    package: str
    name: str

    def __str__(self) -> str:
        return f"{shown_package(self.package)}:{self.name}"

    @property
    def path(self) -> str:
        """The path of a source file with this label, relative to the workspace; that of a module begins with `@module/`."""
        return f"{self.package}/{self.name}" if self.package else self.name


def module_of(path: str) -> str:
    """Return the module of a package or of the path of a label; empty for those of the workspace itself."""
    return path[1:].partition("/")[0] if path.startswith("@") else ""


def root_of(package: str) -> str:
    """Return the root package of the module of a package, or of the workspace."""
    return package.partition("/")[0] if package.startswith("@") else ""


def shown_package(package: str) -> str:
    """Return a package as labels begin: `//package`, or `@module//package`."""
    module = root_of(package)
    return f"{module}//{package[len(module) :].removeprefix('/')}"


def is_module(name: str) -> bool:
    """Return whether a module of bk can have this name. The path of a Go module cannot be one, since it has a dot or a slash."""
    return bool(_MODULE.fullmatch(name))


def parse_label(text: str, package: str = "") -> Label:
    """Return the label that `text` stands for inside `package`. Raises LabelError."""
    root, rest = _split(text, package)
    if rest.startswith("//"):
        folder, colon, name = rest[2:].partition(":")
        name = name if colon else folder.rpartition("/")[2]
    else:
        folder, name = package.removeprefix(root).removeprefix("/"), rest.removeprefix(":")
    if not valid_name(name) or not _valid_package(folder):
        raise LabelError(f"{text!r} is not a label; {_SHAPE}")
    return Label(_joined(root, folder), name)


def _split(text: str, package: str) -> tuple[str, str]:
    """Return the root package of a label inside `package`, and the label without its module. Raises LabelError."""
    if not text.startswith("@"):
        return root_of(package), text
    root, slashes, rest = text.partition("//")
    if not slashes or not is_module(root[1:]):
        raise LabelError(f"{text!r} is not a label; {_SHAPE}, or '@module//package:name'")
    return root, f"//{rest}"


def _joined(root: str, folder: str) -> str:
    return f"{root}/{folder}" if root and folder else root or folder


def valid_name(name: str) -> bool:
    """Return whether a target may be called `name`."""
    return bool(_NAME.fullmatch(name)) and _DOTS.isdisjoint(name.split("/"))


def _valid_package(name: str) -> bool:
    return not name or (bool(_PACKAGE.fullmatch(name)) and _DOTS.isdisjoint(name.split("/")))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One target pattern. `name` is None for all targets of the package, `recursive` adds those below it.

    `is_path`: the name is a path from the package, and may begin with the path of another package, as `hello` and
    `hello/name` do; only the workspace knows.
    """

    text: str
    package: str
    name: str | None
    recursive: bool = False
    negative: bool = False
    is_path: bool = False

    def matches(self, label: Label) -> bool:
        """Return whether `label` is one of the targets that this pattern names."""
        if self.recursive and not self.package:
            return not module_of(label.package)
        if self.recursive:
            return label.package == self.package or label.package.startswith(self.package + "/")
        return label.package == self.package and (self.name is None or label.name == self.name)


def parse_pattern(text: str, package: str = "") -> Pattern:
    """Return the pattern that `text` stands for on a command line in the folder `package`. Raises BkError (usage)."""
    body = text.removeprefix("-")
    negative = body != text
    is_relative = not body.startswith(("//", "@"))
    if is_relative:
        body = body.removeprefix("./").rstrip("/")
    everything, colon, name = body.rpartition(":")
    if colon and name in ("all", "*") and (everything == "..." or everything.endswith("/...")):
        body = everything
    folder, colon, name = body.rpartition(":")
    try:
        if body == "..." or body.endswith("/..."):
            root, rest = _split(body, "")
            folder = rest.removesuffix("...").removesuffix("/").removeprefix("//")
            folder = "/".join(filter(None, [package, folder])) if is_relative else folder
            folder = folder.removeprefix("/")
            if not _valid_package(folder):
                raise LabelError(f"{text!r} is not a target pattern")
            return Pattern(text, _joined(root, folder), None, recursive=True, negative=negative)
        if is_relative and folder:
            body, is_relative = f"//{'/'.join(filter(None, [package, folder]))}:{name}", False
        label = parse_label(f"{body[:-1]}all" if body.endswith(":*") else body, package)
    except LabelError as error:
        raise BadPattern(str(error), text) from error
    is_path = is_relative and not colon
    return Pattern(text, label.package, None if label.name == "all" else label.name, negative=negative, is_path=is_path)


class BadPattern(UsageError):
    """A word on the command line that is not a target pattern."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(
            "bad-pattern", message, hint="patterns: //pkg:name, //pkg:all, //pkg/..., -//pkg:name, pkg:name"
        )
        self.text = text
