from __future__ import annotations

import ast
from collections.abc import Sequence

import pytest

from bkrules.analysis import matrix, test_marks


def names(source: str) -> list[str]:
    return [name for name, _, _ in test_marks.nodes(ast.parse(source))]


def test_every_combination_of_the_axes_in_order() -> None:
    axes = {"b": ["y", "x"], "a": {"2": object(), "1": object()}}
    assert matrix.choices(axes) == [
        (("a", "1"), ("b", "x")),
        (("a", "1"), ("b", "y")),
        (("a", "2"), ("b", "x")),
        (("a", "2"), ("b", "y")),
    ]


def test_without_axes_there_is_one_point() -> None:
    assert matrix.choices({}) == [()]


def test_an_axis_without_values_leaves_no_point() -> None:
    assert matrix.choices({"a": ["1"], "b": []}) == []


def test_test_functions_are_those_of_the_module_in_its_order() -> None:
    source = (
        "import pytest\n"
        "def test_b(): pass\n"
        "def helper(): pass\n"
        "async def test_async(): pass\n"
        "class TestClass:\n"
        "    def test_method(self): pass\n"
        "@pytest.mark.slow\n"
        "def test_a(sandbox):\n"
        "    def test_inner(): pass\n"
    )
    read = [test.callable for test in test_marks.read_tests(source)]
    assert read == names(source) == ["test_b", "test_async", "TestClass::test_method", "test_a"]


def test_a_module_that_is_not_python() -> None:
    with pytest.raises(SyntaxError):
        test_marks.read_tests("def test_a(:")


FILES = {
    "helper.py",
    "pkg/__init__.py",
    "pkg/module.py",
    "pkg/sub/__init__.py",
    "pkg/sub/deep.py",
    "t/__init__.py",
    "t/helper.py",
    "t/conftest.py",
    "t/u/__init__.py",
    "t/u/nearby.py",
}


def imported(source: str, path: str = "t/test_it.py", roots: Sequence[str] = ("",)) -> list[str]:
    return sorted(set(matrix.imported_files(source, path, roots, FILES.__contains__)))


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import helper", ["helper.py"]),
        ("import json, helper as other", ["helper.py"]),
        ("import pkg", ["pkg/__init__.py"]),
        ("import pkg.module", ["pkg/__init__.py", "pkg/module.py"]),
        ("import pkg.sub.deep", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("from pkg import module", ["pkg/__init__.py", "pkg/module.py"]),
        ("from pkg import name", ["pkg/__init__.py"]),
        ("from pkg import *", ["pkg/__init__.py"]),
        ("from pkg.module import name", ["pkg/__init__.py", "pkg/module.py"]),
        ("from pkg.sub import deep, name", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("import json\nfrom os import path", []),
        ("def f():\n    if x:\n        import helper", ["helper.py"]),
        ("try:\n    import helper\nexcept ImportError:\n    import pkg", ["helper.py", "pkg/__init__.py"]),
        ("'import helper'  # import helper", []),
    ],
)
def test_absolute_imports(source: str, files: list[str]) -> None:
    assert imported(source) == files


def test_absolute_imports_are_looked_for_below_every_root() -> None:
    assert imported("import helper", roots=["t", ""]) == ["helper.py", "t/helper.py"]
    assert imported("import helper", roots=["t"]) == ["t/helper.py"]


@pytest.mark.parametrize(
    ("source", "path", "files"),
    [
        ("from .helper import x", "t/test_it.py", ["t/helper.py"]),
        ("from . import helper", "t/test_it.py", ["t/__init__.py", "t/helper.py"]),
        ("from . import name", "t/test_it.py", ["t/__init__.py"]),
        ("from .u import nearby", "t/test_it.py", ["t/u/__init__.py", "t/u/nearby.py"]),
        ("from .u.nearby import x", "t/test_it.py", ["t/u/__init__.py", "t/u/nearby.py"]),
        ("from ..helper import x", "t/u/test_it.py", ["t/helper.py"]),
        ("from .. import helper", "t/u/test_it.py", ["t/__init__.py", "t/helper.py"]),
        ("from .helper import x", "test_it.py", ["helper.py"]),
        ("from .pkg import module", "test_it.py", ["pkg/__init__.py", "pkg/module.py"]),
        ("from .deep import x", "pkg/sub/__init__.py", ["pkg/sub/deep.py"]),
    ],
)
def test_relative_imports(source: str, path: str, files: list[str]) -> None:
    assert imported(source, path) == files
