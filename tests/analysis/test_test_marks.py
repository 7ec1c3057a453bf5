"""What is read of tests from their syntax is what pytest makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bkrules.analysis import cell_rules, test_marks
from bkrules.analysis.harmless import Unproven
from bkrules.analysis.slices import Slices, meaning
from bkrules.analysis.test_marks import read_tests
from bkrules.errors import LoadError
from bkrules.plugin import FEATURES, Backend, Daemons, Mirror, Worker

SOURCE = """
import pytest
from pytest import mark, param

pytestmark = [pytest.mark.everywhere]
KNOWN = [1, 2]

@pytest.mark.parametrize("a", [1, "two", None, True, 2.5])
def test_one(a): pass

@pytest.mark.parametrize("a, b", [(1, "x"), (2, "y"), pytest.param(3, object(), id="third")])
@pytest.mark.parametrize("c", ["p", "q"], ids=["first", None])
def test_stacked(a, b, c): pass

@mark.parametrize(argnames=("a", "b"), argvalues=((1, 2), param(3, 4, marks=[mark.skip(reason="not now")])))
def test_keywords(a, b): pass

@pytest.mark.parametrize("a", [[1], {"b": 2}])
def test_containers(a): pass

@pytest.mark.parametrize("a", ["a/b", "c d", "é", "line\\nbreak", "nul\\0", "a::b", "[x]", "..", "", "Case", "case"])
def test_odd(a): pass

@pytest.mark.parametrize(("a",), [("one",), [b"two"]])
def test_tuples_of_one(a): pass

@pytest.mark.parametrize("a,", [(1,), pytest.param((2,))])
def test_a_comma(a): pass

@pytest.mark.parametrize("a, b", [(1, ["x"]), pytest.param("e", {}), (object(), 3)], ids=[None, None, "third"])
def test_pinned(a, b): pass

@pytest.mark.parametrize("a, b", [(1, ["x"]), pytest.param("é", {}), ("é\\n", [])])
def test_pinned_and_escaped(a, b): pass

@pytest.fixture
def kind(): return "kind"

@pytest.mark.parametrize("a", [1, 2])
def test_with_a_fixture(a, kind): pass

@pytest.mark.parametrize("outer", ["m"])
class TestGroup:
    pytestmark = pytest.mark.grouped

    @pytest.mark.parametrize("a", [1, 2])
    def test_method(self, a, outer): pass

    class TestInner:
        def test_deep(self, outer): pass
