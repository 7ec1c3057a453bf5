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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

KNOWN = sys.stdlib_module_names | {"bkrules", "pytest"}
"""Packages that are known to define no tests and no parametrized fixtures."""
MARK = "pytest.mark."
_FIXTURE = "pytest.fixture"
_OVER_DECORATORS = ("contextlib.", "functools.", "typing.", "abc.", "dataclasses.")
_BUILTIN_DECORATORS = {"property", "staticmethod", "classmethod"}
_PURE_MODULES = {
    *(
        "base64",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "hashlib",
        "itertools",
        "json",
    ),
    *("logging", "math", "os.environ", "os.path", "pathlib", "platform", "re", "shlex", "string", "struct", "textwrap"),
    *("typing", "uuid"),
}
_PURE_FUNCTIONS = {
    *(
        "os.getenv",
        "os.getpid",
        "os.getcwd",
        "os.fspath",
        "os.cpu_count",
        "shutil.which",
        "time.time",
        "time.monotonic",
    ),
    *("pytest.param", "pytest.raises", "pytest.warns", "pytest.approx"),
}
_PURE_BUILTINS = {
    *(
        "abs",
        "all",
        "any",
        "bool",
        "bytes",
        "chr",
        "complex",
        "dict",
        "divmod",
        "enumerate",
        "float",
        "format",
        "frozenset",
    ),
    *("hash", "hex", "int", "len", "list", "max", "min", "object", "oct", "ord", "pow", "range", "repr", "reversed"),
    *("round", "set", "slice", "sorted", "str", "sum", "tuple", "zip"),
}
_RISKY_METHODS = {"__class_getitem__", "__init_subclass__", "__set_name__"}
_HARMLESS_HOOKS = ("pytest_report_header", "pytest_runtest_", "pytest_sessionfinish", "pytest_terminal_summary")
_HOOK_MARKS = {"pytest.hookimpl"}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unproven(Exception):
    """The syntax does not prove which tests a module has; `line` is the place, and the text is the reason."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(frozen=True)
class Imports:
    """The files of the workspace behind a module's imports.

    `modules` returns the parsed files from which a `from ... import` may read its names. `has` returns whether the
    imported name is itself a file of the workspace.
    """

    modules: Callable[[ast.ImportFrom], Sequence[ast.Module]] = lambda _: ()
    has: Callable[[ast.ImportFrom, str], bool] = lambda _node, _name: False


NOWHERE = Imports()


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


def check(module: ast.Module, imports: Imports = NOWHERE, *, conftest: bool = False) -> None:
    """Return when the syntax proves what pytest collects from a test module, or that a conftest adds nothing to it.

    Raises Unproven.
    """
    _Check(module, imports, conftest=conftest).statements()


class _Check:
    """The check of one module. `origins` are the dotted names behind its imported names, such as `pytest.mark`."""

    def __init__(self, module: ast.Module, imports: Imports, *, conftest: bool) -> None:
        self.module = module
        self.imports = imports
        self.conftest = conftest
        self.origins: dict[str, str] = {}
        self.helpers: dict[str, ast.stmt] = {}
        self.constants: set[str] = set()
        self.lazy = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(a.name == "annotations" for a in node.names)
            for node in module.body
        )

    def statements(self) -> None:
        bound: set[str] = set()
        for node in self.module.body:
            for name in _bound(node):
                if name in bound:
                    raise Unproven(node.lineno, f"{name} is bound twice")
                bound.add(name)
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, _FUNCTIONS):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, ast.Import):
            for item in node.names:
                top = item.name.partition(".")[0]
                self._import(node, item.asname or top, item.name if item.asname else top)
        elif isinstance(node, ast.ImportFrom):
            self._import_from(node)
        elif isinstance(node, ast.If) and not node.orelse and self._origin(node.test) == "typing.TYPE_CHECKING":
            if not all(isinstance(one, ast.Import | ast.ImportFrom | ast.Pass) for one in node.body):
                raise Unproven(node.lineno, "TYPE_CHECKING guards more than imports")
        else:
            self._plain(node, self.constants)

    def _plain(self, node: ast.stmt, bound: set[str]) -> None:
        """Check a statement that computes constants, in a module or a class."""
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return
        if isinstance(node, ast.Assign):
            targets: Sequence[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
            self._annotation(node.annotation)
        else:
            raise Unproven(node.lineno, f"a statement of the kind {type(node).__name__}")
        names = [name for target in targets for name in self._names(target)]
        for name in names:
            self._name(node, name)
        if "pytestmark" in names:
            self._pytestmark(node)
        elif node.value is not None:
            self._inert(node.value)
        bound.update(names)

    def _names(self, target: ast.expr) -> Iterator[str]:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                yield from self._names(one)
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
        self.origins[bound] = origin

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
                self.origins[bound] = f"{node.module}.{item.name}"
                continue
            self.origins[bound] = f"?.{item.name}"
            is_file = self.imports.has(node, item.name) and not any(_bindings(module)[item.name] for module in modules)
            if not is_file and not (modules and all(_is_harmless(module, item.name) for module in modules)):
                raise Unproven(node.lineno, f"{item.name} may be a fixture or a test")

    def _function(self, node: Function, *, method: bool = False) -> None:
        self._signature(node)
        if is_test(node.name) and not self.conftest:
            if not all(self._mark(one) for one in node.decorator_list):
                raise Unproven(node.lineno, f"{node.name} has a decorator that is not a mark")
            if _yields(node):
                raise Unproven(node.lineno, f"{node.name} yields")
            return
        if node.name.startswith("pytest_"):
            if not self.conftest or not node.name.startswith(_HARMLESS_HOOKS):
                raise Unproven(node.lineno, f"the hook {node.name}")
            if not all(self._origin(_callee(one)) in _HOOK_MARKS for one in node.decorator_list):
                raise Unproven(node.lineno, f"{node.name} has a decorator")
            return
        if not method:
            self._name(node, node.name)
            self.helpers[node.name] = node
        for one in node.decorator_list:
            self._decorator(one, node)

    def _signature(self, node: Function) -> None:
        given = node.args
        for default in [*given.defaults, *(one for one in given.kw_defaults if one)]:
            self._inert(default)
        several = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
        for annotation in [node.returns, *(one.annotation for one in several)]:
            if annotation is not None:
                self._annotation(annotation)

    def _decorator(self, node: ast.expr, owner: Function) -> None:
        """Check the decorator of a function that is not a test."""
        origin = self._origin(_callee(node))
        if isinstance(node, ast.Call):
            for one in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self._inert(one)
        if origin == _FIXTURE:
            words = [one.arg for one in node.keywords] if isinstance(node, ast.Call) else []
            if (isinstance(node, ast.Call) and node.args) or not set(words) <= {"scope", "autouse", "name"}:
                raise Unproven(owner.lineno, f"the fixture {owner.name} has parameters")
            return
        local = isinstance(node, ast.Attribute) and node.attr in ("setter", "deleter", "getter")
        if origin.startswith(_OVER_DECORATORS) or origin in _BUILTIN_DECORATORS or local:
            return
        raise Unproven(owner.lineno, f"{owner.name} has the decorator {ast.unparse(node)}")

    def _class(self, node: ast.ClassDef, *, inner: bool = False) -> None:
        if is_test_class(node.name) and not self.conftest:
            self._test_class(node)
            return
        if not inner:
            self._name(node, node.name)
            self.helpers[node.name] = node
        if node.keywords:
            raise Unproven(node.lineno, f"the class {node.name} has keywords")
        for one in node.decorator_list:
            if not self._origin(_callee(one)).startswith(_OVER_DECORATORS):
                raise Unproven(node.lineno, f"the class {node.name} has the decorator {ast.unparse(one)}")
        for base in node.bases:
            self._base(base, node)
        bound: set[str] = set()
        for statement in node.body:
            if isinstance(statement, _FUNCTIONS):
                if statement.name in _RISKY_METHODS:
                    raise Unproven(statement.lineno, f"the class {node.name} has {statement.name}")
                self._helper_method(statement)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement, inner=True)
            else:
                self._plain(statement, bound)

    def _helper_method(self, node: Function) -> None:
        self._signature(node)
        for one in node.decorator_list:
            self._decorator(one, node)

    def _base(self, base: ast.expr, node: ast.ClassDef) -> None:
        """Check a base of a class. pytest also collects subclasses of unittest's class."""
        plain = base.value if isinstance(base, ast.Subscript) else base
        origin = self._origin(plain)
        local = isinstance(plain, ast.Name) and isinstance(self.helpers.get(plain.id), ast.ClassDef)
        top = origin.partition(".")[0]
        known = isinstance(getattr(builtins, origin, None), type) or (
            top in sys.stdlib_module_names and top != "unittest"
        )
        if not local and not known:
            raise Unproven(node.lineno, f"the class {node.name} inherits from {ast.unparse(base)}")

    def _test_class(self, node: ast.ClassDef) -> None:
        if node.keywords or any(self._origin(base) != "object" for base in node.bases):
            raise Unproven(node.lineno, f"the class {node.name} has a base")
        if not all(self._mark(one) for one in node.decorator_list):
            raise Unproven(node.lineno, f"the class {node.name} has a decorator that is not a mark")
        bound: set[str] = set()
        for statement in node.body:
            for name in _bound(statement):
                if name in bound:
                    raise Unproven(statement.lineno, f"{node.name}.{name} is bound twice")
                if name.startswith("__"):
                    raise Unproven(statement.lineno, f"the class {node.name} has {name}")
                bound.add(name)
            if isinstance(statement, _FUNCTIONS):
                self._function(statement, method=True)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement, inner=True)
            else:
                self._plain(statement, set())

    def _pytestmark(self, node: ast.Assign | ast.AnnAssign) -> None:
        value = node.value if isinstance(node, ast.Assign) and _is_pytestmark(node) else None
        for one in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
            if one is None or not self._mark(one):
                raise Unproven(node.lineno, "pytestmark contains a value other than marks")

    def _mark(self, node: ast.expr) -> bool:
        """Return whether an expression is `pytest.mark.NAME`, called or not."""
        if isinstance(node, ast.Call):
            for one in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self._inert(one)
        return bool(mark_name(node)) and self._origin(_callee(node)).startswith(MARK)

    def _annotation(self, node: ast.expr) -> None:
        if not self.lazy:
            self._inert(node)

    def _origin(self, node: ast.expr) -> str:
        """Return the dotted name of an expression by the module's imports, or the name of a builtin; otherwise an empty text."""
        words: list[str] = []
        while isinstance(node, ast.Attribute):
            words.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        start = self.origins.get(node.id)
        if start is None:
            known = hasattr(builtins, node.id) and node.id not in self.helpers and node.id not in self.constants
            start = node.id if known else ""
        return ".".join([start, *reversed(words)]) if start else ""

    def _inert(self, node: ast.expr) -> None:
        """Check that the value of an expression is no fixture and no test, and that it does not change the module.
        Raises Unproven.
        """
        for one in ast.walk(node):
            if isinstance(one, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
                raise Unproven(one.lineno, f"an expression of the kind {type(one).__name__}")
            if isinstance(one, ast.Attribute | ast.Name) and self._origin(one).startswith(_FIXTURE):
                raise Unproven(one.lineno, "pytest.fixture is no decorator here")
            if isinstance(one, ast.Call) and not self._is_pure(one.func):
                raise Unproven(one.lineno, f"a call of {ast.unparse(one.func)}")

    def _is_pure(self, node: ast.expr) -> bool:
        origin = self._origin(node)
        if origin:
            parts = origin.split(".")
            above = {".".join(parts[:number]) for number in range(1, len(parts))}
            return (
                origin in _PURE_FUNCTIONS | _PURE_BUILTINS
                or origin.startswith(MARK)
                or bool(above & (_PURE_MODULES | _PURE_BUILTINS))
            )
        # A method of a value: values of the module are of builtin types, or made by pure modules.
        if not isinstance(node, ast.Attribute):
            return False
        value = node.value
        while isinstance(value, ast.Attribute | ast.Subscript):
            value = value.value
        if isinstance(value, ast.Name):
            return value.id in self.constants
        return not isinstance(value, ast.Lambda)


def mark_name(node: ast.expr) -> str:
    """Return the name of a mark, `pytest.mark.NAME` or `mark.NAME`, called or not; empty for any other expression."""
    start, _, name = ast.unparse(_callee(node)).rpartition(".")
    return name if start in ("pytest.mark", "mark") else ""


def _is_pytestmark(node: ast.stmt) -> bool:
    """Return whether a statement is just `pytestmark = ...`."""
    return isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["pytestmark"]


def pytestmark(node: ast.stmt) -> list[ast.expr]:
    """Return the marks that `pytestmark = ...` gives to all tests of a module or class."""
    if not isinstance(node, ast.Assign) or not _is_pytestmark(node):
        return []
    return node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]


