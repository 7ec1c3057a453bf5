"""The facts and details of cells in a page: from the files that bk keeps, some of which a test can write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.report.page_cells import MOST_LOG, details, fact, size_of_logs, why
from bkrules.report.redaction import HIDDEN, secrets, without

CELL = Cell(Label("t", "m"), "test_x", "oci", ())
ENTRY: dict[str, Any] = {"name": CELL.name, "status": "passed", "cached": False, "seconds": 1.5, "attempts": [{}]}
LOG = """\
time="2026-11-30T03:22:46.100000+00:00" level=info msg="buildkitd started as process 8: buildkitd --debug"
time="2026-11-30T03:22:46.300000+00:00" level=info msg="buildkitd ready after 0.200 s"
time="2026-11-30T03:22:46.500000+00:00" level=info msg="$ buildctl build \\"a\\""
time="2026-11-30T03:22:46.900000+00:00" level=info msg="exit status 1 after 0.400 s: buildctl build \\"a\\""
time="2026-11-30T03:22:47.000000+00:00" level=info msg="$ buildctl du"
"""
MIRROR = """\
time="2026-11-30T03:22:46.600000+00:00" level=info msg="GET /v2/library/x/blobs/sha256:00 206 1234"
time="2026-11-30T03:22:46.700000+00:00" level=info msg="not a request"
"""
BEGAN = 1796008966.0  # 2026-11-30T03:22:46Z


def same(text: str) -> str:
    return text


def keep_key(folder: Path, name: str, **leaves: str) -> None:
    (folder / name).write_text(json.dumps({"key": str(leaves), "leaves": {key: leaves[key] for key in leaves}}))


def test_why_names_the_first_differing_leaf(tmp_path: Path) -> None:
    keep_key(tmp_path, "previous_key.json", salt="1", tool="old")
    keep_key(tmp_path, "key.json", salt="1", tool="new", extra="x")
    answer = why(ENTRY, tmp_path)
    assert answer["leaf"] == {"name": "extra", "old": None, "new": "x", "more": 1}


def test_why_without_a_difference(tmp_path: Path) -> None:
    assert "not kept" in why(ENTRY, tmp_path)["why"]
    keep_key(tmp_path, "key.json", salt="1")
    assert "no earlier run" in why(ENTRY, tmp_path)["why"]
    keep_key(tmp_path, "previous_key.json", salt="1")
    assert "that of its earlier run" in why(ENTRY, tmp_path)["why"]
    assert why({**ENTRY, "cached": True, "cache": "remote"}, tmp_path) == {
        "why": "did not run: its key is in the remote cache"
    }
    absent = {**ENTRY, "status": "skipped", "attempts": [], "reason": "no FUSE"}
    assert why(absent, tmp_path) == {"why": "did not run: no FUSE"}


def test_values_of_variables_are_never_shown(tmp_path: Path) -> None:
    before, now = {"env/API_TOKEN": "first-secret"}, {"env/API_TOKEN": "second-secret"}
    for name, leaves in (("previous_key.json", before), ("key.json", now)):
        (tmp_path / name).write_text(json.dumps({"key": name, "leaves": leaves}))
    (tmp_path / "test.log").write_text("token second-secret of first-secret\n")
    (tmp_path / "buildkitd.log").write_text("curl -H 'Authorization: Bearer abcdef' https://me:pw@host/x\n")
    hidden = without(secrets([before, now]))
    made = details(ENTRY, tmp_path, hidden)
    text = json.dumps([why(ENTRY, tmp_path), made.key, made.was, made.logs, made.lines])
    assert "secret" not in text and "abcdef" not in text and "me:pw" not in text
    assert made.logs["test.log"] == f"token {HIDDEN} of {HIDDEN}\n"
    assert "https://***@host/x" in text and "env/API_TOKEN" in text


def test_spans_are_the_phases_daemons_and_commands(tmp_path: Path) -> None:
    (tmp_path / "cell.log").write_text(LOG)
    (tmp_path / "result.json").write_text(json.dumps({"began": BEGAN, "seconds": {"setup": 0.1, "boot": 0.25}}))
    spans = details(ENTRY, tmp_path, same).spans
    assert spans == [
        ("cell", "setup", 0, 100, ""),
        ("cell", "boot", 100, 350, ""),
        ("buildkitd", "start: buildkitd --debug", 100, 300, ""),
        ("commands", 'buildctl build "a"', 500, 900, "exit status 1"),
        ("commands", "buildctl du", 1000, 1000, "did not end"),
    ]


@pytest.mark.parametrize(
    "result",
    ["", "[]", "[" * 5000, '{"seconds": 1}', '{"seconds": {"run": "x", "boot": -1, "setup": NaN}, "began": []}'],
)
def test_a_malformed_result_is_ignored(result: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(result)
    (tmp_path / "buildkitd.log").write_text("a line\n")
    (tmp_path / "key.json").write_text(result)
    assert fact(ENTRY, CELL, tmp_path, lambda _: None)["phases"] == {}
    assert details(ENTRY, tmp_path, same).spans == []


def test_only_the_end_of_a_long_log_counts(tmp_path: Path) -> None:
    (tmp_path / "test.log").write_bytes(b"a" * MOST_LOG + b"the end")
    (tmp_path / "buildkitd.log").write_text("first\n" + "line\n" * (MOST_LOG // 5) + "last\n")
    os.mkfifo(tmp_path / "fifo.log")
    made = details(ENTRY, tmp_path, same)
    assert made.logs["test.log"].endswith("the end")
    assert made.logs["test.log"].startswith("[7 bytes before this are left out]\n")
    assert made.lines[-1][2] == "last" and made.lines[0][2] == "line"
    assert size_of_logs(tmp_path) == 2 * MOST_LOG


def test_the_last_pass_is_that_of_the_history(tmp_path: Path) -> None:
    assert fact(ENTRY, CELL, tmp_path, {"//t:m test_x/worker=oci": 2.5}.get)["last"] == 2.5
    assert fact({**ENTRY, "seconds": 2.5}, CELL, tmp_path, lambda _: 2.5)["last"] is None, "this run is not one before"


def test_requests_are_those_of_the_mirrors_log(tmp_path: Path) -> None:
    (tmp_path / "mirror.log").write_text(MIRROR)
    (tmp_path / "other.log").write_text(MIRROR)
    pulled = {"library/x": [1, 1234], "bad": [1], "worse": "x"}
    (tmp_path / "result.json").write_text(json.dumps({"began": BEGAN, "pulled": pulled}))
    assert details(ENTRY, tmp_path, same).requests == [(600, "GET", "/v2/library/x/blobs/sha256:00", 206, 1234)]
    assert fact(ENTRY, CELL, tmp_path, lambda _: None)["pulled"] == {"library/x": [1, 1234]}
