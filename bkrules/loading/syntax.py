"""The syntax of build files: what Python they may use, and what it is compiled to.

A build file is checked against a list of syntax. Then what could make loading endless, or let one file change what
belongs to another, is compiled to a call of the `Runtime`: loops and calls of functions are counted, operators that
make large or unordered values are checked, and a change of a list or dictionary asks whether it is frozen.
"""

from __future__ import annotations

import ast
import warnings
from types import CodeType

from bkrules.errors import LoadError

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
# Methods that change their object, or whose result can be much larger than it.
METHODS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault", "popitem"),
    *("copy", "join", "replace", "center", "ljust", "rjust", "zfill", "expandtabs"),
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.LShift: "<<",
    ast.BitOr: "|",
    ast.BitAnd: "&",
    ast.BitXor: "^",
}


def parse(text: bytes, file: str) -> ast.Module:
    """The syntax tree of a build file. Raises LoadError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is said about a build file follows from its bytes alone
            return ast.parse(text, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _syntax_error(error, file) from error


def compiled(tree: ast.Module, file: str) -> CodeType:
    """The code of a tree that was checked. Raises LoadError."""
    try:
        tree = ast.fix_missing_locations(_Rewriter(file).visit(tree))
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
    """Compare a tree with the list. Raises LoadError for the first thing that is not on it."""
    for node in ast.walk(tree):
        found = _forbidden(node)
        if found:
            what, thing, why = found
            raise forbidden(what, thing, f"{file}:{getattr(node, 'lineno', 1)}", why)


def forbidden(what: str, thing: str, where: str, why: str) -> LoadError:
    """The error for something that no build file may use."""
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
    """The line of each argument that is given by name, by the line of its call."""
    lines: dict[int, dict[str, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            lines.setdefault(node.lineno, {}).update(
                (item.arg, item.value.lineno) for item in node.keywords if item.arg
            )
    return lines


def _call(name: str, place: ast.AST, *arguments: ast.expr) -> ast.Call:
    node = ast.Call(ast.Name(f"__{name}", ast.Load()), list(arguments), [])
    return ast.copy_location(node, place)


class _Rewriter(ast.NodeTransformer):
    """Calls of the runtime begin with two underscores, as no name of a build file does."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._functions = 0

    def _function(self, place: ast.AST) -> ast.Call:
        self._functions += 1
        return _call("function", place, ast.Constant(f"{self._file}#{self._functions}"))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.decorator_list = [self._function(node)]
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.generic_visit(node)
        return ast.copy_location(ast.Call(self._function(node), [node], []), node)

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, ast.copy_location(ast.Expr(_call("step", node)), node))
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.ifs.insert(0, _call("step", node.iter))
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        self.generic_visit(node)
        return ast.copy_location(ast.ListComp(node.elt, node.generators), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        operator = _OPERATORS.get(type(node.op))
        return _call("operate", node, ast.Constant(operator), node.left, node.right) if operator else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        operator = _OPERATORS.get(type(node.op))
        if operator is None:
            return node
        name = ast.Constant(f"{operator}=")
        if isinstance(node.target, ast.Name):
            value = _call("operate", node, name, ast.Name(node.target.id, ast.Load()), node.value)
            return ast.copy_location(ast.Assign([node.target], value), node)
        assert isinstance(node.target, ast.Subscript)
        return ast.copy_location(
            ast.Expr(_call("operate_at", node, name, node.target.value, node.target.slice, node.value)), node
        )

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return _call("method", node, node.value, ast.Constant(node.attr)) if node.attr in METHODS else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            node.value = _call("mutable", node, node.value)
        return (
            _call("sized", node, node) if isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load) else node
        )

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = _call("items", node, node.value)
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        spec = node.format_spec or ast.Constant("")
        text = _call("text", node, node.value, ast.Constant(node.conversion), spec)
        return ast.copy_location(ast.FormattedValue(text, -1, None), node)
