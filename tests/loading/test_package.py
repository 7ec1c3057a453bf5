from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from bkrules.errors import LoadError
from bkrules.loading.loader import load
from bkrules.loading.package import Package
from bkrules.model.label import Label
from bkrules.model.resources import ONLY_IN_BAZEL
from bkrules.model.rule import Rule

Load = Callable[[str], Package]
Fail = Callable[[str], LoadError]


@pytest.fixture
def read(rules: dict[str, Rule]) -> Load:
    return lambda text: load(text.encode(), "pkg/BUILD.py", "pkg", rules)


@pytest.fixture
def fail(read: Load) -> Fail:
    def run(text: str) -> LoadError:
        with pytest.raises(LoadError) as caught:
            read(text)
        return caught.value

    return run


IMPORTS = [
    "import os",
    "import bkrules",
    "import os.path as thing",
    "from os import path",
    "from bkrules.rules import RULES",
    "from . import thing",
    "from .bkrules import thing",
    "from __future__ import annotations",
    "if True: from bkrules import thing",
    "def f(): import os",
]
SYNTAX = [
    "while True: pass",
    "try: x = 1\nexcept: pass",
    "with x: pass",
    "class A: pass",
    "x = {1, 2}",
    "x = {y for y in []}",
    "async def f(): pass",
    "def f(): yield 1",
    "def f(): yield from []",
    "x = lambda: (yield)",
    "x: int = 1",
    "(x := 1)",
    "del x",
    "assert True",
    "raise x",
    "match 1:\n  case 1: pass",
    "def f(): global x",
    "def f():\n  x = 1\n  def g(): nonlocal x",
    "@thing\ndef f(): pass",
    "x = b'bytes'",
    "thing.x = 1",
    "for thing.x in [1]: pass",
    "x[0:1] += [2]",
]
NAMES = [
    *("__import__('os')", "__builtins__", "x = __name__", "__x = 1", "def f(__operate): pass"),
    *("f = lambda __step: 1", "f = lambda a, *, __text = 1: a", "f = lambda *__method: 1", "f = lambda **__mutable: 1"),
    "def f(a: __import__('os')): pass",
]
ATTRIBUTES = [
    "x = thing.__globals__",
    "x = (1).__class__",
    "x = 'a'._b",
    "x = '{0}'.format(1)",
    "x = '{a}'.format_map({})",
    "x = f'{len.__self__}'",
    "x = int.mro()",
    "x = list(map(str.format, ['{}'], [1]))",
    "x = (i for i in []).gi_frame",
    "x = (i for i in []).gi_code",
    "def f() -> (1).__class__: pass",
    "def f(a: (1).__class__): pass",
    "f = lambda a = (1).__class__: a",
    "x = f'{(1).__class__!r}'",
    "x = f'{1:{len.__self__}}'",
    "x = (1).__\uff43lass__",
    "x = 'a'.encode('rot13')",
    "x = 'a'.translate({})",
    "x = y.f_back",
    "x = y.f_globals",
    "x = y.f_builtins",
    "x = y.f_locals",
]
MISSING = [
    *("open('x')", "getattr(1, 'real')", "exec('1')", "eval('1')", "compile('1', '', 'eval')", "print(1)"),
    *("set()", "hash('a')", "id(1)", "type(1)", "vars()", "globals()", "locals()", "repr(1)", "input()", "object()"),
    *("frozenset()", "dir()", "breakpoint()", "setattr(1, 'a', 1)", "memoryview('')", "super()", "os"),
]
FORBIDDEN = [
    *(("forbidden-import", text) for text in IMPORTS),
    *(("forbidden-syntax", text) for text in SYNTAX),
    *(("forbidden-name", text) for text in NAMES),
    *(("forbidden-attribute", text) for text in ATTRIBUTES),
    *(("unknown-name", text) for text in MISSING),
]


@pytest.mark.parametrize(("reason", "text"), FORBIDDEN, ids=[text.replace("\n", ";") for _, text in FORBIDDEN])
def test_ways_out_are_refused_with_their_place(reason: str, text: str, fail: Fail) -> None:
    above = "from bkrules import thing\n\n"
    lines = text.splitlines()
    error = fail(f"{above}{text}\n")
    assert error.reason == reason
    assert error.where in [f"pkg/BUILD.py:{number}" for number in range(3, 3 + len(lines))]
    assert error.hint


