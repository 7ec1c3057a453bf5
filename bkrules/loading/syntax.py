"""The syntax that build files may use: a list against which each file is checked.

Constructs that could make loading endless, or let one file change another's values, are on the list, and compiled to
calls of the `Runtime` (`compilation.py`).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from bkrules.errors import LoadError
from bkrules.loading.meter import BITS, MOST_BYTES

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
DEEPEST = 200
"""The limit of nested syntax. Python's own limit depends on the stack, and so on the caller."""
_PLAIN = {
    *(ast.Module, ast.Expr, ast.Assign, ast.For, ast.If, ast.Pass, ast.Return, ast.arguments, ast.Lambda, ast.Call),
    *(ast.keyword, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Subscript, ast.Slice, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.JoinedStr),
    *(ast.FormattedValue, ast.Break, ast.Continue),
}
"""Syntax that is allowed with any content."""
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # as PEP 263 has it


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
        raise syntax_error(error, file) from error


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


def syntax_error(error: Exception, file: str) -> LoadError:
    """Return the error for a build file that Python cannot parse or compile."""
    line = getattr(error, "lineno", None) or 1
    message = getattr(error, "msg", "") or str(error) or "an expression is nested too deeply"
    return LoadError("syntax-error", f"{file}: {message}", where=f"{file}:{line}")


def check(tree: ast.Module, file: str) -> None:
    """Check a tree against the list. Raises LoadError for the first node that is not on it."""
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        for node in level:
            refusal = _forbidden(node) if type(node) not in _PLAIN else None
            if refusal:
                what, thing, why = refusal
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
            for item in value:
                if isinstance(item, ast.AST):
                    yield item
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