def _callee(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a known kind binds."""
    if isinstance(node, _FUNCTIONS | ast.ClassDef):
        # A setter has the name of its property.
        again = any(isinstance(one, ast.Attribute) and one.attr in ("setter", "deleter") for one in node.decorator_list)
        return [] if again else [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        tops = [item.asname or item.name.partition(".")[0] for item in node.names if item.name != "*"]
        return [] if isinstance(node, ast.Import) and all("." in item.name for item in node.names) else tops
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return []


def _yields(node: Function) -> bool:
    """Return whether a function is a generator."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(one, _FUNCTIONS | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(one)
    return False


@functools.lru_cache(maxsize=256)
def _bindings(module: ast.Module) -> Counter[str]:
    """Return how often a module binds each name outside of functions and classes, or declares it as global in one."""
    counts: Counter[str] = Counter()
    waiting: list[tuple[ast.AST, bool]] = [(one, True) for one in module.body]
    while waiting:
        one, is_outside = waiting.pop()
        if isinstance(one, ast.Global):
            counts.update(one.names)
        elif is_outside:
            if isinstance(one, _FUNCTIONS | ast.ClassDef):
                counts[one.name] += 1
                is_outside = False
            elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store | ast.Del):
                counts[one.id] += 1
            elif isinstance(one, ast.alias):
                counts[one.asname or one.name.partition(".")[0]] += 1
        if is_outside or isinstance(one, ast.stmt | ast.excepthandler | ast.match_case):
            waiting += [(inner, is_outside) for inner in ast.iter_child_nodes(one)]
    return counts


