"""report.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bkrules.cache.file_digests import FileDigests
from bkrules.execution.result import Attempt, CellReport, Result
from bkrules.model.label import Label
from bkrules.model.status import FailureClass, Status
from bkrules.report.artifacts import write_matrix
from bkrules.report.build_result import BuildResult

MATRIX = Label("t", "m")
TWICE = (
    Attempt(Status.FAILED, 1.0, "attempt_1/test.log", FailureClass.TEST, "why"),
    Attempt(Status.PASSED, 2.0, "test.log"),
)


def test_the_report_counts_every_cell_once(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [
        cell("passed", ran=CellReport()),
        cell("passed", "rootless", cached=True),
        cell("failed", "c", failure="test", reason="why", ran=CellReport()),
    ]
    build = BuildResult(tuple(results), 1.0)

    write_matrix(MATRIX, results, build, tmp_path, FileDigests(""))

    document = json.loads((tmp_path / "t/m/report.json").read_text())
    assert document["summary"] == {"passed": 2, "failed": 1, "cached": 1, "total": 3}
    assert document["exit_code"] == 3
    assert [one["attempts"] for one in document["cells"]] == [[], [], []]
    assert document["cells"][2]["reason"] == "why"
    assert document["cells"][0]["label"] == "//t:m[test_it/worker=oci/compression=gzip]"


def test_the_report_says_how_each_cell_ran(cell: Callable[..., Result], tmp_path: Path) -> None:
    left = CellReport(TWICE, (("wget", "tcp 192.0.2.1:80"), ("test", "example.com")), ("memory", "pids"), ("/tmp",))
    results = [
        cell("flaky", "a", failure="infrastructure", reason="passed at attempt 2, after: x", ran=left),
        cell("passed", "b", ran=CellReport()),
        cell("passed", "c", cached=True),
        cell("skipped", "d", failure="machine"),
        cell("passed", "e", ran=CellReport(unlimited=("pids",))),
    ]

    write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path / "bk-out", FileDigests(""))

    document = json.loads((tmp_path / "bk-out/t/m/report.json").read_text())
    first, *others = document["cells"]
    assert document["exit_code"] == 36  # of the skipped one
    assert document["summary"] == {"flaky": 1, "passed": 3, "skipped": 1, "cached": 1, "total": 5}
    place = "bk-out/t/m/test_it/worker=a/compression=gzip"
    shown = [
        {"status": "failed", "seconds": 1.0, "log": f"{place}/attempt_1/test.log", "class": "test", "reason": "why"},
        {"status": "passed", "seconds": 2.0, "log": f"{place}/test.log", "class": None, "reason": None},
    ]
    assert (first["status"], first["class"], first["attempts"]) == ("flaky", "infrastructure", shown)
    assert first["egress"] == [{"who": "wget", "what": "tcp 192.0.2.1:80"}, {"who": "test", "what": "example.com"}]
    assert first["isolation"] == "without a limit of memory and pids"
    assert first["tainted"] == ["/tmp"]
    assert {one["unmet_faults"] for one in document["cells"]} == {False}
    assert [one["attempts"] for one in others] == [[]] * 4
    assert [one["isolation"] for one in others] == ["full", "full", None, "without a limit of pids"]
    assert [one["egress"] for one in others] == [one["tainted"] for one in others] == [[]] * 4


def test_each_run_of_a_cell_has_its_entry(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [cell("passed", run=1, runs=2), cell("failed", failure="test", run=2, runs=2), cell("passed", "c")]

    write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path, FileDigests(""))

    cells = json.loads((tmp_path / "t/m/report.json").read_text())["cells"]
    assert [one["run"] for one in cells] == [{"number": 1, "of": 2}, {"number": 2, "of": 2}, None]
    assert cells[1]["name"] == "test_it/worker=oci/compression=gzip/run_2_of_2"


def test_a_jail_is_said_of_its_cells(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [
        cell("passed", ran=CellReport(), jail=True),
        cell("passed", "b", cached=True, jail=True),
        cell("skipped", "c", failure="machine", jail=True),
        cell("passed", "d", ran=CellReport(unlimited=("pids",)), jail=True),
    ]

    write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path, FileDigests(""))

    document = json.loads((tmp_path / "t/m/report.json").read_text())
    shown = [one["isolation"] for one in document["cells"]]
    assert shown == ["jail", "jail", None, "jail, without a limit of pids"]