def test_the_place_is_that_of_the_line_itself(fail: Fail) -> None:
    assert fail("x = 1\nfor y in [1]:\n  z = (\n    x.__class__\n  )\n").where == "pkg/BUILD.py:4"
    assert fail("def f():\n  return open('x')\n\nx = 1\nf()\n").where == "pkg/BUILD.py:2"


def test_a_generators_frame_does_not_lead_to_the_host(fail: Fail) -> None:
    error = fail(
        "held = []\n"
        "held.append(held[0].gi_frame.f_back.f_back.f_back for _ in [0])\n"
        "frame = [one for one in held[0]][0]\n"
        "frame.f_globals['builtins'].open\n"
    )
    assert error.reason == "forbidden-attribute"
    assert error.where == "pkg/BUILD.py:2"


@pytest.mark.parametrize(
    "text",
    ["from bkrules import thing as __builtins__\nlen([])", "def __builtins__(): pass"],
)
def test_the_builtins_cannot_be_replaced(text: str, fail: Fail) -> None:
    assert fail(text).reason == "forbidden-name"


def test_a_name_without_its_import_is_explained(fail: Fail) -> None:
    error = fail("thing(name = 'a')")
    assert error.reason == "unknown-name"
    assert "from bkrules import thing" in error.hint
    assert "'sorted'" in fail("sorteed([1])").hint


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[n + '!' for n in ['a', 'b'] if n != 'a']", ("b!",)),
        ("list(map(lambda n: n.upper(), ['a']))", ("A",)),
        ("sorted({'b': 1, 'a': 2})", ("a", "b")),
        ("['%s-%d' % ('a', 1), f'{1 + 1:03}', 'x' * 2]", ("a-1", "002", "xx")),
        ("[*['a'], 'bcd'[1:], 'x' if 1 < 2 and not False else 'y']", ("a", "cd", "x")),
        ("list(dict(a = 1, **{'b': 2}).keys())", ("a", "b")),
        ("[str(n) for n in (1, -2)]", ("1", "-2")),
    ],
)
def test_expressions_that_build_files_may_use(expression: str, value: tuple[str, ...], read: Load) -> None:
    package = read(f"from bkrules import thing\nthing(name = 'a', words = {expression})")
    assert package.targets["a"].attributes["words"] == value


def test_statements_that_build_files_may_use(read: Load) -> None:
    package = read(
        "from bkrules import thing as renamed, strict\n"
        "def both(name, title = 'x', *rest, **more):\n"
        "  'A macro.'\n"
        "  renamed(name = name, **more)\n"
        "  strict(name = name + '_strict', title = title)\n"
        "  return name\n"
        "names = []\n"
        "for number in range(10):\n"
        "  if number == 1:\n"
        "    continue\n"
        "  elif number > 2:\n"
        "    break\n"
        "  names += [both('t' + str(number), size = number + 1)]\n"
        "else:\n"
        "  pass\n"
    )
    assert list(package.targets) == ["t0", "t0_strict", "t2", "t2_strict"]
    assert package.targets["t2"].attributes["size"] == 3


def test_a_target_has_its_attributes_with_labels_and_defaults(read: Load) -> None:
    target = read(
        "from bkrules import thing\n"
        "thing(name = 'a', dep = ':b', deps = ['//x:y', 'z'], by_name = {'n': '//x'}, table = {'k': [1]}, ready = True)\n"
    ).targets["a"]
    assert target.label == Label("pkg", "a")
    assert target.attributes == {
        "name": "a",
        "tags": (),
        "title": None,
        "words": (),
        "ready": True,
        "size": 1,
        "table": {"k": [1]},
        "dep": Label("pkg", "b"),
        "deps": (Label("x", "y"), Label("pkg", "z")),
        "by_name": {"n": Label("x", "x")},
    }
    assert target.labels() == [
        ("dep", Label("pkg", "b")),
        ("deps", Label("x", "y")),
        ("deps", Label("pkg", "z")),
        ("by_name", Label("x", "x")),
    ]


def test_a_target_knows_the_line_of_each_attribute(read: Load) -> None:
    location = (
        read("from bkrules import thing\n\nthing(\n  name = 'a',\n  size = (\n    2),\n)\n").targets["a"].location
    )
    assert str(location) == "pkg/BUILD.py:3"
    assert location.of("size").startswith("pkg/BUILD.py:6")
    assert location.of("title").startswith("pkg/BUILD.py:3")


