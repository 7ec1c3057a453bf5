"""The expectations that a file gets from what several cells saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from declarative.test_expectations import FAILED, SEEN

from bkrules.commands.expectations import _updated
from bkrules.declarative.seen import Seen
from bkrules.errors import BkError
from bkrules.model.label import Label
from bkrules.model.rule import Location, Target
from bkrules.rules.build_test import BUILD_TEST

TARGET = Target(Label("p", "m"), BUILD_TEST, {"name": "m"}, {}, Location("p/BUILD.py", 3, {"expect": 5}))


def refused(expect: dict[str, Any], **cells: Seen) -> BkError:
    with pytest.raises(BkError) as caught:
        _updated(TARGET, expect, cells)
    assert (caught.value.reason, caught.value.where) == ("not-recorded", "p/BUILD.py:5, attribute 'expect'")
    return caught.value


def test_cells_that_saw_the_same_give_one_document() -> None:
    expect = {"digest": None, "files": {"/hello.txt": None}}
    found = _updated(TARGET, expect, {"one": SEEN, "two": SEEN})
    assert found == {"digest": SEEN.digest, "files": {"/hello.txt": "hello\n"}}


def test_cells_that_disagree_are_named_with_what_differs() -> None:
    other = replace(SEEN, contents={"/hello.txt": "hullo\n"})
    expect = {"files": {"/run.sh": True, "/hello.txt": None}}
    assert refused(expect, one=SEEN, two=SEEN, three=other).message == (
        "//p:m: no file was written: 'files' is {'/hello.txt': 'hello\\n'} in one and {'/hello.txt': 'hullo\\n'} in three"
    )


def test_nothing_is_recorded_of_a_build_that_failed_or_did_not_run() -> None:
    assert "two: the build failed: error: failed to solve" in refused({"user": ""}, one=SEEN, two=FAILED).message
    assert refused({"user": ""}).message == "//p:m: none of its cells ran"
