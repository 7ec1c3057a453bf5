"""One WORKSPACE.py or BUILD.py: its bytes become targets.

Build files are Python without its ways out: a whitelist of syntax, a short list of builtins, no attribute that starts
with an underscore, and no import but `from bkrules import ...`. What is left computes values from literals, so
loading depends on nothing but the file's bytes.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from bkrules.errors import LoadError, did_you_mean
from bkrules.label import Label, valid_name
from bkrules.rule import Location, Rule, Target, check_attributes

# Without set, hash, id, repr of objects and the like: their order or value changes from run to run.
BUILTINS = (
    *(
        "False",
        "None",
        "True",
        "abs",
        "all",
        "any",
        "bool",
        "dict",
        "divmod",
        "enumerate",
        "filter",
        "int",
        "isinstance",
    ),
    *("len", "list", "map", "max", "min", "range", "reversed", "round", "sorted", "str", "sum", "tuple", "zip"),
)

SYNTAX: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.If, ast.Pass, ast.FunctionDef, ast.Return),
    *(ast.arguments, ast.arg, ast.Lambda, ast.Call, ast.keyword, ast.Starred, ast.Name, ast.Constant, ast.Attribute),
    *(ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Subscript),
    *(ast.Slice, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.JoinedStr, ast.FormattedValue),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Break, ast.Continue, ast.ImportFrom),
)
FORBIDDEN_METHODS = ("format", "format_map", "mro")
FORBIDDEN_PREFIXES = (
    "_",
    "f_",
    "gi_",
    "ag_",
    "cr_",
    "tb_",
    "co_",
)  # frames and code objects lead to the loader's globals
EXPLAINED = {
    "open": "build files do no I/O; name the file as a label in an attribute instead",
    "print": "build files have no output; use `bk query` to see what they declare",
    "set": "the order of a set changes from run to run; use a list or a dict",
}


@dataclass
class Package:
    """The targets of one file, by name. `workspace` is what a WORKSPACE.py said of itself."""

    name: str
    file: str
    targets: dict[str, Target] = field(default_factory=dict)
    workspace: str = ""


def load(text: bytes, file: str, package: str, rules: Mapping[str, Rule], *, top: bool = False) -> Package:
    """The targets that `text` declares. `file` names it in errors; `top` allows `workspace()`. Raises LoadError."""
    loader = _Loader(Package(package, file), rules, top)
    loader.run(text)
    return loader.package


_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_GUARD = "__no_set"


def _no_set(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        raise TypeError("the order of a set changes from run to run; use a list or a dict")
    return value


class _SetGuard(ast.NodeTransformer):
    """Dictionary views have operators that make sets."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr | ast.BitAnd | ast.BitXor | ast.Sub):
            return node
        return ast.copy_location(ast.Call(ast.Name(_GUARD, ast.Load()), [node], []), node)


