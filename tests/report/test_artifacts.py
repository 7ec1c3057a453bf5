"""report.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bkrules.execution.result import CellReport, Result
from bkrules.label import Label
from bkrules.report.artifacts import write_matrix
from bkrules.report.build_result import BuildResult

MATRIX = Label("t", "m")


def test_the_report_counts_every_cell_once(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [
        cell("passed", ran=CellReport()),
        cell("passed", "rootless", cached=True),
        cell("failed", "c", failure="test", reason="why", ran=CellReport()),
    ]
    build = BuildResult(tuple(results), 1.0)

    write_matrix(MATRIX, results, build, tmp_path)

    document = json.loads((tmp_path / "t/m/report.json").read_text())
    assert document["summary"] == {"passed": 2, "failed": 1, "cached": 1, "total": 3}
    assert document["exit_code"] == 3
    assert [one["attempts"] for one in document["cells"]] == [1, 0, 1]
    assert document["cells"][2]["reason"] == "why"
    assert document["cells"][0]["label"] == "//t:m[test_it/worker=oci/compression=gzip]"


def test_the_report_says_how_each_cell_ran(cell: Callable[..., Result], tmp_path: Path) -> None:
    left = CellReport(2, (("wget", "tcp 192.0.2.1:80"), ("test", "example.com")), ("memory", "pids"), ("/tmp",))
    results = [
        cell("flaky", "a", failure="infrastructure", reason="passed at attempt 2, after: x", ran=left),
        cell("passed", "b", ran=CellReport()),
        cell("passed", "c", cached=True),
        cell("skipped", "d", failure="machine"),
        cell("passed", "e", ran=CellReport(unlimited=("pids",))),
    ]

    write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path)

    document = json.loads((tmp_path / "t/m/report.json").read_text())
    first, *others = document["cells"]
    assert document["exit_code"] == 36  # of the skipped one
    assert document["summary"] == {"flaky": 1, "passed": 3, "skipped": 1, "cached": 1, "total": 5}
    assert (first["status"], first["class"], first["attempts"]) == ("flaky", "infrastructure", 2)
    assert first["egress"] == [{"who": "wget", "what": "tcp 192.0.2.1:80"}, {"who": "test", "what": "example.com"}]
    assert first["isolation"] == "without a limit of memory and pids"
    assert first["tainted"] == ["/tmp"]
    assert [one["attempts"] for one in others] == [1, 0, 0, 1]
    assert [one["isolation"] for one in others] == ["full", "full", None, "without a limit of pids"]
    assert [one["egress"] for one in others] == [one["tainted"] for one in others] == [[]] * 4
