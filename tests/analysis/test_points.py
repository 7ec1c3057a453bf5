"""Which points of a matrix are cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.analysis.points import Entry, Points
from bkrules.analysis.test_marks import read_tests
from bkrules.errors import LoadError

TESTS = read_tests(
    "import pytest\n"
    "def test_a(): pass\n"
    "@pytest.mark.parametrize('n', [1, 2])\n"
    "def test_b(n): pass\n"
    "class TestC:\n"
    "    def test_d(self): pass\n"
)
WORKERS = ("oci", "rootless")
AXES = {"kind": ("gzip", "estargz")}


def error(reason: str, message: str, attribute: str, hint: str) -> LoadError:
    return LoadError(reason, message, where=attribute, hint=hint)


def cells(exclude: Sequence[Entry] = (), include: Sequence[Entry] = ()) -> list[str]:
    points = Points(exclude, include, tests=TESTS, workers=WORKERS, axes=AXES, error=error)
    return [
        f"{test.name}/{worker}/{kind}"
        for test, worker, kind in itertools.product(TESTS, WORKERS, AXES["kind"])
        if points.has(test, worker, [("kind", kind)])
    ]


def test_an_axis_that_some_tests_have_by_themselves() -> None:
    points = Points([{"mode": "x"}], (), tests=TESTS, workers=WORKERS, axes={**AXES, "mode": ("x",)}, error=error)

    assert points.has(TESTS[0], "oci", [("kind", "gzip")])
    assert not points.has(TESTS[1], "oci", [("kind", "gzip"), ("mode", "x")])


def test_without_entries_every_point_is_a_cell() -> None:
    assert len(cells()) == 4 * 2 * 2


@pytest.mark.parametrize(
    ("entry", "gone"),
    [
        ({"worker": "rootless"}, 8),
        ({"worker": "rootless", "kind": "gzip"}, 4),
        ({"test": "test_a"}, 4),
        ({"test": "test_b"}, 8),
        ({"test": "test_b[1]"}, 4),
        ({"test": "TestC", "worker": "oci"}, 2),
        ({"test": "TestC::test_d"}, 4),
        ({"test": "test_*"}, 12),
        ({"test": "test_b[[]2*", "kind": "gzip"}, 2),
    ],
)
def test_an_entry_names_what_has_all_of_its_values(entry: Entry, gone: int) -> None:
    left = cells([entry])
    assert len(left) == 16 - gone
    assert len(cells([entry, entry])) == 16 - gone
    assert cells([entry], [entry]) == cells()


def test_include_gives_back_a_part_of_what_is_excluded() -> None:
    left = cells([{"kind": "estargz"}], [{"kind": "estargz", "worker": "oci"}])
    assert len(left) == 8 + 4
    assert not [name for name in left if name.endswith("rootless/estargz")]


@pytest.mark.parametrize(
    ("entry", "reason", "hint"),
    [
        ({"wroker": "oci"}, "unknown-axis", "did you mean 'worker'?"),
        ({"worker": "rotless"}, "unknown-value", "did you mean 'rootless'?"),
        ({"kind": "zip"}, "unknown-value", "did you mean 'gzip'?"),
        ({"test": "test_x"}, "unknown-test", "tests: TestC::test_d, test_a, test_b"),
        ({"test": "test_x*"}, "unknown-test", "tests: "),
        ({}, "bad-entry", ""),
    ],
)
@pytest.mark.parametrize("attribute", ["exclude", "include"])
def test_an_entry_that_names_nothing_is_an_error(attribute: str, entry: Entry, reason: str, hint: str) -> None:
    with pytest.raises(LoadError) as caught:
        cells(**{attribute: [entry]})
    assert (caught.value.reason, caught.value.where) == (reason, attribute)
    assert hint in caught.value.hint


def test_an_include_without_an_effect_is_an_error() -> None:
    with pytest.raises(LoadError) as caught:
        cells([{"kind": "estargz", "test": "test_a"}], [{"test": "test_b"}])
    assert (caught.value.reason, caught.value.where) == ("bad-entry", "include")


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "worker": st.sampled_from(WORKERS),
            "kind": st.sampled_from(AXES["kind"]),
            "test": st.sampled_from(["test_a", "test_b", "test_b[2]", "TestC"]),
        },
    ).filter(bool),
    max_size=4,
)


@given(ENTRIES, ENTRIES)
def test_exclude_and_include_are_sets(exclude: list[Entry], include: list[Entry]) -> None:
    everything = set(cells())
    gone = set().union(*(everything - set(cells([entry])) for entry in exclude))
    back = set().union(*(everything - set(cells([entry])) for entry in include))
    meaningful = [entry for entry in include if gone & (everything - set(cells([entry])))]
    if len(meaningful) < len(include):
        with pytest.raises(LoadError):
            cells(exclude, include)
    else:
        assert set(cells(exclude, include)) == everything - (gone - back)
