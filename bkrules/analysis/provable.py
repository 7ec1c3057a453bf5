"""The proof, by syntax, of the tests that pytest collects from a module.

pytest collects from a module's namespace after its import, which in general no reader of syntax can know. A module of
plain statements is the exception: definitions with harmless decorators, imports of names that are known to be harmless,
and constants. Anything else raises `Unproven`, and bk asks pytest (`analysis/collection.py`). A wrong proof loses no
test: each cell compares the tests that pytest collects there with the declared tests.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bkrules.analysis.harmless import BUILTIN_DECORATORS, FIXTURE, HARMLESS_DECORATORS, KNOWN, Expressions, Unproven
from bkrules.analysis.module_syntax import (
    Function,
    bindings,
    bound_names,
    callee,
    is_generator,
    is_pytestmark,
    is_test,
    is_test_class,
)

_RISKY_METHODS = {"__class_getitem__", "__init_subclass__", "__set_name__"}
_HARMLESS_HOOKS = ("pytest_report_header", "pytest_runtest_", "pytest_sessionfinish", "pytest_terminal_summary")
_HOOK_MARKS = {"pytest.hookimpl"}


@dataclass(frozen=True)
class Imports:
    """The files of the workspace behind a module's imports.

    `modules` returns the parsed files from which a `from ... import` may read its names. `has` returns whether the
    imported name is itself a file of the workspace.
    """

    modules: Callable[[ast.ImportFrom], Sequence[ast.Module]] = lambda _: ()
    has: Callable[[ast.ImportFrom, str], bool] = lambda _node, _name: False


NOWHERE = Imports()


def check(module: ast.Module, imports: Imports = NOWHERE, *, conftest: bool = False) -> None:
    """Return when the syntax proves what pytest collects from a test module, or that a conftest adds nothing to it.

    Raises Unproven.
    """
    _Check(module, imports, conftest=conftest).statements()


class _Check:
    """The check of the statements of one module."""

    def __init__(self, module: ast.Module, imports: Imports, *, conftest: bool) -> None:
        self.module = module
        self.imports = imports
        self.conftest = conftest
        self.expressions = Expressions(module)

    def statements(self) -> None:
        bound: set[str] = set()
        for node in self.module.body:
            for name in bound_names(node):
                if name in bound:
                    raise Unproven(node.lineno, f"{name} is bound twice")
                bound.add(name)
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, Function):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, ast.Import):
            for item in node.names:
                top = item.name.partition(".")[0]
                self._import(node, item.asname or top, item.name if item.asname else top)
        elif isinstance(node, ast.ImportFrom):
            self._import_from(node)
        elif (
            isinstance(node, ast.If)
            and not node.orelse
            and self.expressions.origin(node.test) == "typing.TYPE_CHECKING"
        ):
            if not all(isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) for statement in node.body):
                raise Unproven(node.lineno, "TYPE_CHECKING guards more than imports")
        else:
            self._plain(node, self.expressions.constants)

    def _plain(self, node: ast.stmt, bound: set[str]) -> None:
        """Check a statement that computes constants, in a module or a class."""
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return
        if isinstance(node, ast.Assign):
            targets: Sequence[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
            self.expressions.check_annotation(node.annotation)
        else:
            raise Unproven(node.lineno, f"a statement of the kind {type(node).__name__}")
        names = [name for target in targets for name in self._names(target)]
        for name in names:
            self._name(node, name)
        if "pytestmark" in names:
            self._pytestmark(node)
        elif node.value is not None:
            self.expressions.check(node.value)
        bound.update(names)

    def _names(self, target: ast.expr) -> Iterator[str]:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                yield from self._names(element)
        else:
            raise Unproven(target.lineno, "an assignment to a target other than a name")

    def _name(self, node: ast.AST, name: str) -> None:
        """Check that a bound name cannot be taken for a test, a test class, or a name that pytest reads."""
        line = getattr(node, "lineno", 1)
        tests = not self.conftest and (is_test(name) or is_test_class(name))
        if tests or name in ("__test__", "pytest_plugins") or name.startswith(("pytest_", "collect_ignore")):
            raise Unproven(line, f"a statement other than a plain definition binds {name}")
        if name in ("__getattr__", "__dir__", "__class__", "__dict__"):
            raise Unproven(line, f"the module has {name}")

    def _import(self, node: ast.stmt, bound: str, origin: str) -> None:
        self._name(node, bound)
        self.expressions.origins[bound] = origin

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.module == "__future__":
            return
        modules = self.imports.modules(node)
        for item in node.names:
            bound = item.asname or item.name
            if item.name == "*":
                raise Unproven(node.lineno, "a star import")
            self._name(node, bound)
            if not modules and not node.level and node.module and node.module.partition(".")[0] in KNOWN:
                self.expressions.origins[bound] = f"{node.module}.{item.name}"
                continue
            self.expressions.origins[bound] = f"?.{item.name}"
            is_file = self.imports.has(node, item.name) and not any(bindings(module)[item.name] for module in modules)
            if not is_file and not (modules and all(_is_harmless(module, item.name) for module in modules)):
                raise Unproven(node.lineno, f"{item.name} may be a fixture or a test")

    def _function(self, node: Function, *, method: bool = False) -> None:
        self._signature(node)
        if is_test(node.name) and not self.conftest:
            if not all(self.expressions.is_mark(decorator) for decorator in node.decorator_list):
                raise Unproven(node.lineno, f"{node.name} has a decorator that is not a mark")
            if is_generator(node):
                raise Unproven(node.lineno, f"{node.name} yields")
            return
        if node.name.startswith("pytest_"):
            if not self.conftest or not node.name.startswith(_HARMLESS_HOOKS):
                raise Unproven(node.lineno, f"the hook {node.name}")
            if not all(self.expressions.origin(callee(decorator)) in _HOOK_MARKS for decorator in node.decorator_list):
                raise Unproven(node.lineno, f"{node.name} has a decorator")
            return
        if not method:
            self._name(node, node.name)
            self.expressions.helpers[node.name] = node
        for decorator in node.decorator_list:
            self._decorator(decorator, node)

    def _signature(self, node: Function) -> None:
        arguments = node.args
        for default in [*arguments.defaults, *(value for value in arguments.kw_defaults if value)]:
            self.expressions.check(default)
        several = [
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, [arguments.vararg, arguments.kwarg]),
        ]
        for annotation in [node.returns, *(argument.annotation for argument in several)]:
            if annotation is not None:
                self.expressions.check_annotation(annotation)

    def _decorator(self, node: ast.expr, owner: Function) -> None:
        """Check the decorator of a function that is not a test."""
        origin = self.expressions.origin(callee(node))
        if isinstance(node, ast.Call):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self.expressions.check(argument)
        if origin == FIXTURE:
            words = [keyword.arg for keyword in node.keywords] if isinstance(node, ast.Call) else []
            if (isinstance(node, ast.Call) and node.args) or not set(words) <= {"scope", "autouse", "name"}:
                raise Unproven(owner.lineno, f"the fixture {owner.name} has parameters")
            return
        local = isinstance(node, ast.Attribute) and node.attr in ("setter", "deleter", "getter")
        if origin.startswith(HARMLESS_DECORATORS) or origin in BUILTIN_DECORATORS or local:
            return
        raise Unproven(owner.lineno, f"{owner.name} has the decorator {ast.unparse(node)}")

    def _class(self, node: ast.ClassDef, *, inner: bool = False) -> None:
        if is_test_class(node.name) and not self.conftest:
            self._test_class(node)
            return
        if not inner:
            self._name(node, node.name)
            self.expressions.helpers[node.name] = node
        if node.keywords:
            raise Unproven(node.lineno, f"the class {node.name} has keywords")
        for decorator in node.decorator_list:
            if not self.expressions.origin(callee(decorator)).startswith(HARMLESS_DECORATORS):
                raise Unproven(node.lineno, f"the class {node.name} has the decorator {ast.unparse(decorator)}")
        for base in node.bases:
            self._base(base, node)
        bound: set[str] = set()
        for statement in node.body:
            if isinstance(statement, Function):
                if statement.name in _RISKY_METHODS:
                    raise Unproven(statement.lineno, f"the class {node.name} has {statement.name}")
                self._helper_method(statement)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement, inner=True)
            else:
                self._plain(statement, bound)

    def _helper_method(self, node: Function) -> None:
        self._signature(node)
        for decorator in node.decorator_list:
            self._decorator(decorator, node)

    def _base(self, base: ast.expr, node: ast.ClassDef) -> None:
        """Check a base of a class. pytest also collects subclasses of unittest's class."""
        plain = base.value if isinstance(base, ast.Subscript) else base
        origin = self.expressions.origin(plain)
        local = isinstance(plain, ast.Name) and isinstance(self.expressions.helpers.get(plain.id), ast.ClassDef)
        top = origin.partition(".")[0]
        known = isinstance(getattr(builtins, origin, None), type) or (
            top in sys.stdlib_module_names and top != "unittest"
        )
        if not local and not known:
            raise Unproven(node.lineno, f"the class {node.name} inherits from {ast.unparse(base)}")

    def _test_class(self, node: ast.ClassDef) -> None:
        if node.keywords or any(self.expressions.origin(base) != "object" for base in node.bases):
            raise Unproven(node.lineno, f"the class {node.name} has a base")
        if not all(self.expressions.is_mark(decorator) for decorator in node.decorator_list):
            raise Unproven(node.lineno, f"the class {node.name} has a decorator that is not a mark")
        bound: set[str] = set()
        for statement in node.body:
            for name in bound_names(statement):
                if name in bound:
                    raise Unproven(statement.lineno, f"{node.name}.{name} is bound twice")
                if name.startswith("__"):
                    raise Unproven(statement.lineno, f"the class {node.name} has {name}")
                bound.add(name)
            if isinstance(statement, Function):
                self._function(statement, method=True)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement, inner=True)
            else:
                self._plain(statement, set())

    def _pytestmark(self, node: ast.Assign | ast.AnnAssign) -> None:
        value = node.value if isinstance(node, ast.Assign) and is_pytestmark(node) else None
        for mark in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
            if mark is None or not self.expressions.is_mark(mark):
                raise Unproven(node.lineno, "pytestmark contains a value other than marks")


