"""The syntax of build files: the Python that they may use, and its compilation.

A build file is checked against a list of syntax. Constructs that could make loading endless, or let one file change
another's values, are compiled to calls of the `Runtime`: loops and calls cost as many steps as they have parts, every
operation whose cost grows with its values is charged, and a change of a list or dictionary checks whether it is frozen.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any, TypeVar

from bkrules.errors import LoadError
from bkrules.loading.meter import BITS, size_of

SYNTAX: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.If, ast.Pass, ast.FunctionDef, ast.Return),
    *(ast.arguments, ast.arg, ast.Lambda, ast.Call, ast.keyword, ast.Starred, ast.Name, ast.Constant, ast.Attribute),
    *(ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Subscript),
    *(ast.Slice, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.JoinedStr, ast.FormattedValue),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Break, ast.Continue, ast.ImportFrom),
)
_OUT = "it leads out of the build file"
_BYTES = "build files have text and no bytes; codecs belong to the host"
FORBIDDEN_METHODS = {
    **dict.fromkeys(("format", "format_map", "mro"), _OUT),
    **dict.fromkeys(("encode", "decode", "to_bytes", "from_bytes", "hex", "fromhex"), _BYTES),
    **dict.fromkeys(("translate", "maketrans"), "use replace()"),
}
# Frames and code objects lead to the loader's globals.
FORBIDDEN_PREFIXES = ("_", "f_", "gi_", "ag_", "cr_", "tb_", "co_")
DECLARATIONS = "build files are declarations: values, calls, for, if and def"
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
MOST_BYTES = 8 << 20
"""The limit of a build file's size, in bytes."""
DEEPEST = 200
"""The limit of nested syntax. Python's own limit depends on the stack, and so on the caller."""
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
_PLAIN = {
    *(ast.Module, ast.Expr, ast.Assign, ast.For, ast.If, ast.Pass, ast.Return, ast.arguments, ast.Lambda, ast.Call),
    *(ast.keyword, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Subscript, ast.Slice, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.JoinedStr),
    *(ast.FormattedValue, ast.Break, ast.Continue),
}
"""Syntax that is allowed with any content."""
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # as PEP 263 has it
Located = TypeVar("Located", bound=ast.AST)


