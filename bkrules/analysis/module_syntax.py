"""The syntax of one test module: the names that it binds, and the marks that it writes."""

from __future__ import annotations

import ast
import functools
from collections import Counter

MARK = "pytest.mark."
Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.lru_cache(maxsize=256)
def parsed(source: str) -> ast.Module:
    """Return the syntax of a source, which callers must not change. Raises SyntaxError."""
    try:
        return ast.parse(source)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nesting beyond Python's limit
        raise SyntaxError(str(error) or "it is nested too deeply") from error


def is_test(name: str) -> bool:
    """Return whether pytest collects a function of this name."""
    return name.startswith("test")


def is_test_class(name: str) -> bool:
    """Return whether pytest collects a class of this name."""
    return name.startswith("Test")


def mark_name(node: ast.expr) -> str:
    """Return the name of a mark, `pytest.mark.NAME` or `mark.NAME`, called or not; empty for any other expression."""
    start, _, name = ast.unparse(callee(node)).rpartition(".")
    return name if start in ("pytest.mark", "mark") else ""


def is_pytestmark(node: ast.stmt) -> bool:
    """Return whether a statement is just `pytestmark = ...`."""
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]


def pytestmark(node: ast.stmt) -> list[ast.expr]:
    """Return the marks that `pytestmark = ...` gives to all tests of a module or class."""
    if not isinstance(node, ast.Assign) or not is_pytestmark(node):
        return []
    return node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]


def callee(node: ast.expr) -> ast.expr:
    """Return the function of a call; any other expression itself."""
    return node.func if isinstance(node, ast.Call) else node


def bound_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a known kind binds."""
    if isinstance(node, Function | ast.ClassDef):
        # A setter has the name of its property.
        again = any(
            isinstance(decorator, ast.Attribute) and decorator.attr in ("setter", "deleter")
            for decorator in node.decorator_list
        )
        return [] if again else [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        tops = [item.asname or item.name.partition(".")[0] for item in node.names if item.name != "*"]
        return [] if isinstance(node, ast.Import) and all("." in item.name for item in node.names) else tops
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return []


def is_generator(node: Function) -> bool:
    """Return whether a function is a generator."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(inner, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(inner)
    return False


@functools.lru_cache(maxsize=256)
def bindings(module: ast.Module) -> Counter[str]:
    """Return how often a module binds each name outside of functions and classes, or declares it as global in one."""
    counts: Counter[str] = Counter()
    waiting: list[tuple[ast.AST, bool]] = [(statement, True) for statement in module.body]
    while waiting:
        node, is_outside = waiting.pop()
        if isinstance(node, ast.Global):
            counts.update(node.names)
        elif is_outside:
            if isinstance(node, Function | ast.ClassDef):
                counts[node.name] += 1
                is_outside = False
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                counts[node.id] += 1
            elif isinstance(node, ast.alias):
                counts[node.asname or node.name.partition(".")[0]] += 1
        if is_outside or isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            waiting += [(inner, is_outside) for inner in ast.iter_child_nodes(node)]
    return counts
