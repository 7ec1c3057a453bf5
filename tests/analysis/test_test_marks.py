"""What is read of tests from their syntax is what pytest makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bkrules.analysis import cell_rules, matrix, test_marks
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

@pytest.fixture(params=["f", "g"])
def kind(request): return request.param

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
HIDDEN = """
import pytest
KNOWN = [1, 2]

@pytest.mark.parametrize("a", KNOWN)
def test_names(a): pass

@pytest.mark.parametrize("a", [1, *KNOWN])
def test_starred(a): pass

@pytest.mark.parametrize("a", [KNOWN, 2])
def test_value(a): pass

@pytest.mark.parametrize("a", [1, 1])
def test_twice(a): pass

@pytest.mark.parametrize("a", [])
def test_empty(a): pass

@pytest.mark.parametrize("a", ["a/b", "c d", "é"])
def test_no_folder(a): pass

@pytest.mark.parametrize("a", [1, 2], ids=str)
def test_ids(a): pass

@pytest.mark.parametrize("a", [1])
@pytest.mark.parametrize("b", KNOWN)
def test_half(a, b): pass
"""


WORDS = ("names", "starred", "value", "twice", "empty", "no_folder", "ids", "half")


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
    by_pytest = [name for name in collected(tmp_path, SOURCE)[0] if "with_a_fixture" not in name]
    by_syntax = [name for name in names(SOURCE) if "with_a_fixture" not in name]
    assert len(by_syntax) > 15
    assert sorted(by_syntax) == sorted(by_pytest)


def test_sets_that_only_pytest_knows_stay_one_test() -> None:
    assert names(HIDDEN) == [f"test_{name}" for name in WORDS]
    assert [name for name in names(SOURCE) if "with_a_fixture" in name] == [
        "test_with_a_fixture[1]",
        "test_with_a_fixture[2]",
    ]


def test_a_set_is_known_by_its_numbers() -> None:
    found = {test.name: test for test in read_tests(SOURCE)}
    assert found["test_stacked[first-2-y]"].sets == (0, 1)
    assert found["test_stacked[first-2-y]"].callable == "test_stacked"
    assert found["TestGroup::test_method[2-m]"].sets == (1, 0)
    assert found["TestGroup::test_method[2-m]"].callable == "TestGroup::test_method"


def test_only_its_set_is_left_in_place(tmp_path: Path) -> None:
    chosen = [test for test in read_tests(SOURCE) if test.sets]
    texts = [matrix.only_test(SOURCE, test.callable, test.sets) for test in chosen]
    assert {text.count("\n") for text in texts} == {SOURCE.count("\n")}
    for test, by_pytest in zip(chosen, collected(tmp_path, *texts), strict=True):
        own = [one for one in by_pytest if one.partition("[")[0] == test.callable]
        if "containers" in test.name:
            assert own == ["test_containers[a0]"]  # pytest counts, and there is one set now
        elif "fixture" in test.name:
            number = test.name[-2]
            assert sorted(own) == [f"test_with_a_fixture[{kind}-{number}]" for kind in "fg"]
        else:
            assert own == [test.name]


def test_another_set_is_no_part_of_a_cell() -> None:
    edited = SOURCE.replace('(2, "y")', '(2, "z"),\n    (9, "new")')
    [test] = [one for one in read_tests(SOURCE) if one.name == "test_stacked[q-1-x]"]
    [same] = [one for one in read_tests(edited) if one.name == "test_stacked[q-1-x]"]
    before, after = (matrix.only_test(text, one.callable, one.sets) for text, one in ((SOURCE, test), (edited, same)))
    assert matrix.meaning(before) == matrix.meaning(after)


def test_sets_over_several_lines_keep_their_lines() -> None:
    source = (
        "@pytest.mark.parametrize(\n    'é',\n    [\n        'ä',\n        (\n            'b'\n        ),\n    ],\n"
        "    ids=['one',\n         'two'])\ndef test_a(é): assert é == 'é'\n"
    )
    assert matrix.only_test(source, "test_a", [1]) == (
        "@pytest.mark.parametrize(\n    'é',\n    [\n\n\n'b'\n\n],\n    ids=[\n'two'])\ndef test_a(é): assert é == 'é'\n"
    )


def test_marks_are_those_of_the_set_the_function_the_class_and_the_module() -> None:
    found = {test.name: [mark.name for mark in test.marks] for test in read_tests(SOURCE)}
    assert found["test_one[two]"] == ["parametrize", "everywhere"]
    assert found["test_keywords[3-4]"] == ["skip", "parametrize", "everywhere"]
    assert found["test_keywords[1-2]"] == ["parametrize", "everywhere"]
    assert found["TestGroup::TestInner::test_deep[m]"] == ["parametrize", "grouped", "everywhere"]


@pytest.mark.parametrize(
    ("mark", "arguments", "keywords"),
    [
        ("pytest.mark.x", (), {}),
        ("pytest.mark.x()", (), {}),
        ("pytest.mark.x('a', 1, key=['b'])", ("a", 1), {"key": ["b"]}),
        ("pytest.mark.x(NAME)", None, None),
        ("pytest.mark.x(key=f())", None, None),
    ],
)
def test_arguments_of_a_mark(mark: str, arguments: object, keywords: object) -> None:
    [test] = read_tests(f"@{mark}\ndef test_a(): pass")
    found = test.mark("x")
    assert found is not None
    assert (found.arguments, found.keywords) == (arguments, keywords)
    assert test.mark("y") is None


def test_a_base_class_elsewhere_hides_tests() -> None:
    with pytest.raises(LoadError, match=r"the class TestX inherits from other\.Base") as caught:
        read_tests("import other\n\nclass TestX(other.Base):\n    def test_a(self): pass\n")
    assert (caught.value.reason, caught.value.where) == ("unseen-tests", "3")
    assert names("class TestX(Generic[T]):\n    def test_a(self): pass\n") == ["TestX::test_a"]


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
    [test] = read_tests(source)
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
    assert (caught.value.reason, caught.value.where) == (reason, "2")


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
