"""The names that a build file imports from bkrules and from plugins, found in its syntax."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from bkrules.errors import BkError, LoadError, did_you_mean
from bkrules.loading.macro import Load, load_of
from bkrules.loading.modules import FUNCTION, Named, named_by
from bkrules.loading.syntax import forbidden

ONLY_IN_WORKSPACE = ("workspace",)
NamesOf = Callable[[str], Mapping[str, Callable[..., Any]] | None]


def take_imports(
    tree: ast.Module,
    file: str,
    names: Mapping[str, Callable[..., Any]],
    names_of: NamesOf,
) -> tuple[dict[str, Any], list[Load], dict[str, Named]]:
    """Return the names that a file imports, its loads, and the modules that it names; all in order.

    Removes them from the tree. Raises LoadError.
    """
    imported: dict[str, Any] = {}
    rest: list[ast.stmt] = []
    loads: list[Load] = []
    for statement in tree.body:
        module = statement.module if isinstance(statement, ast.ImportFrom) and not statement.level else None
        where = f"{file}:{statement.lineno}"
        known = names if module == "bkrules" else _of_plugin(module, names_of, where) if module else None
        if isinstance(statement, ast.ImportFrom) and module and known is not None:
            for item in statement.names:
                imported[item.asname or item.name] = _imported(item, known, where, module)
        else:
            rest.append(statement)
    of_load = {name for name, value in imported.items() if value is names["load"]}
    of_modules = {name for name, value in imported.items() if value is names.get(FUNCTION)}
    modules: dict[str, Named] = {}
    tree.body = []
    for statement in rest:
        load = load_of(statement, of_load, file)
        named = named_by(statement, of_modules, file)
        if load is not None:
            loads.append(load)
        elif named is None:
            tree.body.append(statement)
        elif modules.setdefault(*named) != named[1]:
            what, where = f"{file}: the module {named[0]!r} is named twice", f"{file}:{named[1].line}"
            hint = f"the first one is in line {modules[named[0]].line}"
            raise LoadError("duplicate-name", what, where=where, hint=hint)
    return imported, loads, modules


def _of_plugin(module: str, names_of: NamesOf, where: str) -> Mapping[str, Callable[..., Any]] | None:
    """Return the rules of a plugin's module; None for a module that is no plugin's. Raises LoadError for a broken plugin."""
    try:
        return names_of(module)
    except BkError as error:
        message = f"{where.rpartition(':')[0]}: {error.message}"
        raise LoadError(error.reason, message, where=where, hint=error.hint) from error


def _imported(item: ast.alias, names: Mapping[str, Callable[..., Any]], where: str, module: str) -> Callable[..., Any]:
    if item.name not in names and item.name in ONLY_IN_WORKSPACE:
        raise LoadError(
            "unknown-rule",
            f"{where.rpartition(':')[0]}: {item.name!r} is not available in a build file",
            where=where,
            hint="it stands in WORKSPACE.py alone",
        )
    if item.name not in names:
        raise LoadError(
            "unknown-rule",
            f"{where.rpartition(':')[0]}: {module} has no rule {item.name!r}",
            where=where,
            hint=did_you_mean(item.name, names, "rules"),
        )
    if (item.asname or "").startswith("__"):
        raise forbidden("name", f"the name {item.asname!r}", where, "it leads out of the build file")
    return names[item.name]
