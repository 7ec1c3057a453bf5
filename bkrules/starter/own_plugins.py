"""The plugins in a repository's own folder `plugins`, which its launcher installs from there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.errors import BkError

FOLDER = "plugins"
GROUP = "bk"
"""The group of entry points of plugins."""
_DEFAULT_BACKEND = ("setuptools>=64",)
"""The build backend of a distribution that names none; its first version with editable installation."""


@dataclass(frozen=True)
class OwnPlugin:
    """A plugin of a repository: its folder there, its name as registries normalize it, and the requirements of its build and of
    itself.
    """

    folder: str
    name: str
    requirements: tuple[str, ...]


def own_plugins(root: Path) -> list[OwnPlugin]:
    """Return the distributions in `plugins` of a repository that have an entry point of bk, by their folders.

    Raises BkError for a pyproject.toml that cannot be read.
    """
    found = []
    for path in sorted(root.glob(f"{FOLDER}/*/pyproject.toml")):
        where = str(path.relative_to(root))
        try:
            document = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise _unreadable(where, str(error)) from error
        project = _table(document, "project", where)
        if GROUP in _table(project, "entry-points", where):
            name = project.get("name")
            if not isinstance(name, str):
                raise _unreadable(where, "'project' has no 'name'")
            build = _table(document, "build-system", where)
            needs = [*_texts(build, "requires", where, _DEFAULT_BACKEND), *_texts(project, "dependencies", where)]
            found.append(OwnPlugin(str(path.parent.relative_to(root)), normal(name), tuple(needs)))
    return found


def name_of(requirement: str) -> str:
    """Return the normalized name of the distribution that a requirement names."""
    return normal(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])


def normal(name: str) -> str:
    """Return the name of a distribution as registries normalize it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _table(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise _unreadable(where, f"{name!r} must be a table")
    return value


def _texts(table: Mapping[str, Any], name: str, where: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    values = table.get(name, list(default))
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _unreadable(where, f"{name!r} must be a list of requirements")
    return tuple(values)


def _unreadable(where: str, why: str) -> BkError:
    hint = "the launcher installs the plugins of this repository from their folders, by this file"
    return BkError("bad-plugin", f"bk init: {why}", where=where, hint=hint)
