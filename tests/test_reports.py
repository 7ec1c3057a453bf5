"""The reports of programs: JUnit XML, TAP, and what Go prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.cell.reports import BadReport, cases_of
from bkrules.model.cases import Case, Cases
from bkrules.model.status import Status

NONE = Path("/nonexistent")


def shown(*lines: str) -> list[tuple[str, str, float, str]]:
    return [(case.name, case.status, case.seconds, case.reason) for case in cases_of(NONE, lines) or ()]


def test_junit(tmp_path: Path) -> None:
    xml = tmp_path / "test.xml"
    xml.write_text(
        """<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="s"><properties/>
<testcase classname="a.B" name="c" time="1,000.5"/>
<testcase name="d" time="nan"><failure message="no &lt;5">trace</failure></testcase>
<testcase name="e"><error>
first line
second</error></testcase>
<testcase name="f"><system-out>x</system-out><skipped/></testcase>
</testsuite></testsuites>"""
    )

    assert cases_of(xml, ["1..1", "ok 1 - not this"]) == (
        Case("a.B.c", Status.PASSED, 1000.5),
        Case("d", Status.FAILED, 0, "no <5"),
        Case("e", Status.FAILED, 0, "first line"),
        Case("f", Status.SKIPPED),
    )


@pytest.mark.parametrize(
    "text", ["", "<testsuites>", "<html/>", "\0", '<?xml version="1.0" encoding="odd"?><testsuites/>']
)
def test_junit_that_is_none(tmp_path: Path, text: str) -> None:
    xml = tmp_path / "test.xml"
    xml.write_text(text)

    with pytest.raises(BadReport, match="its XML_OUTPUT_FILE"):
        cases_of(xml, [])


def test_tap() -> None:
    lines = (
        "TAP version 14",
        "1..6",
        "ok",
        "ok 2 - b # skip no wings",
        "not ok 3 c # TODO later",
        "not ok 4 - d",
        "# note",
    )

    assert shown(*lines, "ok 5 - e # 5 of them", "OK 6 - f") == [
        ("1", "passed", 0, ""),
        ("b", "skipped", 0, "no wings"),
        ("c", "passed", 0, "later"),
        ("d", "failed", 0, ""),
        ("e # 5 of them", "passed", 0, ""),
        ("f", "passed", 0, ""),
    ]
    assert shown("1..0 # SKIP all of it") == [("all", "skipped", 0, "all of it")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["1..2", "ok 1"], "it planned 2 cases, but reported 1"),
        (["ok 1", "ok 2", "1..1"], "it planned 1 cases, but reported 2"),
        (["1..2", "ok 1", "Bail out! no disk"], "it bailed out: no disk"),
    ],
)
def test_tap_that_contradicts_itself(lines: list[str], reason: str) -> None:
    with pytest.raises(BadReport, match=reason):
        cases_of(NONE, lines)


def test_a_flood_is_no_report() -> None:
    lines = ("x" * 1000 for _ in range(200_000))
    assert cases_of(NONE, lines) is None
    with pytest.raises(BadReport, match="more than 64 MiB"):
        cases_of(NONE, ("=== " + "x" * 1000 for _ in range(200_000)))


def test_what_go_prints() -> None:
    lines = """=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
=== RUN   TestB/x/y
    b_test.go:7: first
    b_test.go:9:
        Error Trace:	b_test.go:9
        Error:          Received unexpected error:
                        no such file
        Error:          another
=== RUN   TestB/z
=== NAME  TestB/z
    b_test.go:12: not on this worker
--- FAIL: TestB (0.30s)
    --- FAIL: TestB/x/y (0.10s)
    --- SKIP: TestB/z (0.00s)
=== CONT  TestA
--- FAIL: TestA (1.25s)
=== RUN   TestA2
--- PASS: TestA2 (0.00s)
FAIL""".splitlines()

    assert shown(*lines) == [
        ("TestB/x/y", "failed", 0.1, "Received unexpected error: no such file"),
        ("TestB/z", "skipped", 0, "not on this worker"),
        ("TestA", "failed", 1.25, ""),
        ("TestA2", "passed", 0, ""),
    ]


def test_absurd_numbers() -> None:
    assert shown(f"--- PASS: TestA ({'9' * 400}.0s)", f"1..{'9' * 5000}") == [("TestA", "passed", 0, "")]


def test_a_parent_that_fails_alone_is_shown() -> None:
    assert shown("=== RUN   TestB/x", "--- FAIL: TestB (0.30s)", "    --- PASS: TestB/x (0.10s)") == [
        ("TestB", "failed", 0.3, ""),
        ("TestB/x", "passed", 0.1, ""),
    ]


def test_json_of_go() -> None:
    events = [
        {"Action": "start", "Package": "p"},
        {"Action": "run", "Test": "TestA"},
        {"Action": "output", "Test": "TestA", "Output": "    a_test.go:3: why\n"},
        {"Action": "fail", "Test": "TestA", "Elapsed": 0.5},
        {"Action": "pass", "Test": "TestB", "Elapsed": 1},
        {"Action": "fail", "Package": "p", "Elapsed": 2},
    ]
    lines = ["not json", *map(json.dumps, events), "{", '{"Test": 5, "Action": "pass"}']

    assert shown(*lines) == [("TestA", "failed", 0.5, "why"), ("TestB", "passed", 1, "")]


@given(
    st.lists(
        st.text() | st.sampled_from(["1..1", "ok 1", "--- PASS: T (0.1s)", '{"Test":"T","Action":"fail"}', "{}", "[]"])
    )
)
def test_any_output(lines: list[str]) -> None:
    """A report is read or refused, and its cases survive their file."""
    try:
        cases = cases_of(NONE, lines)
    except BadReport:
        return
    assert Cases.read(json.dumps(Cases(cases or ()).to()).encode()) == (cases or ())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"cases": [{"name": "a", "status": "flaky"}]}', b"[" * 100_000, b"\xff"]
)
def test_damaged_cases(data: bytes) -> None:
    assert Cases.read(data) == ()
