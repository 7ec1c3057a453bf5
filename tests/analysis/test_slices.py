"""The slices of a module: what a cell sees of it, and that an edit changes the key of a cell exactly when it changes the slice."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator

import pytest
import random_modules
import whole_slices
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.analysis import slices
from bkrules.analysis import test_marks as marks
from bkrules.analysis.harmless import Unproven
from bkrules.analysis.slices import Slices
from bkrules.analysis.test_files import Module
from bkrules.model.action import Text


def only_test(source: str, name: str) -> str:
    return Slices(source).text(name)


def names(source: str) -> list[str]:
    return [name for name, _, _ in marks.nodes(ast.parse(source))]


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
    kept = only_test(SOURCE, keep)
    ast.parse(kept)
    emptied = {"test_first", "test_second", "test_method", "test_async"} - {keep}
    same = set(kept_lines(kept, SOURCE))
    everything = set(range(1, len(SOURCE.split("\n")) + 1))
    assert everything - lines_of(SOURCE, *emptied) <= same
    assert lines_of(SOURCE, keep) <= same


def test_the_bodies_of_the_others_are_gone() -> None:
    kept = only_test(SOURCE, "test_second")
    assert "Its docstring" not in kept
    assert "its comment" not in kept
    assert "n < value" not in kept
    assert "value == LIMIT" not in kept
    assert names(kept) == names(SOURCE)


def test_decorators_and_signatures_of_the_others_stay() -> None:
    kept = ast.parse(only_test(SOURCE, "test_second"))
    [first] = [node for node in kept.body if isinstance(node, ast.FunctionDef) and node.name == "test_first"]
    assert [ast.unparse(one) for one in first.decorator_list] == [
        "pytest.mark.slow",
        "pytest.mark.parametrize('n', [1, 2])",
    ]
    assert [one.arg for one in first.args.args] == ["n", "value"]
    assert ast.unparse(first.body[0]) == "..."
    assert len(first.body) == 1


def test_methods_and_coroutines_are_tests_of_their_own() -> None:
    kept = only_test(SOURCE, "test_second")
    assert kept.endswith(
        "    def test_method(self) -> None:\n        ...\n\n\nasync def test_async() -> None:\n    ...\n"
    )
    assert only_test(SOURCE, "test_async").endswith("async def test_async() -> None:\n    assert LIMIT\n")
    kept = only_test(SOURCE, "TestClass::test_method")
    method = kept[kept.index("class TestClass") : kept.index("async")]
    assert method == SOURCE[SOURCE.index("class TestClass") : SOURCE.index("async")]
    assert "n < value" not in kept


def test_an_edit_of_one_test_leaves_the_others_as_they_were() -> None:
    edited = SOURCE.replace("assert n < value", "assert n <= value")
    assert only_test(edited, "test_second") == only_test(SOURCE, "test_second")
    assert only_test(edited, "test_first") != only_test(SOURCE, "test_first")


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
    assert only_test(source, "test_kept") == source


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
    assert only_test(source, "test_kept") == source
    assert slices.looks_at_its_own(source)


@pytest.mark.parametrize("body", ["assert 0x" + "f" * 5000, "assert " + "+".join("1" * 900)])
def test_what_cannot_be_written_again_means_its_text(body: str) -> None:
    source = f"def test_a():\n    {body}\n"
    assert slices.meaning(source) in (source, source.strip().replace("+", " + "))


def test_tests_that_only_speak_of_each_other_are_emptied() -> None:
    source = "def test_a():\n    test_b()\ndef test_b():\n    test_a()\ndef test_kept():\n    pass\n"
    assert only_test(source, "test_kept") == (
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
    kept = only_test(source, "test_kept")
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
    assert only_test(source, "test_kept") == expected


def test_a_form_feed_between_functions_stays() -> None:
    source = "def test_other():\n    assert 1\n\f\ndef test_kept():\n    pass\n"
    assert only_test(source, "test_kept") == source.replace("assert 1", "...")


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
    kept = only_test(source, keep)
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
    assert slices.meaning(source) == slices.meaning(MEANT)


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
    assert slices.meaning(MEANT.replace(old, new, 1)) != slices.meaning(MEANT)


def test_what_a_module_means_is_a_module_that_means_the_same() -> None:
    meant = slices.meaning(SOURCE)
    assert ast.dump(ast.parse(meant)) == ast.dump(ast.parse(SOURCE))
    assert slices.meaning(meant) == meant


# An edit changes the key of a cell exactly when it changes the slice.

SETS = """import pytest
@pytest.mark.parametrize("a, b", [
    (1, 2), ["x",
    "y"], pytest.param(object(), 3, id="given", marks=pytest.mark.slow),
])
@pytest.mark.parametrize("c", (True, None, [1]), ids=["one", "two", "three"])
@pytest.mark.slow
def test_sets(a, b, c):
    assert test_other

def test_other(): pass

class TestClass:
    LIMIT = 3
    def test_method(self):
        test_far()
    class TestInner:
        '''Docstring.'''
        @pytest.mark.parametrize("n", ["a"])
        def test_inner(self, n):
            assert n

@pytest.mark.parametrize("n", [0x1])
def test_far(n):
    assert test_sets
"""


@pytest.mark.parametrize("source", [SOURCE, SETS])
def test_a_slice_is_that_of_a_module_read_for_one_cell_alone(source: str) -> None:
    for test in marks.read_tests(source):
        assert_same(source, test)


def assert_same(source: str, test: marks.Test) -> None:
    """The text of a cell's slice is what an own parse of the module for this cell gives."""
    found = Slices(source)
    assert found.text(test.callable, test.sets) == whole_slices.only_test(source, test.callable, test.sets)
    assert found.is_whole(test.callable, test.sets) == (whole_slices.shown(source, test) is None)


