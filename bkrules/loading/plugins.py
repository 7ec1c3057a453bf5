"""The plugins of a workspace: the installed ones, without those that its `WORKSPACE.py` excludes.

The names are read by syntax, before any build file is evaluated, since build files may use names from plugins.
"""

from __future__ import annotations

import ast

from bkrules.errors import LoadError
from bkrules.incremental.dependencies import current
from bkrules.loading.root import MARKER
from bkrules.plugin import manager
from bkrules.plugin.installed import Plugins
from bkrules.system.files import read_regular

ARGUMENT = "noplugins"


def load_plugins(root: str | None) -> Plugins:
    """Return the plugins of the workspace at `root`, or all that are installed for None.

    Raises LoadError when the names that the workspace leaves out are not literals, UsageError for a name of --noplugin that no
    plugin has.
    """
    manager.leave_out(left_out(root) if root is not None else ())
    return manager.load()


def left_out(root: str) -> tuple[str, ...]:
    """Return the names in `workspace(noplugins = [...])` of `WORKSPACE.py`. Raises LoadError for anything but a list of literals.

    A file that does not parse has none: its loader reports the error.
    """
    try:
        tree = ast.parse(read_regular(current().note_for_all(f"{root}/{MARKER}")))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    calls = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    ]
    values = [
        word.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "workspace"
        for word in call.keywords
        if word.arg == ARGUMENT
    ]
    return tuple(name for value in values for name in _names(value))


def _names(value: ast.expr) -> list[str]:
    items = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    names = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    if len(names) != len(items) or not isinstance(value, ast.List | ast.Tuple):
        raise LoadError(
            "bad-attribute",
            f"workspace: {ARGUMENT!r} must be a list of names, each written out, but was {ast.unparse(value)}",
            where=f"{MARKER}:{value.lineno}, attribute {ARGUMENT!r}",
            hint=f'write it as in  {ARGUMENT} = ["bk-worker-oci"]',
        )
    return names