"""
HIDDEN = {
    "names": "@pytest.mark.parametrize('a', KNOWN)",
    "starred": "@pytest.mark.parametrize('a', [1, *KNOWN])",
    "value": "@pytest.mark.parametrize('a', [KNOWN, 2])",
    "twice": "@pytest.mark.parametrize('a', [1, 1])",
    "empty": "@pytest.mark.parametrize('a', [])",
    "ids": "@pytest.mark.parametrize('a', [1, 2], ids=str)",
    "half": "@pytest.mark.parametrize('a', [1])\n@pytest.mark.parametrize('b', KNOWN)",
    "arguments": "@pytest.mark.parametrize(*KNOWN)",
    "keywords": "@pytest.mark.parametrize('a', [1], **KNOWN)",
    "marks": "@pytest.mark.parametrize('a', [pytest.param(1, marks=KNOWN)])",
    "unlike": "@pytest.mark.parametrize('a, b', [(1, 2), (1,)])",
    "bytes": "@pytest.mark.parametrize('a', [b'\\xff'])",
    "escaped twice": "@pytest.mark.parametrize('a', ['é'], ids=[])",
    "a set as ids": "@pytest.mark.parametrize('a', [1, 2], ids={'x', 'y'})",
    "a text as ids": "@pytest.mark.parametrize('a', [1, 2], ids='xy')",
    "fewer ids": "@pytest.mark.parametrize('a', [1, 2], ids=['x'])",
    "crossed": "@pytest.mark.parametrize('a', ['q-r', 'r'])\n@pytest.mark.parametrize('b', ['p', 'p-q'])",
}


def collected(tmp_path: Path, *sources: str) -> list[list[str]]:
    """The ids that pytest itself gives to the tests of each module, without the module."""
    for number, source in enumerate(sources):
        (tmp_path / f"test_{number}.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-c", "/dev/null", "-p", "no:bk", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    pairs = [line.partition("::") for line in done.stdout.splitlines() if "::" in line]
    return [[name for file, _, name in pairs if file == f"test_{number}.py"] for number in range(len(sources))]


def names(source: str) -> list[str]:
    return [test.name for test in read_tests(source)]


def test_literal_parameter_sets_have_the_ids_of_pytest(tmp_path: Path) -> None:
    assert len(names(SOURCE)) > 35
    assert sorted(names(SOURCE)) == sorted(collected(tmp_path, SOURCE)[0])


@pytest.mark.parametrize("marks", HIDDEN.values(), ids=HIDDEN)
def test_sets_that_only_pytest_knows_prove_nothing(marks: str) -> None:
    with pytest.raises(Unproven) as caught:
        read_tests(f"import pytest\nKNOWN = [1, 2]\n{marks}\ndef test_a(a, b=1): pass\n")
    assert caught.value.line >= 3


def test_a_set_is_known_by_its_numbers() -> None:
    found = {test.name: test for test in read_tests(SOURCE)}
    assert found["test_stacked[first-2-y]"].sets == (0, 1)
    assert found["test_stacked[first-2-y]"].callable == "test_stacked"
    assert found["TestGroup::test_method[2-m]"].sets == (1,)
    assert found["TestGroup::test_method[2-m]"].callable == "TestGroup::test_method"


def test_only_its_set_is_left_in_place(tmp_path: Path) -> None:
    chosen = [test for test in read_tests(SOURCE) if test.sets]
    texts = [Slices(SOURCE).text(test.callable, test.sets) for test in chosen]
    assert {text.count("\n") for text in texts} == {SOURCE.count("\n")}
    for test, by_pytest in zip(chosen, collected(tmp_path, *texts), strict=True):
        assert [one for one in by_pytest if one.partition("[")[0] == test.callable] == [test.name]


def test_another_set_is_no_part_of_a_cell() -> None:
    edited = SOURCE.replace('(2, "y")', '(2, "z"),\n    (9, "new")')
    [test] = [one for one in read_tests(SOURCE) if one.name == "test_stacked[q-1-x]"]
    [same] = [one for one in read_tests(edited) if one.name == "test_stacked[q-1-x]"]
    before, after = (Slices(text).text(one.callable, one.sets) for text, one in ((SOURCE, test), (edited, same)))
    assert meaning(before) == meaning(after)


def test_sets_over_several_lines_keep_their_lines() -> None:
    source = (
        "import pytest\n@pytest.mark.parametrize(\n    'é',\n    [\n        'ä',\n        (\n            'b'\n        ),\n    ],\n"
        "    ids=['one',\n         'two'])\ndef test_a(é): assert é == 'é'\n"
    )
    assert Slices(source).text("test_a", [1]) == (
        "import pytest\n"
        "@pytest.mark.parametrize(\n    'é',\n    [\n\n\n'b'\n\n],\n    ids=[\n'two'])\ndef test_a(é): assert é == 'é'\n"
    )


def test_marks_are_those_of_the_set_the_function_the_class_and_the_module() -> None:
    found = {test.name: [mark.name for mark in test.marks] for test in read_tests(SOURCE)}
    assert found["test_one[two]"] == ["parametrize", "everywhere"]
    assert found["test_keywords[3-4]"] == ["skip", "parametrize", "everywhere"]
    assert found["test_keywords[1-2]"] == ["parametrize", "everywhere"]
    assert found["TestGroup::TestInner::test_deep[m]"] == ["grouped", "parametrize", "everywhere"]


@pytest.mark.parametrize(
    ("mark", "arguments", "keywords"),
    [
        ("pytest.mark.x", (), {}),
        ("pytest.mark.x()", (), {}),
        ("pytest.mark.x('a', 1, key=['b'])", ("a", 1), {"key": ["b"]}),
        ("pytest.mark.x(NAME)", None, None),
        ("pytest.mark.x(key=len('x'))", None, None),
    ],
)
def test_arguments_of_a_mark(mark: str, arguments: object, keywords: object) -> None:
    [test] = read_tests(f"import pytest\nNAME = 1\n@{mark}\ndef test_a(): pass")
    found = test.mark("x")
    assert found is not None
    assert (found.arguments, found.keywords) == (arguments, keywords)
    assert test.mark("y") is None


@dataclass(frozen=True)
class Rootful(Worker):
    name = "rootful"

    def tools(self) -> tuple[str, ...]:
        return ()

    def configuration(self, mirror: Mirror) -> dict[str, dict[str, object]]:
        return {}

    def start(self, daemons: Daemons) -> AbstractContextManager[Backend]:
        raise NotImplementedError


@dataclass(frozen=True)
class Rootless(Rootful):
    rootless = True

    def features(self) -> frozenset[str]:
        return super().features() - {"cdi", "sbom"}


def one(source: str) -> test_marks.Test:
    [test] = read_tests(f"import pytest; WHY = 'why'; NAME = 'cdi'\n{source}")
    return test


@pytest.mark.parametrize(
    ("source", "rootful", "rootless"),
    [
        ("def test_a(): pass", "", ""),
        ("@pytest.mark.no_rootless\ndef test_a(): pass", "", "the worker has no privileges"),
        ("def testCopyNoRootlessNoParallel(): pass", "", "the worker has no privileges"),
        ("class TestNoRootless:\n    def test_a(self): pass", "", "the worker has no privileges"),
        ("def test_no_rootless_daemon(): pass", "", ""),
        ("@pytest.mark.skip\ndef test_a(): pass", "unconditional skip", "unconditional skip"),
        ("@pytest.mark.skip('why')\ndef test_a(): pass", "why", "why"),
        ("@pytest.mark.skip(reason='why')\ndef test_a(): pass", "why", "why"),
        ("@pytest.mark.skip(reason=WHY)\ndef test_a(): pass", "", ""),
        ("@pytest.mark.skipif(True, reason='why')\ndef test_a(): pass", "", ""),
        ("@pytest.mark.requires('cdi')\ndef test_a(): pass", "", "the worker does not support cdi"),
        (
            "@pytest.mark.requires('info', 'sbom', 'cdi')\ndef test_a(): pass",
            "",
            "the worker does not support cdi, sbom",
        ),
        ("pytestmark = pytest.mark.requires('sbom')\ndef test_a(): pass", "", "the worker does not support sbom"),
        ("@pytest.mark.requires('info')\ndef test_a(): pass", "", ""),
    ],
)
def test_why_a_test_is_skipped(source: str, rootful: str, rootless: str) -> None:
    test = one(source)
    reasons = [
        cell_rules.skip_reason(test, rootless=worker.rootless, unsupported=FEATURES - worker.features())
        for worker in (Rootful(), Rootless())
    ]
    assert reasons == [rootful, rootless]


@pytest.mark.parametrize(
    ("arguments", "reason", "message"),
    [
        ("('cdl')", "unknown-feature", "test_a: there is no feature 'cdl'; did you mean 'cdi'?"),
        ("()", "bad-mark", "'requires' of test_a must name features"),
        ("", "bad-mark", "'requires' of test_a must name features"),
        ("(NAME)", "bad-mark", "'requires' of test_a must name features"),
        ("(feature='cdi')", "bad-mark", "'requires' of test_a must name features"),
    ],
)
def test_a_requirement_that_is_none(arguments: str, reason: str, message: str) -> None:
    test = one(f"\n@pytest.mark.requires{arguments}\ndef test_a(): pass\n")
    with pytest.raises(LoadError, match=re.escape(message)) as caught:
        cell_rules.required(test)
    assert (caught.value.reason, caught.value.where) == (reason, "3")


@pytest.mark.parametrize(
    ("mark", "meant"),
    [
        *(("require('cdi')", "requires"), ("xfial", "xfail"), ("skp(reason='x')", "skip"), ("skip_if(1)", "skipif")),
        *(("parametrise", "parametrize"), ("norootless", "no_rootless"), ("no_paralell", "no_parallel")),
        *(("usefixture('x')", "usefixtures"), ("extra_timeouts", "extra_timeout")),
    ],
)
def test_a_mark_that_is_misspelled(mark: str, meant: str) -> None:
    test = one(f"\n@pytest.mark.{mark}\ndef test_a(): pass\n")
    with pytest.raises(LoadError, match=f"did you mean '{meant}'") as caught:
        cell_rules.check_marks(test)
    assert (caught.value.reason, caught.value.where) == ("unknown-mark", "3")


@pytest.mark.parametrize("mark", ["slow", "rootless", "parallel", "timeout", "sk", "skip_slow", *cell_rules._KNOWN])
def test_marks_of_the_user_are_no_mistakes(mark: str) -> None:
    arguments = () if mark in cell_rules._BARE else ("cdi",)
    cell_rules.check_marks(test_marks.Test("test_a", 1, (test_marks.Mark(mark, 1, arguments),)))


@pytest.mark.parametrize(
    ("mark", "message", "hint"),
    [
        ("no_rootless(reason='x')", "'no_rootless' of test_a takes no arguments", "write @pytest.mark.no_rootless"),
        ("no_parallel(NAME)", "'no_parallel' of test_a takes no arguments", "write @pytest.mark.no_parallel"),
        ("extra_timeout(600)", "'extra_timeout' of test_a takes no arguments", "'size' and 'timeout' of the matrix"),
        ("skip(reson='x')", "'skip' of test_a has no argument 'reson'", "skip(reason = 'why')"),
        ("skip(True, reason='x')", "'skip' of test_a takes a reason and nothing else", "skipif(condition, reason"),
        ("skip('a', 'b')", "'skip' of test_a takes a reason and nothing else", "skipif(condition, reason"),
    ],
)
def test_a_mark_with_wrong_arguments(mark: str, message: str, hint: str) -> None:
    test = one(f"\n@pytest.mark.{mark}\ndef test_a(): pass\n")
    with pytest.raises(LoadError, match=message) as caught:
        cell_rules.check_marks(test)
    assert (caught.value.reason, caught.value.where) == ("bad-mark", "3")
    assert hint in caught.value.hint


@pytest.mark.parametrize("mark", ["no_rootless", "no_rootless()", "skip", "skip()", "skip('x')", "skip(reason=NAME)"])
def test_a_mark_with_right_arguments(mark: str) -> None:
    cell_rules.check_marks(one(f"\n@pytest.mark.{mark}\ndef test_a(): pass\n"))


def test_the_features_are_those_of_buildkits_harness() -> None:
    assert len(FEATURES) == 25


@pytest.mark.parametrize(
    ("source", "exclusive", "factor"),
    [
        ("def test_a(): pass", False, 1),
        ("@pytest.mark.no_parallel\ndef test_a(): pass", True, 1),
        ("def testDaemonNoParallel(): pass", True, 1),
        ("def testNoParallelDaemon(): pass", False, 1),
        ("@pytest.mark.extra_timeout\ndef test_a(): pass", False, 3),
        ("def testExtraTimeoutNoParallel(): pass", True, 3),
    ],
)
def test_what_a_test_needs_for_itself(source: str, exclusive: bool, factor: int) -> None:
    assert cell_rules.is_exclusive(one(source)) == exclusive
    assert cell_rules.time_factor(one(source)) == factor
