from __future__ import annotations

import ast
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


SOURCE = '''\
"""A module."""

import pytest

LIMIT = 3


@pytest.fixture
def value() -> int:
    return LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_first(
    n: int,
    value: int,
) -> None:
    """Its docstring."""
    # its comment
    assert n < value

    assert value == LIMIT


def test_second(value: int) -> None:
    text = """
def test_within(): pass
"""
    assert text

# between


def test_third() -> None: assert LIMIT


class TestClass:
    def test_method(self) -> None:
        assert LIMIT


async def test_async() -> None:
    assert LIMIT
'''


def kept_lines(kept: str, source: str) -> list[int]:
    pairs = zip(kept.split("\n"), source.split("\n"), strict=True)
    return [number for number, (mine, original) in enumerate(pairs, 1) if mine == original]


def lines_of(source: str, *names: str) -> set[int]:
    """The lines of these functions, from the first decorator on."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in names:
            assert node.end_lineno is not None
            found |= set(range(min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno + 1))
    return found


@pytest.mark.parametrize("keep", ["test_first", "test_second", "test_third"])
def test_what_is_kept_stays_on_its_line(keep: str) -> None:
    kept = matrix.only_test(SOURCE, keep)
    ast.parse(kept)
    emptied = {"test_first", "test_second", "test_method", "test_async"} - {keep}
    same = set(kept_lines(kept, SOURCE))
    everything = set(range(1, len(SOURCE.split("\n")) + 1))
    assert everything - lines_of(SOURCE, *emptied) <= same
    assert lines_of(SOURCE, keep) <= same


def test_the_bodies_of_the_others_are_gone() -> None:
    kept = matrix.only_test(SOURCE, "test_second")
    assert "Its docstring" not in kept
    assert "its comment" not in kept
    assert "n < value" not in kept
    assert "value == LIMIT" not in kept
    assert names(kept) == names(SOURCE)


def test_decorators_and_signatures_of_the_others_stay() -> None:
    kept = ast.parse(matrix.only_test(SOURCE, "test_second"))
    [first] = [node for node in kept.body if isinstance(node, ast.FunctionDef) and node.name == "test_first"]
    assert [ast.unparse(one) for one in first.decorator_list] == [
        "pytest.mark.slow",
        "pytest.mark.parametrize('n', [1, 2])",
    ]
    assert [one.arg for one in first.args.args] == ["n", "value"]
    assert ast.unparse(first.body[0]) == "..."
    assert len(first.body) == 1


def test_methods_and_coroutines_are_tests_of_their_own() -> None:
    kept = matrix.only_test(SOURCE, "test_second")
    assert kept.endswith(
        "    def test_method(self) -> None:\n        ...\n\n\nasync def test_async() -> None:\n    ...\n"
    )
    assert matrix.only_test(SOURCE, "test_async").endswith("async def test_async() -> None:\n    assert LIMIT\n")
    kept = matrix.only_test(SOURCE, "TestClass::test_method")
    method = kept[kept.index("class TestClass") : kept.index("async")]
    assert method == SOURCE[SOURCE.index("class TestClass") : SOURCE.index("async")]
    assert "n < value" not in kept


def test_an_edit_of_one_test_leaves_the_others_as_they_were() -> None:
    edited = SOURCE.replace("assert n < value", "assert n <= value")
    assert matrix.only_test(edited, "test_second") == matrix.only_test(SOURCE, "test_second")
    assert matrix.only_test(edited, "test_first") != matrix.only_test(SOURCE, "test_first")


@pytest.mark.parametrize(
    "mention",
    [
        "def test_kept():\n    test_other()\n",
        "def test_kept():\n    module.test_other()\n",
        "def test_kept():\n    getattr(module, 'test_other')()\n",
        "ALL = [test_other]\ndef test_kept():\n    pass\n",
        "@depends_on('test_other')\ndef test_kept():\n    pass\n",
        "class Helper:\n    run = test_other\ndef test_kept():\n    pass\n",
        "def test_kept():\n    test_between()\ndef test_between():\n    test_other()\n",
    ],
)
def test_a_test_that_another_part_speaks_of_stays_whole(mention: str) -> None:
    source = f"def test_other():\n    assert 'other'\n{mention}"
    assert matrix.only_test(source, "test_kept") == source


@pytest.mark.parametrize(
    "body",
    [
        "for name, one in list(globals().items()):\n        if name[:6] == 'test_o': one()",
        "for name in dir(sys.modules[__name__]): print(name)",
        "assert 'todo' in Path(__file__).read_text()",
        "import inspect",
        "from inspect import stack as s",
        "assert sys._getframe().f_lineno == 4",
        "getattr(self, 'test_' + 'other')()",
        "vars(request.module)",
        "helper()\ndef helper():\n    return locals()",
    ],
)
def test_a_test_that_may_look_at_its_module_sees_it_whole(body: str) -> None:
    source = f"def test_other():\n    assert 'other'\ndef test_kept(request):\n    {body}\n"
    assert matrix.only_test(source, "test_kept") == source
    assert matrix.looks_at_its_own(source)


@pytest.mark.parametrize("body", ["assert 0x" + "f" * 5000, "assert " + "+".join("1" * 900)])
def test_what_cannot_be_written_again_means_its_text(body: str) -> None:
    source = f"def test_a():\n    {body}\n"
    assert matrix.meaning(source) in (source, source.strip().replace("+", " + "))


def test_tests_that_only_speak_of_each_other_are_emptied() -> None:
    source = "def test_a():\n    test_b()\ndef test_b():\n    test_a()\ndef test_kept():\n    pass\n"
    assert matrix.only_test(source, "test_kept") == (
        "def test_a():\n    ...\ndef test_b():\n    ...\ndef test_kept():\n    pass\n"
    )


@pytest.mark.parametrize(
    "other",
    [
        "def test_other(): assert 1",
        "def test_other(): assert 1; assert 2",
        "def test_other():\n    assert 1",
        "def test_other():\n\tassert 1\n\tassert 2",
        "def test_other():\n    assert 1; assert 2  # why",
        "def test_other():\n    # why\n\n    assert 1\n    # because",
        "def test_other():\n    '''Docstring\n    of two lines.'''",
        "def test_other():\n    '''\nnot indented\n'''\n    assert 1",
        "def test_other():\n    assert (1,\n2)",
        "def test_other():\n    x = 1 + \\\n  2",
        "def test_other(\n    a,\n    b=(1,\n       2),\n):\n    assert a",
        "def test_other(\n    a,\n): assert a",
        "def test_other() -> \\\n    None: assert 1",
        "def test_other():\n    @decorated\n    def inner():\n        pass\n    inner()",
        "def test_other():\n    @decorated\n    class Inner:\n        pass",
        "def test_other():\n    if 1:\n        pass\n    else:\n        pass",
        "@decorated\ndef test_other():\n    yield 1",
    ],
)
@pytest.mark.parametrize("after", ["\n\n\ndef test_kept():\n    assert 'kept'\n", ""])
def test_what_is_left_is_python_with_the_same_lines(other: str, after: str) -> None:
    source = f"def test_kept():\n    assert 'first'\n{other}{after}"
    kept = matrix.only_test(source, "test_kept")
    ast.parse(kept)
    assert len(kept.rstrip("\n").split("\n")) <= len(source.split("\n"))
    assert names(kept) == names(source)
    assert kept.startswith("def test_kept():\n    assert 'first'\n")
    if after:
        assert kept.endswith(after)
        assert kept.count("\n") == source.count("\n")


@pytest.mark.parametrize("mark", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_marks_that_end_no_line_of_python_do_not_shift_lines(mark: str) -> None:
    source = f"TEXT = '''{mark}'''\ndef test_other():\n    assert 1\n\ndef test_kept():\n    assert TEXT\n"
    expected = f"TEXT = '''{mark}'''\ndef test_other():\n    ...\n\ndef test_kept():\n    assert TEXT\n"
    assert matrix.only_test(source, "test_kept") == expected


def test_a_form_feed_between_functions_stays() -> None:
    source = "def test_other():\n    assert 1\n\f\ndef test_kept():\n    pass\n"
    assert matrix.only_test(source, "test_kept") == source.replace("assert 1", "...")


BODIES = st.sampled_from(
    [
        " pass",
        "\n    pass",
        "\n    a = 1\n    assert a",
        "\n\n    # why\n    assert '''\n'''\n",
        "\n    '''Why.'''\n    pass",
    ]
)


@settings(max_examples=60)
@given(bodies=st.lists(BODIES, min_size=1, max_size=6), data=st.data())
def test_any_module_stays_a_module(bodies: list[str], data: st.DataObject) -> None:
    source = "".join(f"def test_{number}():{body}\n" for number, body in enumerate(bodies))
    names = [f"test_{number}" for number in range(len(bodies))]
    keep = data.draw(st.sampled_from(names))
    kept = matrix.only_test(source, keep)
    before, after = (
        {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        for text in (source, kept)
    )
    assert list(after) == names
    assert [node.lineno for node in after.values()] == [node.lineno for node in before.values()]
    assert ast.dump(after[keep], include_attributes=True) == ast.dump(before[keep], include_attributes=True)


MEANT = "def test_a(x):\n    assert f(x, 1) == 'text'\n"


@pytest.mark.parametrize(
    "source",
    [
        "# why\n\n\ndef test_a(x):  # what\n\n    # how\n    assert f(x, 1) == 'text'\n\n\n# end\n",
        'def test_a( x ) :\n  assert (f(x,\n    0x1,\n  ) == "text")',
        "def test_a(x): assert f(x, 1) == 'te' 'xt'",
    ],
)
def test_layout_and_comments_mean_nothing(source: str) -> None:
    assert matrix.meaning(source) == matrix.meaning(MEANT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'text'", "'text '"),
        ("'text'", "b'text'"),
        ("1", "2"),
        ("1", "True"),
        ("==", "!="),
        ("f(", "g("),
        ("(x)", "(x=1)"),
        ("    assert", "    pass\n    assert"),
        ("    assert", "    'Docstring.'\n    assert"),
        ("def", "@marked\ndef"),
    ],
)
def test_everything_else_means_something(old: str, new: str) -> None:
    assert matrix.meaning(MEANT.replace(old, new, 1)) != matrix.meaning(MEANT)


def test_what_a_module_means_is_a_module_that_means_the_same() -> None:
    meant = matrix.meaning(SOURCE)
    assert ast.dump(ast.parse(meant)) == ast.dump(ast.parse(SOURCE))
    assert matrix.meaning(meant) == meant


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
