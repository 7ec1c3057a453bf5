"""The expressions of a test module whose evaluation neither makes a fixture or a test nor changes the module."""

from __future__ import annotations

import ast
import builtins
import sys

from bkrules.analysis.module_syntax import MARK, callee, mark_name

KNOWN = sys.stdlib_module_names | {"bkrules", "pytest"}
"""Packages that are known to define no tests and no parametrized fixtures."""
FIXTURE = "pytest.fixture"
HARMLESS_DECORATORS = ("contextlib.", "functools.", "typing.", "abc.", "dataclasses.")
BUILTIN_DECORATORS = {"property", "staticmethod", "classmethod"}
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


class Unproven(Exception):
    """The syntax does not prove which tests a module has; `line` is the place, and the text is the reason."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


class Expressions:
    """The expressions of one module.

    `origins` are the dotted names behind its imported names, such as `pytest.mark`. `helpers` are its functions and
    classes that are no tests, and `constants` its names for other values.
    """

    def __init__(self, module: ast.Module) -> None:
        self.origins: dict[str, str] = {}
        self.helpers: dict[str, ast.stmt] = {}
        self.constants: set[str] = set()
        self._lazy = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(item.name == "annotations" for item in node.names)
            for node in module.body
        )

    def origin(self, node: ast.expr) -> str:
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

    def check(self, node: ast.expr) -> None:
        """Check that the value of an expression is no fixture and no test, and that it does not change the module.

        Raises Unproven.
        """
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
                raise Unproven(inner.lineno, f"an expression of the kind {type(inner).__name__}")
            if isinstance(inner, ast.Attribute | ast.Name) and self.origin(inner).startswith(FIXTURE):
                raise Unproven(inner.lineno, "pytest.fixture is no decorator here")
            if isinstance(inner, ast.Call) and not self._is_pure(inner.func):
                raise Unproven(inner.lineno, f"a call of {ast.unparse(inner.func)}")

    def check_annotation(self, node: ast.expr) -> None:
        """Check an annotation, unless Python leaves it unevaluated. Raises Unproven."""
        if not self._lazy:
            self.check(node)

    def is_mark(self, node: ast.expr) -> bool:
        """Return whether an expression is `pytest.mark.NAME`, called or not."""
        if isinstance(node, ast.Call):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self.check(argument)
        return bool(mark_name(node)) and self.origin(callee(node)).startswith(MARK)

    def _is_pure(self, node: ast.expr) -> bool:
        origin = self.origin(node)
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