def parse(text: bytes, file: str) -> ast.Module:
    """Return the syntax tree of a build file. Raises LoadError."""
    if len(text) > MOST_BYTES:
        message = f"{file}: a build file of more than {MOST_BYTES >> 20} MiB is too large"
        raise LoadError("too-large", message, where=f"{file}:1", hint="declare less in one file")
    source = _decoded(text, file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error about a build file follows from its bytes alone
            return ast.parse(source, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _syntax_error(error, file) from error


def _decoded(text: bytes, file: str) -> str:
    """Return the text of a build file. It is UTF-8, whatever the locale; a byte order mark may begin it."""
    for number, line in enumerate(text.split(b"\n", 2)[:2], 1):
        cookie = _COOKIE.match(line)
        if cookie and cookie[1].lower().replace(b"_", b"-") not in (
            b"utf-8",
            b"utf8",
            b"utf-8-sig",
            b"ascii",
            b"us-ascii",
        ):
            message = (
                f"{file}: a build file is UTF-8, but this one says that it is {cookie[1].decode('ascii', 'replace')}"
            )
            raise LoadError(
                "syntax-error", message, where=f"{file}:{number}", hint="save it as UTF-8, without that line"
            )
    try:
        return text.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line_number = text.count(b"\n", 0, error.start) + 1
        message = f"{file}: a build file is UTF-8, but this one has the byte 0x{text[error.start]:02x} there"
        raise LoadError("syntax-error", message, where=f"{file}:{line_number}", hint="save it as UTF-8") from error


def compiled(tree: ast.Module, file: str) -> CodeType:
    """Return the code of a checked tree. Raises LoadError."""
    try:
        tree = _Rewriter(file).visit(tree)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code: CodeType = compile(tree, file, "exec", dont_inherit=True)
            return code
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _syntax_error(error, file) from error


def _syntax_error(error: Exception, file: str) -> LoadError:
    line = getattr(error, "lineno", None) or 1
    message = getattr(error, "msg", "") or str(error) or "an expression is nested too deeply"
    return LoadError("syntax-error", f"{file}: {message}", where=f"{file}:{line}")


def check(tree: ast.Module, file: str) -> None:
    """Check a tree against the list. Raises LoadError for the first node that is not on it."""
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        for node in level:
            found = _forbidden(node) if type(node) not in _PLAIN else None
            if found:
                what, thing, why = found
                raise forbidden(what, thing, f"{file}:{getattr(node, 'lineno', 1)}", why)
        level = [below for node in level for below in _below(node)]
        if not level:
            return
    where = next((f"{file}:{node.lineno}" for node in level if isinstance(node, ast.expr | ast.stmt)), f"{file}:1")
    message = f"{file}: an expression is nested too deeply, more than {DEEPEST} times"
    raise LoadError("syntax-error", message, where=where, hint="give a part of it a name")


def _below(node: ast.AST) -> Iterator[ast.AST]:
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            for one in value:
                if isinstance(one, ast.AST):
                    yield one
        elif isinstance(value, ast.AST) and name != "ctx":
            yield value


def forbidden(what: str, thing: str, where: str, why: str) -> LoadError:
    """Return the error for a construct that build files may not use."""
    file = where.rpartition(":")[0]
    return LoadError(f"forbidden-{what}", f"{file}: {thing} is not allowed in a build file", where=where, hint=why)


def _forbidden(node: ast.AST) -> tuple[str, str, str] | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
        why = "only `from bkrules import ...` at the top level is allowed"
        return "import", f"import of {modules[0]!r}", why
    if not isinstance(node, SYNTAX):
        why = "loading ends: loop over a list or a range" if isinstance(node, ast.While) else DECLARATIONS
        return "syntax", f"{type(node).__name__.lower()!r}", why
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return "syntax", "a bytes literal", _BYTES
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value.bit_length() > BITS:
        return "syntax", f"a number of more than {BITS:,} bits", "write it as text"
    if isinstance(node, ast.Starred) and isinstance(node.ctx, ast.Store) and not isinstance(node.value, ast.Name):
        return "syntax", "an assignment with a star to something other than a name", DECLARATIONS
    if isinstance(node, ast.FunctionDef) and node.decorator_list:
        return "syntax", "a decorator", DECLARATIONS
    if isinstance(node, ast.Attribute):
        if node.attr.startswith(FORBIDDEN_PREFIXES):
            return "attribute", f"the attribute {node.attr!r}", _OUT
        if node.attr in FORBIDDEN_METHODS:
            return "attribute", f"the attribute {node.attr!r}", FORBIDDEN_METHODS[node.attr]
        if not isinstance(node.ctx, ast.Load):
            return "syntax", f"an assignment to the attribute {node.attr!r}", "use a dictionary"
    target = node.target if isinstance(node, ast.AugAssign) else None
    if isinstance(target, ast.Subscript) and any(isinstance(part, ast.Slice) for part in ast.walk(target.slice)):
        return "syntax", "an augmented assignment to a slice", "assign to the slice"
    return _forbidden_name(node)


def _forbidden_name(node: ast.AST) -> tuple[str, str, str] | None:
    name = ""
    if isinstance(node, ast.Name):
        name = node.id
    elif isinstance(node, ast.FunctionDef):
        name = node.name
    elif isinstance(node, ast.arg):
        name = node.arg
    return ("name", f"the name {name!r}", _OUT) if name.startswith("__") else None


def attribute_lines(tree: ast.Module) -> dict[int, dict[str, int]]:
    """Return the line of each keyword argument, by the line of its call."""
    lines: dict[int, dict[str, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            lines.setdefault(node.lineno, {}).update(
                (item.arg, item.value.lineno) for item in node.keywords if item.arg
            )
    return lines


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
        found: list[Any] = []
        for one in nodes:
            new = self.visit(one) if isinstance(one, ast.AST) else one
            if isinstance(new, list):
                found += new
            else:
                found.append(new)
        nodes[:] = found

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
        for one in node.generators:
            one.ifs[:0] = [_call("step", node, _constant(cost, node)), *_rests(node, [one.target])]
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
        names = [_COMPARISONS.get(type(one), "") for one in node.ops]
        if not any(names):
            return node  # identity
        if len(names) == 1:
            return _call("compare", node, _constant(names[0], node), node.left, node.comparators[0])
        node.left = _call("weighed", node, node.left)
        node.comparators = [_call("weighed", node, one) for one in node.comparators]
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
        self._cost += sum(size_of(one.value) for one in node.values if isinstance(one, ast.Constant))
        return node

    def _formatted_value(self, node: ast.FormattedValue, _cost: int) -> ast.AST:
        spec = node.format_spec or _constant("", node)
        text = _call("text", node, node.value, _constant(node.conversion, node), spec)
        return _at(ast.FormattedValue(text, -1, None), node)


def _has_slice(index: ast.expr) -> bool:
    return isinstance(index, ast.Tuple) and any(isinstance(one, ast.Slice) for one in index.elts)


def _rests(place: ast.AST, targets: Iterable[ast.AST]) -> list[ast.expr]:
    """Return a check of the lists that an assignment makes for starred names, if any."""
    names = [
        one.value.id
        for target in targets
        if not isinstance(target, ast.Name)
        for one in ast.walk(target)
        if isinstance(one, ast.Starred) and isinstance(one.ctx, ast.Store) and isinstance(one.value, ast.Name)
    ]
    return [_call("rest", place, *(_at(ast.Name(name, ast.Load()), place) for name in names))] if names else []