class _Loader:
    def __init__(self, package: Package, rules: Mapping[str, Rule], top: bool) -> None:
        self.package = package
        self.rules = rules
        self.names: dict[str, Callable[..., None]] = {name: self._callable(rule) for name, rule in rules.items()}
        if top:
            self.names["workspace"] = self._workspace
        self.lines: dict[int, dict[str, int]] = {}

    def run(self, text: bytes) -> None:
        file = self.package.file
        scope = {name: getattr(builtins, name) for name in BUILTINS}
        scope = {"__builtins__": {**scope, _GUARD: _no_set}, "__name__": file}
        try:
            tree = ast.parse(text, file)
            self._check(tree, scope)
            tree = ast.fix_missing_locations(_SetGuard().visit(tree))
            code: CodeType = compile(tree, file, "exec", dont_inherit=True)
        except LoadError:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            message = getattr(error, "msg", "") or str(error) or "an expression is nested too deeply"
            raise LoadError("syntax-error", f"{file}: {message}", where=f"{file}:{line}") from error
        try:
            exec(code, scope)
        except LoadError:
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _check(self, tree: ast.Module, scope: dict[str, Any]) -> None:
        body = []
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module == "bkrules" and not statement.level:
                self._import(statement, scope)
            else:
                body.append(statement)
        tree.body = body
        for node in ast.walk(tree):
            self._check_node(node)
            if isinstance(node, ast.Call):
                attributes = {item.arg: item.value.lineno for item in node.keywords if item.arg}
                self.lines.setdefault(node.lineno, {}).update(attributes)

    def _import(self, statement: ast.ImportFrom, scope: dict[str, Any]) -> None:
        for item in statement.names:
            if item.name not in self.names:
                raise LoadError(
                    "unknown-rule",
                    f"{self.package.file}: bkrules has no rule {item.name!r}",
                    where=f"{self.package.file}:{statement.lineno}",
                    hint=did_you_mean(item.name, self.names, "rules"),
                )
            if (item.asname or "").startswith("__"):
                raise self._refuse(
                    statement.lineno, "name", f"the name {item.asname!r}", "it leads out of the build file"
                )
            scope[item.asname or item.name] = self.names[item.name]

    def _check_node(self, node: ast.AST) -> None:
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            raise self._refuse(
                line,
                "import",
                f"import of {modules[0]!r}",
                "only `from bkrules import ...` at the top level is allowed",
            )
        if not isinstance(node, SYNTAX):
            raise self._refuse(
                line,
                "syntax",
                f"{type(node).__name__.lower()!r}",
                "build files are declarations: values, calls, for, if and def",
            )
        if isinstance(node, ast.Attribute) and (
            node.attr.startswith(FORBIDDEN_PREFIXES) or node.attr in FORBIDDEN_METHODS
        ):
            raise self._refuse(line, "attribute", f"the attribute {node.attr!r}", "it leads out of the build file")
        name = node.id if isinstance(node, ast.Name) else node.name if isinstance(node, ast.FunctionDef) else ""
        if name.startswith("__"):
            raise self._refuse(line, "name", f"the name {name!r}", "it leads out of the build file")
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            raise self._refuse(
                line, "syntax", "a decorator", "build files are declarations: values, calls, for, if and def"
            )

    def _refuse(self, line: int, what: str, thing: str, why: str) -> LoadError:
        file = self.package.file
        return LoadError(
            f"forbidden-{what}", f"{file}: {thing} is not allowed in a build file", where=f"{file}:{line}", hint=why
        )

    def _explain(self, error: Exception) -> LoadError:
        file = self.package.file
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f"{file}:{frames[-1].lineno if frames else 1}"
        if isinstance(error, NameError) and error.name:
            name = error.name
            hint = EXPLAINED.get(name) or (
                f"write `from bkrules import {name}` first"
                if name in self.names
                else did_you_mean(name, [*self.names, *BUILTINS[3:]], "available")
            )
            if hasattr(builtins, name) and name not in EXPLAINED:
                hint = "build files are evaluated without the host: only pure builtins are there\n" + hint
            return LoadError(
                "unknown-name", f"{file}: {name!r} is not available in a build file", where=where, hint=hint
            )
        return LoadError("evaluation", f"{file}: {type(error).__name__}: {error}", where=where)

    def _callable(self, rule: Rule) -> Callable[..., None]:
        def declare(*args: Any, **given: Any) -> None:
            self._declare(rule, self._where(sys._getframe(1).f_lineno), args, given)

        declare.__name__ = rule.name
        return declare

    def _where(self, line: int) -> Location:
        return Location(self.package.file, line, self.lines.get(line, {}))

    def _declare(self, rule: Rule, where: Location, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if args:
            raise LoadError(
                "positional", f"{rule.name}: attributes are given by name, but {args[0]!r} was not", where=str(where)
            )
        name = given.get("name")
        if not isinstance(name, str) or not valid_name(name):
            raise LoadError(
                "bad-name",
                f"{rule.name}: 'name' must be a target name, but was {name!r}",
                where=where.of("name"),
                hint='for example: name = "busybox"',
            )
        label = Label(self.package.name, name)
        for attribute, value in given.items():
            if _ADDRESS.search(repr(value)):
                raise LoadError(
                    "bad-attribute", f"{label}: {attribute!r} has an object's address in it", where=where.of(attribute)
                )
        if name in self.package.targets:
            first = self.package.targets[name].location
            raise LoadError(
                "duplicate-name", f"{label}: declared twice", where=str(where), hint=f"the first one is at {first}"
            )
        attributes, extra = check_attributes(rule, label, given, where)
        self.package.targets[name] = Target(label, rule, attributes, extra, where)

    def _workspace(self, *, name: str) -> None:
        if not isinstance(name, str):
            where = self._where(sys._getframe(1).f_lineno)
            raise LoadError("bad-name", f"workspace: 'name' must be a string, but was {name!r}", where=where.of("name"))
        self.package.workspace = name