Leaves = tuple[object, object]


def leaves(source: str) -> dict[tuple[str, str], Leaves]:
    """What the key of each test's cell covers of its module: the names of the tests and the slice."""
    module = Module("test_it.py", source, marks.read_tests(source))
    found: dict[tuple[str, str], Leaves] = {}
    for test in module.tests:
        declared, own = (item for _, item in sorted(module.staged(test).items()))
        assert isinstance(declared, Text)
        found[test.callable, test.name] = declared.data, own.data if isinstance(own, Text) else ("file", source)
    return found


def plain_leaves(source: str) -> dict[tuple[str, str], Leaves]:
    """The same, of a whole module that is read again for each cell."""
    tests = marks.read_tests(source)
    found: dict[tuple[str, str], Leaves] = {}
    for test in tests:
        shown = whole_slices.shown(source, test)
        declared = whole_slices.declared(tests, test, whole=shown is None)
        found[test.callable, test.name] = declared, ("file", source) if shown is None else slices.meaning(shown)
    return found


def as_a_cell_reads_it(source: str) -> dict[tuple[str, str], bytes]:
    module = Module("test_it.py", source, marks.read_tests(source))
    found = {}
    for test in module.tests:
        declared = module.staged(test)["src/.bk-tests.json"]
        assert isinstance(declared, Text)
        found[test.callable, test.name] = declared.read()
    return found


def edits(source: str, chance: random.Random) -> Iterator[str]:
    """Edits of a module that leave it a module whose tests syntax proves."""
    lines = source.split("\n")

    def at() -> int:
        return chance.randrange(len(lines))

    def dropped() -> list[str]:
        place = at()
        return [*lines[:place], *lines[place + chance.randint(1, 3) :]]

    def doubled() -> list[str]:
        place = at()
        return [*lines[:place], *lines[place : place + 4], *lines[place:]]

    def swapped() -> list[str]:
        first, second = sorted((at(), at()))
        return [*lines[:first], *lines[second : second + 3], *lines[first:second], *lines[second + 3 :]]

    def inserted(text: str) -> Callable[[], list[str]]:
        def edit() -> list[str]:
            place = at()
            indent = re.match(" *", lines[place])
            assert indent is not None
            return [*lines[:place], f"{indent[0]}{text}", *lines[place:]]

        return edit

    def replaced(pattern: str, text: str) -> Callable[[], list[str]]:
        def edit() -> list[str]:
            found = list(re.finditer(pattern, source))
            one = chance.choice(found) if found else None
            return (f"{source[: one.start()]}{text}{source[one.end() :]}" if one else source).split("\n")

        return edit

    kinds = [
        *(dropped, doubled, swapped),
        *map(inserted, ("# a comment", "", "pass", "test_new = None", "def test_new(): pass", "NAMES = dir()")),
        *(replaced(r"\d", "7"), replaced(r"\btest_(?=\w)", "test_x"), replaced(r"\]", ", 5]"), replaced(r"\[", "[6, ")),
        *(
            replaced(r"\(", "( "),
            replaced(r"\bpass\b", "test_0()"),
            replaced(r"'", '"'),
            replaced(r"\bassert\b", "print"),
        ),
    ]
    for kind in kinds:
        edited = "\n".join(kind())
        try:
            if edited != source and marks.read_tests(edited):
                yield edited
        except (SyntaxError, Unproven):
            continue


def test_an_edit_changes_the_keys_of_the_cells_whose_slices_it_changes() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    sources = [SOURCE, SETS]
    while len(sources) < rounds(12):
        text = random_modules.Source(chance, 0.0).text()
        try:
            if marks.read_tests(text):
                sources.append(text)
        except (SyntaxError, Unproven):
            continue
    changed = kept = 0
    for source in sources:
        before, plain = leaves(source), plain_leaves(source)
        for test in marks.read_tests(source):
            assert_same(source, test)
        for edited in edits(source, chance):
            after, plain_after = leaves(edited), plain_leaves(edited)
            assert as_a_cell_reads_it(edited) == {cell: declared for cell, (declared, _) in plain_after.items()}
            for cell in before.keys() & after.keys():
                same = before[cell] == after[cell]
                assert same == (plain[cell] == plain_after[cell]), (
                    f"seed {seed}: {cell}\n{source}\n--- edited\n{edited}"
                )
                kept += same
                changed += not same
    print(f"seed {seed}: {len(sources)} modules, {changed} keys changed, {kept} stayed")
    assert changed > 20
    assert kept > 20


def test_what_python_cannot_write_again_counts_as_it_is_written() -> None:
    number = "0x" + "f" * 5000
    source = f"def test_a():\n    pass\n\nLONG = {number}\n"
    cell = ("test_a", "test_a")
    assert leaves(source)[cell] == leaves(source.replace("pass", "pass  # why"))[cell]
    assert leaves(source)[cell] != leaves(source.replace("fff\n", "ffe\n"))[cell]


def test_a_test_that_looks_at_its_module_makes_no_text_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text for each cell would cost as many lines as the square of the tests."""
    found = Slices("def test_looks(): assert globals()\ndef test_one():\n    assert 1\ndef test_two():\n    assert 2\n")

    def text(*_: object) -> str:
        raise AssertionError("the text was made")

    monkeypatch.setattr(Slices, "text", text)
    assert [found.is_whole(name) for name in ("test_looks", "test_one", "test_two")] == [True, False, False]
