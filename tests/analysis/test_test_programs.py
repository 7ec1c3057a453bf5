"""Tests that are programs: the names of what a test of Go reaches."""

from __future__ import annotations

import pytest

from bkrules.analysis.test_programs import reached_names


@pytest.mark.parametrize(
    ("name", "on_harness", "names"),
    [
        ("TestA", False, ("TestA",)),
        ("TestA/sub/x=1", False, ("TestA",)),
        ("TestA", True, ("TestA",)),  # all of its leaves in one cell
        ("TestA/TestX/worker=@worker@", True, ("TestA+TestX", "TestA+", "TestA")),
    ],
)
def test_the_names_of_what_a_test_reaches(name: str, names: tuple[str, ...], *, on_harness: bool) -> None:
    assert reached_names(name, on_harness=on_harness) == names
