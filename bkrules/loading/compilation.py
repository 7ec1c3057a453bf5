"""The compilation of build files: a checked tree becomes code that calls the `Runtime`.

Loops and calls cost as many steps as they have parts, every operation whose cost grows with its values is charged, and
a change of a list or dictionary checks whether it is frozen.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, TypeVar

from bkrules.loading.meter import size_of
from bkrules.loading.syntax import syntax_error

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.MatMult: "@",
    ast.Pow: "**",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitOr: "|",
    ast.BitAnd: "&",
    ast.BitXor: "^",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
# The steps of evaluating one node: memory counts, see `meter.py`. The default is one.
_COSTS: dict[type[ast.AST], int] = {
    ast.Dict: 4,
    ast.DictComp: 4,
    ast.ListComp: 4,
    ast.GeneratorExp: 4,
    ast.Lambda: 8,
    ast.FunctionDef: 8,
    ast.List: 2,
    ast.Tuple: 2,
}
_LEAVES = {ast.Name, ast.Constant, *ast.expr_context.__subclasses__(), *ast.cmpop.__subclasses__()}
Located = TypeVar("Located", bound=ast.AST)


def compiled(tree: ast.Module, file: str) -> CodeType:
    """Return the code of a checked tree. Raises LoadError."""
    try:
        tree = _Rewriter(file).visit(tree)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code: CodeType = compile(tree, file, "exec", dont_inherit=True)
            return code
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise syntax_error(error, file) from error


def _at(node: Located, place: ast.AST) -> Located:
    """Return a node with the place of another."""
    node.lineno, node.col_offset = place.lineno, place.col_offset  # type: ignore[attr-defined]  # statements and expressions
    node.end_lineno, node.end_col_offset = place.end_lineno, place.end_col_offset  # type: ignore[attr-defined]
    return node


def _constant(value: str | int, place: ast.AST) -> ast.Constant:
    return _at(ast.Constant(value), place)


def _call(name: str, place: ast.AST, *arguments: ast.expr) -> ast.Call:
    return _at(ast.Call(_at(ast.Name(f"__{name}", ast.Load()), place), list(arguments), []), place)


class _Rewriter:
    """Rewrites a tree for the runtime, whose functions begin with two underscores, as no name of a build file does."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._functions = 0
        self._cost = 0  # of all nodes visited so far
        self._visitors: dict[type[ast.AST], Callable[[Any, int], Any]] = {
            ast.FunctionDef: self._function_def,
            ast.Lambda: self._lambda,
            ast.For: self._for,
            ast.ListComp: self._list_comp,
            ast.GeneratorExp: self._generator_exp,
            ast.DictComp: self._dict_comp,
            ast.Dict: self._dict,
            ast.BinOp: self._bin_op,
            ast.Compare: self._compare,
            ast.Assign: self._assign,
            ast.AugAssign: self._aug_assign,
            ast.Attribute: self._attribute,
            ast.Subscript: self._subscript,
            ast.Starred: self._starred,
            ast.keyword: self._keyword,
            ast.JoinedStr: self._joined_str,
            ast.FormattedValue: self._formatted_value,
        }

    def visit(self, node: Any) -> Any:
        """Return a node as it is compiled, or statements in its place; its children come first."""
        kind = type(node)
        before = self._cost
        self._cost += _COSTS.get(kind, 1)
        if kind in _LEAVES:
            return node
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                self._visit_all(value)
            elif isinstance(value, ast.AST) and name not in ("ctx", "op"):
                setattr(node, name, self.visit(value))
        visitor = self._visitors.get(kind)
        return visitor(node, self._cost - before) if visitor is not None else node

    def _visit_all(self, nodes: list[Any]) -> None:
        visited: list[Any] = []
        for node in nodes:
            new = self.visit(node) if isinstance(node, ast.AST) else node
            if isinstance(new, list):
                visited += new
            else:
                visited.append(new)
        nodes[:] = visited

    def _function(self, place: ast.AST, cost: int) -> ast.Call:
        self._functions += 1
        return _call("function", place, _constant(f"{self._file}#{self._functions}", place), _constant(cost, place))

    def _function_def(self, node: ast.FunctionDef, cost: int) -> ast.AST:
        node.decorator_list = [self._function(node, cost)]
        return node

    def _lambda(self, node: ast.Lambda, cost: int) -> ast.AST:
        return _at(ast.Call(self._function(node, cost), [node], []), node)

    def _for(self, node: ast.For, cost: int) -> ast.AST:
        checks = [_call("step", node, _constant(cost, node)), *_rests(node, [node.target])]
        node.body[:0] = [_at(ast.Expr(check), node) for check in checks]
        return node

    def _list_comp(self, node: ast.ListComp, cost: int) -> ast.ListComp:
        for generator in node.generators:
            generator.ifs[:0] = [_call("step", node, _constant(cost, node)), *_rests(node, [generator.target])]
        return node

    def _generator_exp(self, node: ast.GeneratorExp, cost: int) -> ast.AST:
        return self._list_comp(_at(ast.ListComp(node.elt, node.generators), node), cost)

    def _dict_comp(self, node: ast.DictComp, cost: int) -> ast.AST:
        pair = _at(ast.Tuple([node.key, node.value], ast.Load()), node)
        return _call("dict", node, self._list_comp(_at(ast.ListComp(pair, node.generators), node), cost))

    def _dict(self, node: ast.Dict, _cost: int) -> ast.AST:
        if all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys):
            return node
        parts: list[ast.expr] = []
        for key, value in zip(node.keys, node.values, strict=True):
            words = [value] if key is None else [key, value]
            parts.append(_at(ast.Tuple(words, ast.Load()), node))
        return _call("dict", node, _at(ast.Tuple(parts, ast.Load()), node))

    def _bin_op(self, node: ast.BinOp, _cost: int) -> ast.AST:
        return _call("operate", node, _constant(_OPERATORS[type(node.op)], node), node.left, node.right)

    def _compare(self, node: ast.Compare, _cost: int) -> ast.AST:
        names = [_COMPARISONS.get(type(operator), "") for operator in node.ops]
        if not any(names):
            return node  # identity
        if len(names) == 1:
            return _call("compare", node, _constant(names[0], node), node.left, node.comparators[0])
        node.left = _call("weighed", node, node.left)
        node.comparators = [_call("weighed", node, operand) for operand in node.comparators]
        return node

    def _assign(self, node: ast.Assign, _cost: int) -> list[ast.AST]:
        return [node, *(_at(ast.Expr(check), node) for check in _rests(node, node.targets))]

    def _aug_assign(self, node: ast.AugAssign, _cost: int) -> ast.AST:
        name = _constant(f"{_OPERATORS[type(node.op)]}=", node)
        if isinstance(node.target, ast.Name):
            value = _call("operate", node, name, _at(ast.Name(node.target.id, ast.Load()), node), node.value)
            return _at(ast.Assign([node.target], value), node)
        assert isinstance(node.target, ast.Subscript) and isinstance(node.target.value, ast.Call)
        (container,) = node.target.value.args  # of __place
        return _at(ast.Expr(_call("operate_at", node, name, container, node.target.slice, node.value)), node)

    def _attribute(self, node: ast.Attribute, _cost: int) -> ast.AST:
        return _call("method", node, node.value, _constant(node.attr, node))

    def _subscript(self, node: ast.Subscript, _cost: int) -> ast.AST:
        if isinstance(node.ctx, ast.Store):
            node.value = _call("place", node, node.value)
            return node
        if isinstance(node.slice, ast.Slice):
            return _call("made", node, node)
        if (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)) or _has_slice(node.slice):
            return node
        return _call("item", node, node.value, node.slice)

    def _starred(self, node: ast.Starred, _cost: int) -> ast.AST:
        if isinstance(node.ctx, ast.Load):
            node.value = _call("items", node, node.value)
        return node

    def _keyword(self, node: ast.keyword, _cost: int) -> ast.AST:
        if node.arg is None:
            node.value = _call("mapping", node, node.value)
        return node

    def _joined_str(self, node: ast.JoinedStr, _cost: int) -> ast.AST:
        self._cost += sum(size_of(part.value) for part in node.values if isinstance(part, ast.Constant))
        return node

    def _formatted_value(self, node: ast.FormattedValue, _cost: int) -> ast.AST:
        spec = node.format_spec or _constant("", node)
        text = _call("text", node, node.value, _constant(node.conversion, node), spec)
        return _at(ast.FormattedValue(text, -1, None), node)


def _has_slice(index: ast.expr) -> bool:
    return isinstance(index, ast.Tuple) and any(isinstance(element, ast.Slice) for element in index.elts)


def _rests(place: ast.AST, targets: Iterable[ast.AST]) -> list[ast.expr]:
    """Return a check of the lists that an assignment makes for starred names, if any."""
    names = [
        inner.value.id
        for target in targets
        if not isinstance(target, ast.Name)
        for inner in ast.walk(target)
        if isinstance(inner, ast.Starred) and isinstance(inner.ctx, ast.Store) and isinstance(inner.value, ast.Name)
    ]
    return [_call("rest", place, *(_at(ast.Name(name, ast.Load()), place) for name in names))] if names else []
