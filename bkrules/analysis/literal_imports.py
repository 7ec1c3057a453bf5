"""Imports without an import statement, as far as literals tell: calls such as `importlib.import_module("a.b")`, the
names in `pytest_plugins` and `__all__`, and the folders that a file adds to `sys.path`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from bkrules.analysis.module_syntax import parsed

_CALLS = {
    *(
        "import_module",
        "__import__",
        "importorskip",
        "find_spec",
        "run_module",
        "resolve_name",
        "reload",
        "import_string",
    ),
    *(
        "patch",
        "object",
        "setattr",
        "delattr",
        "register_assert_rewrite",
        "load_module",
        "files",
        "path",
        "open_text",
        "read_text",
    ),
}
"""Functions whose texts name modules: of importlib, pytest, runpy, pkgutil, unittest.mock, monkeypatch and importlib.resources."""
_PATH_WORDS = ("sys.path", "addsitedir", "syspath_prepend")
_SAME = {
    "abspath",
    "realpath",
    "normpath",
    "fspath",
    "str",
    "Path",
    "PurePath",
    "resolve",
    "absolute",
    "as_posix",
    "expanduser",
}


def literal_imports(module: ast.Module, *, package: bool) -> Iterator[tuple[int, str]]:
    """Yield the modules that texts of a file name, each with the level of a relative import; `package`: the file is an
    `__init__.py`.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _name(node.func) in _CALLS:
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield from _module(argument.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            if "pytest_plugins" in names:
                yield from (imported for text in _texts(node.value) for imported in _module(text))
            elif package and "__all__" in names:
                yield from (imported for text in _texts(node.value) for imported in _module(f".{text}"))


def _module(text: str) -> Iterator[tuple[int, str]]:
    name = text.lstrip(".")
    parts = name.split(".")
    if all(part.isidentifier() for part in parts):
        yield len(text) - len(name), name


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _texts(node: ast.expr) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def path_entries(source: str, path: str) -> list[str]:
    """Return the folders of the workspace that the file at `path` adds to `sys.path`, as far as they follow from `__file__`."""
    if not any(word in source for word in _PATH_WORDS):
        return []
    module = parsed(source)
    known: dict[str, str] = {"__file__": path}
    for statement in module.body:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            folder = _folder(statement.value, known)
            if folder is not None:
                known[statement.targets[0].id] = folder
    entries = []
    for node in ast.walk(module):
        added: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "sys.path.insert",
            "sys.path.append",
            "site.addsitedir",
        ):
            added = node.args[-1:]
        elif isinstance(node, ast.Call) and _name(node.func) == "syspath_prepend":
            added = node.args[:1]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.path.extend":
            added = list(node.args[0].elts) if node.args and isinstance(node.args[0], ast.List | ast.Tuple) else []
        elif isinstance(node, ast.Assign | ast.AugAssign) and "sys.path" in ast.unparse(node).partition("=")[0]:
            added = [expression for expression in ast.walk(node.value) if isinstance(expression, ast.expr)]
        folders = [_folder(expression, known) for expression in added]
        entries += [
            folder for folder in folders if folder is not None and folder != path and not folder.startswith("..")
        ]
    return list(dict.fromkeys(entries))


def _folder(node: ast.expr, known: dict[str, str]) -> str | None:
    """Return the path below the workspace that an expression computes from `__file__`, or None."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Add):
        return _joined(_folder(node.left, known), [node.right])
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        return _above(_folder(node.value, known), 1)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "parents":
        number = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return _above(_folder(node.value.value, known), number + 1) if isinstance(number, int) else None
    if not isinstance(node, ast.Call):
        return None
    name = _name(node.func)
    inner = node.args[0] if node.args else node.func.value if isinstance(node.func, ast.Attribute) else None
    if name == "joinpath" and isinstance(node.func, ast.Attribute):
        return _joined(_folder(node.func.value, known), node.args)
    if inner is None:
        return None
    if name == "dirname":
        return _above(_folder(inner, known), 1)
    if name == "join":
        return _joined(_folder(inner, known), node.args[1:])
    return _joined(_folder(inner, known), node.args[1:]) if name in _SAME else None


def _above(path: str | None, levels: int) -> str | None:
    for _ in range(levels):
        path = None if path is None else os.path.dirname(path)
    return path


def _joined(path: str | None, parts: list[ast.expr]) -> str | None:
    for part in parts:
        if isinstance(part, ast.Attribute) and part.attr == "pardir":
            text = ".."
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            text = part.value.lstrip("/")  # as in `dirname(__file__) + "/lib"`
        else:
            return None
        path = None if path is None else os.path.normpath(f"{path}/{text}" if path else text)
    return "" if path == "." else path