@pytest.mark.parametrize("tag", [*ONLY_IN_BAZEL, "no_cache", "No-Sandbox"])
def test_a_tag_that_only_bazel_has_is_refused(tag: str, fail: Fail) -> None:
    error = fail(f"from bkrules import thing\nthing(name = 'a', tags = ['{tag}'])\n")
    assert (error.reason, error.where) == ("unknown-tag", "pkg/BUILD.py:2, attribute 'tags'")
    assert error.hint.splitlines() == [
        ONLY_IN_BAZEL[tag.lower().replace("_", "-")],
        "a tag of your own needs another name",
    ]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("thing(name = 'a',\n words = ['x', 1])", "bad-attribute"),
        ("thing(name = 'a',\n words = 'x')", "bad-attribute"),
        ("thing(name = 'a',\n title = 1)", "bad-attribute"),
        ("thing(name = 'a',\n title = None)", "bad-attribute"),
        ("thing(name = 'a',\n ready = 1)", "bad-attribute"),
        ("thing(name = 'a',\n size = 0)", "bad-attribute"),
        ("thing(name = 'a',\n size = True)", "bad-attribute"),
        ("thing(name = 'a',\n size = 1.0)", "bad-attribute"),
        ("thing(name = 'a',\n table = [1])", "bad-attribute"),
        ("thing(name = 'a',\n table = {1: 2})", "bad-attribute"),
        ("thing(name = 'a',\n dep = 'x y')", "bad-attribute"),
        ("thing(name = 'a',\n dep = 1)", "bad-attribute"),
        ("thing(name = 'a',\n deps = ['//a:../b'])", "bad-attribute"),
        ("thing(name = 'a',\n by_name = {'n': ''})", "bad-attribute"),
        ("thing(name = 'a',\n wrods = [])", "unknown-attribute"),
        ("thing(\n name = 'a b')", "bad-name"),
        ("thing(\n name = '')", "bad-name"),
        ("thing(\n name = '/a')", "bad-name"),
        ("thing(\n name = '../a')", "bad-name"),
        ("thing(\n name = 1)", "bad-name"),
        ("thing(\n name = ['a'])", "bad-name"),
    ],
)
def test_a_bad_attribute_is_refused_at_its_line(call: str, reason: str, fail: Fail) -> None:
    error = fail(f"from bkrules import thing\n{call}\n")
    assert error.reason == reason
    line = 3 if "(\n" in call or "\n " in call else 2
    attribute = call.split("\n ")[1].split(" =")[0]
    assert error.where == f"pkg/BUILD.py:{line}, attribute {attribute!r}"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("strict(name = 'a')", "missing-attribute"),
        ("thing()", "bad-name"),
        ("thing('a')", "positional"),
        ("list(map(thing, ['a']))", "positional"),
        ("thing(name = 'a')\nthing(name = 'a')", "duplicate-name"),
    ],
)
def test_a_bad_call_is_refused_at_its_line(call: str, reason: str, fail: Fail) -> None:
    error = fail(f"from bkrules import strict, thing\n\n{call}\n")
    assert error.reason == reason
    assert error.where.startswith(f"pkg/BUILD.py:{2 + len(call.splitlines())}")


def test_an_unknown_attribute_has_its_neighbours_named(fail: Fail) -> None:
    assert "did you mean 'words'?" in fail("from bkrules import thing\nthing(name = 'a', wrods = [])").hint


def test_an_open_ended_rule_keeps_what_it_does_not_know(read: Load) -> None:
    target = read("from bkrules import loose\nloose(name = 'a', colour = ['red'])").targets["a"]
    assert target.extra == {"colour": ["red"]}
    assert "colour" not in target.attributes


def test_a_duplicate_names_the_first_place(fail: Fail) -> None:
    error = fail("from bkrules import strict, thing\nthing(name = 'a')\n\nstrict(name = 'a', title = '')\n")
    assert (error.reason, error.where) == ("duplicate-name", "pkg/BUILD.py:4")
    assert "pkg/BUILD.py:2" in error.hint


@pytest.mark.parametrize("name", ["thng", "*", "workspace"])
def test_an_unknown_rule_is_refused_at_its_line(name: str, fail: Fail) -> None:
    error = fail(f"\nfrom bkrules import thing, {name}\n" if name != "*" else "\nfrom bkrules import *\n")
    assert (error.reason, error.where) == ("unknown-rule", "pkg/BUILD.py:2")