@functools.lru_cache(maxsize=1024)
def _is_harmless(module: ast.Module, name: str) -> bool:
    """Return whether a module binds a name once, and to something that is neither a fixture nor collected by pytest."""
    if bindings(module)[name] != 1 or bindings(module)["*"]:
        return False
    bound = [node for node in module.body if name in bound_names(node)]
    if not bound:
        return False
    needed: list[ast.stmt] = [
        node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom) and node is not bound[0]
    ]
    needed += [*_classes_above(module, bound[0]), bound[0]]
    try:
        _Check(ast.Module(needed, []), _ASSUMED, conftest=True).statements()
    except Unproven:
        return False
    return not (isinstance(bound[0], ast.Import | ast.ImportFrom) and not _is_known(bound[0]))


def _classes_above(module: ast.Module, node: ast.stmt) -> list[ast.stmt]:
    """Return the classes of a module from which a class inherits, in the order of the module."""
    classes = {definition.name: definition for definition in module.body if isinstance(definition, ast.ClassDef)}
    wanted: set[str] = set()
    waiting = [node]
    while waiting:
        statement = waiting.pop()
        bases = (
            [base.id for base in statement.bases if isinstance(base, ast.Name)]
            if isinstance(statement, ast.ClassDef)
            else []
        )
        for base in bases:
            if base in classes and base not in wanted:
                wanted.add(base)
                waiting.append(classes[base])
    return [definition for name, definition in classes.items() if name in wanted and definition is not node]


def _is_known(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return True
    return isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in KNOWN


_ASSUMED = Imports(has=lambda _node, _name: True)
"""The imports of an imported module, with their names: the names in KNOWN are known."""