@functools.lru_cache(maxsize=1024)
def _is_harmless(module: ast.Module, name: str) -> bool:
    """Return whether a module binds a name once, and to something that is neither a fixture nor collected by pytest."""
    if _bindings(module)[name] != 1 or _bindings(module)["*"]:
        return False
    found = [node for node in module.body if name in _bound(node)]
    if not found:
        return False
    needed: list[ast.stmt] = [
        node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom) and node is not found[0]
    ]
    needed += [*_classes_above(module, found[0]), found[0]]
    try:
        _Check(ast.Module(needed, []), _ASSUMED, conftest=True).statements()
    except Unproven:
        return False
    return not (isinstance(found[0], ast.Import | ast.ImportFrom) and not _is_known(found[0]))


def _classes_above(module: ast.Module, node: ast.stmt) -> list[ast.stmt]:
    """Return the classes of a module from which a class inherits, in the order of the module."""
    classes = {one.name: one for one in module.body if isinstance(one, ast.ClassDef)}
    wanted: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        bases = [base.id for base in one.bases if isinstance(base, ast.Name)] if isinstance(one, ast.ClassDef) else []
        for base in bases:
            if base in classes and base not in wanted:
                wanted.add(base)
                waiting.append(classes[base])
    return [one for name, one in classes.items() if name in wanted and one is not node]


def _is_known(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return True
    return isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in KNOWN


_ASSUMED = Imports(has=lambda _node, _name: True)
"""The imports of an imported module, with their names: the names in KNOWN are known."""