def test_an_unknown_rule_has_its_neighbours_named(fail: Fail) -> None:
    assert "did you mean 'thing'?" in fail("from bkrules import thng").hint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\nx = (", 2),
        ("x = 1\nx = = 2", 2),
        ("x = 1\n  y = 2", 2),
        ("x = '", 1),
        ("x = 1\nreturn x", 2),
        ("x = 1\nbreak", 2),
        ("x = 1\ncontinue", 2),
        ("x = 1\ndef f(a, a): pass", 2),
        ("x = 1\nf(a = 1, a = 2)", 2),
        ("x = 1\n*y, *z = [1]", 2),
    ],
)
def test_a_syntax_error_has_its_line(text: str, line: int, fail: Fail) -> None:
    error = fail(text)
    assert (error.reason, error.where) == ("syntax-error", f"pkg/BUILD.py:{line}")


@pytest.mark.parametrize("data", [b"x = 1\0", b"\0", b"x = '\xff'", b"# coding: no-such-thing\n", b"\xff\xfe"])
def test_bytes_that_are_not_python_are_a_syntax_error(data: bytes, rules: dict[str, Rule]) -> None:
    with pytest.raises(LoadError) as caught:
        load(data, "pkg/BUILD.py", "pkg", rules)
    assert caught.value.reason == "syntax-error"
    assert caught.value.where.startswith("pkg/BUILD.py:")


@pytest.mark.parametrize(
    "text",
    ["-" * 100_000 + "1", "1" + " + 1" * 100_000, "x" + "[0]" * 100_000, "[" * 1000],
    ids=["signs", "sum", "subscripts", "brackets"],
)
def test_an_expression_without_end_is_an_error_of_the_file(text: str, fail: Fail) -> None:
    assert fail(f"x = {text}").where == "pkg/BUILD.py:1"


@pytest.mark.parametrize("statement", ["1 / 0", "[][0]", "{}['a']", "int('x')", "len(1)", "f()", "'a' + 1"])
def test_an_error_of_evaluation_has_its_line(statement: str, fail: Fail) -> None:
    error = fail(f"def f():\n  return f()\n\n{statement}\n")
    assert error.reason == ("recursion" if statement == "f()" else "evaluation")
    assert error.where == ("pkg/BUILD.py:2" if statement == "f()" else "pkg/BUILD.py:4")


def test_only_the_top_file_names_the_workspace(rules: dict[str, Rule]) -> None:
    package = load(b"from bkrules import workspace\nworkspace(name = 'w')", "WORKSPACE.py", "", rules, top=True)
    assert package.workspace == "w"


@pytest.mark.parametrize("arguments", ["name = 1", "name = ['w']", "'w'", "", "name = 'w', more = 1"])
def test_the_workspaces_name_is_a_string(arguments: str, rules: dict[str, Rule]) -> None:
    text = f"from bkrules import workspace\nworkspace({arguments})".encode()
    with pytest.raises(LoadError) as caught:
        load(text, "WORKSPACE.py", "", rules, top=True)
    assert caught.value.where.startswith("WORKSPACE.py:2")


def test_an_empty_file_is_a_package_without_targets(read: Load) -> None:
    assert read("") == Package("pkg", "pkg/BUILD.py")


def test_the_same_bytes_are_the_same_targets(read: Load) -> None:
    text = (
        "from bkrules import thing\n"
        "table = {'b': 1, 'a': 2}\n"
        "[thing(name = name, words = sorted(table), table = table) for name in table]\n"
    )
    first, second = ([(one.label, one.attributes, one.location) for one in read(text).targets.values()] for _ in "12")
    assert first == second
    assert [label.name for label, _, _ in first] == ["b", "a"]


PROGRAM = """
import sys
from bkrules.errors import LoadError
from bkrules.loading.loader import load
from bkrules.model.rule import Attr, Rule

rule = Rule("thing", "", {"words": Attr("strings", "", default=())}, lambda context: ())
try:
    print(load(sys.stdin.buffer.read(), "BUILD.py", "pkg", {"thing": rule}).targets["a"].attributes)
except LoadError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "words",
    [
        "sorted({'a': 1, 'b': 2})",
        "list({str(n): n for n in range(20)}.keys() | {}.keys())",
        "[str(lambda: 0)]",
        "[f'{thing}']",
        "['%s' % (n for n in [])]",
    ],
)
def test_loading_depends_on_nothing_but_the_bytes(words: str) -> None:
    def run(seed: str) -> str:
        text = f"from bkrules import thing\nthing(name = 'a', words = {words})"
        command = [sys.executable, "-c", PROGRAM]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=True).stdout

    assert run("1") == run("2")
