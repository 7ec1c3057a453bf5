"""Labels and target patterns, as Bazel writes them.

A label names one target or one source file: `//pkg:name`. `//pkg` is short for `//pkg:pkg`'s last part, and
inside a BUILD.py `:name` means the same package. Patterns name many: `//pkg:all`, `//pkg/...`, `-//pkg:name`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bkrules.errors import UsageError

_DOTS = {"", ".", ".."}
_PACKAGE = re.compile(r"(?:[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*)?")
_NAME = re.compile(r"[A-Za-z0-9_.+=,@~/-]+")


class LabelError(ValueError):
    """A string that is not a label."""


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """`//package:name`; `package` is a folder of the workspace, with `/`, or empty for its root."""

    package: str
    name: str

    def __str__(self) -> str:
        return f"//{self.package}:{self.name}"

    @property
    def path(self) -> str:
        """The path of a source file with this label, relative to the workspace."""
        return f"{self.package}/{self.name}" if self.package else self.name


def parse_label(text: str, package: str = "") -> Label:
    """Return the label that `text` stands for inside `package`. Raises LabelError."""
    if text.startswith("//"):
        folder, colon, name = text[2:].partition(":")
        name = name if colon else folder.rpartition("/")[2]
    else:
        folder, name = package, text.removeprefix(":")
    if not valid_name(name) or not _valid_package(folder):
        raise LabelError(f"{text!r} is not a label; write '//package:name' or ':name'")
    return Label(folder, name)


def valid_name(name: str) -> bool:
    """Return whether a target may be called `name`."""
    return bool(_NAME.fullmatch(name)) and _DOTS.isdisjoint(name.split("/"))


def _valid_package(name: str) -> bool:
    return not name or (bool(_PACKAGE.fullmatch(name)) and _DOTS.isdisjoint(name.split("/")))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One target pattern. `name` is None for all targets of the package, `recursive` adds those below it."""

    text: str
    package: str
    name: str | None
    recursive: bool = False
    negative: bool = False

    def matches(self, label: Label) -> bool:
        """Return whether `label` is one of the targets that this pattern names."""
        if self.recursive:
            return not self.package or label.package == self.package or label.package.startswith(self.package + "/")
        return label.package == self.package and (self.name is None or label.name == self.name)


def parse_pattern(text: str, package: str = "") -> Pattern:
    """Return the pattern that `text` stands for on a command line in the folder `package`. Raises BkError (usage)."""
    body = text.removeprefix("-")
    negative = body != text
    try:
        if body == "..." or body.endswith("/..."):
            folder = body.removesuffix("...").removesuffix("/")
            folder = folder.removeprefix("//") if body.startswith("//") else "/".join(filter(None, [package, folder]))
            folder = folder.removeprefix("/")
            if not _valid_package(folder):
                raise LabelError(f"{text!r} is not a target pattern")
            return Pattern(text, folder, None, recursive=True, negative=negative)
        label = parse_label(f"{body[:-1]}all" if body.endswith(":*") else body, package)
    except LabelError as error:
        raise BadPattern(str(error), text) from error
    name = None if label.name == "all" else label.name
    return Pattern(text, label.package, name, negative=negative)


class BadPattern(UsageError):
    """A word on the command line that is not a target pattern."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__("bad-pattern", message, hint="patterns: //pkg:name, //pkg:all, //pkg/..., -//pkg:name")
        self.text = text
