"""The values that a build has, in the place of those that were expected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from declarative.test_expectations import FAILED, SEEN, TRUE

from bkrules.declarative.expectations import parse, problems
from bkrules.declarative.updated import NothingToRecord, updated

EVERYTHING: dict[str, Any] = {
    "files": {"/hello.txt": None, "/run.sh": {"sha256": None}, "/link": None, "/none": True, "/": False},
    "modes": {"/run.sh": None, "/none": "0755"},
    "owners": {"/run.sh": "7:7"},
    "env": {"A": "x", "B": "y"},
    "labels": None,
    **dict.fromkeys(("entrypoint", "cmd", "user", "workdir", "digest")),
    "cached": ["COPY app", "RUN make"],
}


def test_a_recorded_expectation_holds() -> None:
    found = updated(parse(EVERYTHING, records=True), SEEN)
    assert found == {
        "files": {"/hello.txt": "hello\n", "/run.sh": {"sha256": "0" * 64}, "/link": True, "/none": False, "/": True},
        "modes": {"/run.sh": "0755"},
        "owners": {"/run.sh": "1000:100"},
        "env": {"A": "b=c", "B": False},
        "labels": {"one": "1"},
        "entrypoint": ["/run.sh"],
        "cmd": [],
        "user": "1000",
        "workdir": "/",
        "digest": SEEN.digest,
        "cached": ["COPY app"],
    }
    assert problems(parse(found), SEEN) == []
    assert updated(found, SEEN) == found


def test_what_holds_stays_as_it_is() -> None:
    assert updated(parse(TRUE), SEEN) == parse(TRUE)


def test_the_first_record_has_what_a_container_gets() -> None:
    found = updated({}, SEEN)
    assert list(found) == ["env", "labels", "entrypoint", "cmd", "user", "workdir"]
    assert problems(parse(found), SEEN) == []


def test_all_steps_in_the_cache_are_true() -> None:
    seen = replace(SEEN, steps=SEEN.steps[:1])
    assert updated({"cached": None}, seen) == {"cached": True}
    assert updated({"cached": None}, SEEN) == {"cached": ["COPY app /app"]}


@pytest.mark.parametrize(
    ("expect", "seen", "message"),
    [
        ({}, FAILED, "the build failed: error"),
        ({"fails_with": "x"}, SEEN, "the build passed, but 'fails_with' expects"),
        ({"fails_with": None}, SEEN, "the build passed, so 'fails_with' has no value"),
        ({"cached": None}, replace(SEEN, steps=SEEN.steps[1:]), "no step of the second build"),
        ({"digest": None}, replace(SEEN, unknown="unknown, since"), "digest is unknown, since"),
    ],
)
def test_what_cannot_be_recorded(expect: dict[str, Any], seen: Any, message: str) -> None:
    with pytest.raises(NothingToRecord, match=message):
        updated(expect, seen)


def test_a_failure_that_is_expected_stays() -> None:
    assert updated({"fails_with": "x"}, FAILED) == {"fails_with": "x"}
