"""The options that name a user's own files in place of what build files declare: `--override_tool`, `--override_module`.

A relative path is relative to the folder in which the command was given, `%workspace%` at its beginning is the folder of
WORKSPACE.py, as in Bazel. An option without a path undoes earlier ones, such as those of a `.bkrc`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from bkrules.errors import UsageError
from bkrules.incremental.dependencies import current
from bkrules.loading.root import root_of
from bkrules.model.label import LabelError, is_module, parse_label
from bkrules.system.files import open_regular

# Not imported from the modules that apply them, which load all rules: a copy of images needs none.
MODULE, TOOL = "--override_module", "--override_tool"
_WORKSPACE = "%workspace%"
_ELF, _SCRIPT = b"\x7fELF", b"#!"
_HEADER = 20
_MACHINE = slice(18, _HEADER)
"""The place of the architecture in the header of an ELF file."""
_NAME = re.compile(r"[\w.+-]+").fullmatch


def add_own_files(group: Any) -> None:
    """Add the options to a group of a parser."""
    group.add_argument(
        TOOL,
        TOOL.replace("_", "-"),
        action="append",
        default=[],
        type=_tool,
        metavar="NAME=PATH",
        help="a binary of this machine, or a target //pkg:name, in place of the tool NAME of all workers; without one, the tool as "
        "declared",
    )
    add_modules(group, "; or build every tool that uses the Go module MODULE from the sources in DIR")


def add_modules(group: Any, more: str = "") -> None:
    """Add `--override_module` to a parser, or to a group of one. `more` is more of its help."""
    group.add_argument(
        MODULE,
        MODULE.replace("_", "-"),
        action="append",
        default=[],
        type=_module,
        metavar="MODULE=DIR",
        help=f"use the folder DIR in place of the module MODULE of build files{more}; without a DIR, as declared",
    )


def module_folders(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the folders of modules of build files, by name. Raises UsageError."""
    given = getattr(arguments, "override_module", [])
    return {name: path for name, path in _once(MODULE, given) if is_module(name)}


def own_modules(arguments: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """Return the paths of Go modules, each with the absolute path of the folder that replaces it. Raises UsageError."""
    return tuple(pair for pair in _once(MODULE, arguments.override_module) if not is_module(pair[0]))


def own_tools(arguments: argparse.Namespace, name: str = "", default: str = "") -> tuple[tuple[str, str], ...]:
    """Return the names of tools, each with the absolute path of the binary that replaces it.

    `default` is the binary for the tool `name` unless an option names that tool. Raises UsageError and ArgumentTypeError.
    """
    given = arguments.override_tool
    if default and not any(tool == name for tool, _ in given):
        given = [*given, _tool(f"{name}={default}")]
    return _once(TOOL, given)


def _once(option: str, given: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the pairs in force. Raises UsageError when a name has two values."""
    found: dict[str, str] = {}
    for name, path in given:
        if not path:
            found.pop(name, None)
        elif found.setdefault(name, path) != path:
            hint = f"to replace the one of a .bkrc, undo it first:  {option}={name}= {option}={name}={path}"
            raise UsageError("usage", f"{option}={name} is given twice: {found[name]} and {path}", hint=hint)
    return tuple(sorted(found.items()))


def _pair(text: str, what: str) -> tuple[str, str]:
    """Return a name and an absolute path, which is empty when there is none."""
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"must be {what}, but was {text!r}")
    if not path:
        return name, ""
    if path == _WORKSPACE or path.startswith(f"{_WORKSPACE}/"):
        path = (root_of(".") or ".") + path.removeprefix(_WORKSPACE)
    return name, os.path.abspath(path)


def _tool(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    path = value if value.startswith(("//", "@")) else _pair(text, "NAME=PATH")[1]
    if not _NAME(name):
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, and {name!r} is no name of a tool")
    if path.startswith(("//", "@")):
        return name, _label(path)
    fault = _fault(path) if path else ""
    if fault:
        raise argparse.ArgumentTypeError(f"{name}: {path} {fault}")
    return name, path


def _module(text: str) -> tuple[str, str]:
    module, path = _pair(text, "MODULE=DIR")
    if path and not os.path.isdir(current().note(path)):
        raise argparse.ArgumentTypeError(
            f"{module}: {path} {'is not a folder' if os.path.exists(path) else 'does not exist'}"
        )
    return module, path


def _label(text: str) -> str:
    try:
        return str(parse_label(text))
    except LabelError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _fault(path: str) -> str:
    """Return why a file cannot be a tool, or an empty text."""
    current().note(path)
    if not os.path.exists(path):
        return "does not exist"
    if not os.path.isfile(path):
        return "is a folder" if os.path.isdir(path) else "is not a regular file"
    if not os.stat(path).st_mode & 0o111:
        return f"is not executable; make it so:  chmod +x {path}"
    try:
        header, own = _header(path), _header(sys.executable)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if header.startswith(_SCRIPT):
        return ""
    if not header.startswith(_ELF):
        return "is neither an ELF binary nor a script"
    return "" if header[_MACHINE] == own[_MACHINE] else "is a binary for another architecture than this machine's"


def _header(path: str) -> bytes:
    with open_regular(path) as file:
        return file.read(_HEADER)
