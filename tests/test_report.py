"""What is reported of results: the exit code, the grid, JUnit, and report.json."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules import report
from bkrules.action import Action, Cell
from bkrules.execution.result import CellReport, Result
from bkrules.label import Label
from bkrules.report import BuildResult

MATRIX = Label("t", "m")


@pytest.fixture
def cell() -> Callable[..., Result]:
    """Makes the result of a cell."""

    def make(
        status: str,
        worker: str = "oci",
        *,
        cached: bool = False,
        failure: str = "",
        reason: str = "",
        ran: CellReport | None = None,
    ) -> Result:
        point = Cell(MATRIX, "test_it", worker, (("compression", "gzip"),))
        action = Action(f"{MATRIX} {point.name}", MATRIX, "TestCell", ("{}",), (), ("test.log",), cell=point)
        return Result(action, status, cached, 1.5, reason=reason, failure=failure, ran=ran)

    return make


@pytest.fixture
def step() -> Callable[..., Result]:
    """Makes the result of an ordinary action."""

    def make(status: str, failure: str = "") -> Result:
        label = Label("t", "tool")
        return Result(Action(f"{label} GoBuild", label, "GoBuild", (), (), ()), status, failure=failure)

    return make


def test_exit_codes(cell: Callable[..., Result], step: Callable[..., Result]) -> None:
    good, bad = cell("passed"), cell("failed", failure="test")
    lacking, skipped, not_run = cell("skipped", failure="machine"), cell("skipped", failure="skip"), cell("not run")
    broken, without_compiler = step("failed", "build"), step("failed", "machine")

    def code(*results: Result, interrupted: bool = False) -> int:
        return BuildResult(results, 0.0, interrupted).exit_code

    assert code(good, step("passed"), skipped) == 0
    assert code(good, bad) == code(good, cell("timed out", failure="timeout")) == 3
    assert code(good, lacking) == code(without_compiler, not_run) == 36
    assert code(good, not_run) == 4
    assert code(broken, bad, lacking) == code(broken, without_compiler) == 1
    assert code(bad, lacking, not_run) == 3
    assert code(broken, bad, interrupted=True) == 8


def test_what_is_flaky_has_passed_and_what_leaked_has_not(
    cell: Callable[..., Result], step: Callable[..., Result]
) -> None:
    good, flaky, bad = cell("passed"), cell("flaky", failure="infrastructure"), cell("failed", failure="leak")

    assert BuildResult((good, flaky), 0.0).exit_code == 0
    assert BuildResult((flaky, bad), 0.0).exit_code == 3
    assert BuildResult((good, bad), 0.0, leaks=("a mount",)).exit_code == 1
    assert BuildResult((good,), 0.0, leaks=("a mount",)).exit_code == 1


def test_a_full_disk_is_the_machines_for_a_cell_and_for_a_step(
    cell: Callable[..., Result], step: Callable[..., Result]
) -> None:
    full = cell("failed", failure="machine", reason="No space left on device")

    assert BuildResult((cell("passed"), full), 0.0).exit_code == 36
    assert BuildResult((step("failed", "machine"), cell("not run")), 0.0).exit_code == 36
    assert BuildResult((full, cell("failed", failure="test")), 0.0).exit_code == 3


def test_the_grid_has_a_row_for_a_point_and_a_column_for_a_worker(cell: Callable[..., Result]) -> None:
    results = [cell("passed"), cell("passed", "rootless", cached=True), cell("timed out", "containerd")]

    head, row = report.grid(results).splitlines()

    assert head.split() == ["oci", "rootless", "containerd"]
    assert row.split("  ") == ["test_it/compression=gzip", "passed 1.50s", "passed (cached)", "TIMED OUT"]
    assert head.index("rootless") == row.index("passed (cached)")


def test_junit_is_xml_whatever_a_test_prints(cell: Callable[..., Result]) -> None:
    odd = 'a "quoted" <reason> & \x00\x1b[31mcolour\x1b[0m\ud800'
    results = [
        cell("passed"),
        cell("failed", "rootless", failure="test", reason=odd),
        cell("skipped", "c", reason="no"),
    ]

    suite = ET.fromstring(report.junit(MATRIX, results).encode())[0]

    assert suite.attrib == {"name": "//t:m", "tests": "3", "failures": "1", "skipped": "1"}
    assert [case.attrib["name"] for case in suite] == [result.action.title for result in results]
    failure = suite[1].find("failure")
    assert failure is not None
    assert 'a "quoted" <reason> & [31mcolour' in failure.attrib["message"]
    assert [one.attrib["value"] for one in suite[1].iter("property")] == ["rootless", "gzip", "false"]


def test_the_report_counts_every_cell_once(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = [
        cell("passed", ran=CellReport()),
        cell("passed", "rootless", cached=True),
        cell("failed", "c", failure="test", reason="why", ran=CellReport()),
    ]
    build = BuildResult(tuple(results), 1.0)

    report.write_matrix(MATRIX, results, build, tmp_path)

    document = json.loads((tmp_path / "t/m/report.json").read_text())
    assert document["summary"] == {"passed": 2, "failed": 1, "cached": 1, "total": 3}
    assert document["exit_code"] == 3
    assert [one["attempts"] for one in document["cells"]] == [1, 0, 1]
    assert document["cells"][2]["reason"] == "why"
    assert document["cells"][0]["label"] == "//t:m[test_it/worker=oci/compression=gzip]"


def test_hits_are_counted_by_the_cache_they_are_from(cell: Callable[..., Result], tmp_path: Path) -> None:
    remote = dataclasses.replace(cell("passed", "c", cached=True), remote=True)
    results = (cell("passed"), cell("passed", "rootless", cached=True), remote)

    with_one = report.summary(BuildResult(results, 1.0, remote=True), tmp_path)
    without = report.summary(BuildResult(results[:2], 1.0), tmp_path)

    assert "3 cells: 3 passed (1 from the disk cache, 1 from the remote cache, 1 not); 0 actions" in with_one
    assert "2 cells: 2 passed (1 cached, 1 not); 0 actions: 0 ran, 0 cached;" in without
    assert [result.cache for result in results] == [None, "disk", "remote"]


def test_a_required_cache_that_failed_is_the_machine(cell: Callable[..., Result], tmp_path: Path) -> None:
    good = BuildResult((cell("passed"),), 1.0, fault="remote cache http://host: PUT ac/0: status 507")
    assert good.exit_code == 36
    assert "error: remote cache http://host" in report.summary(good, tmp_path)
    assert BuildResult((cell("failed", failure="test"),), 1.0, fault="it failed").exit_code == 3


def test_a_reason_is_said_once_for_all_its_cells(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = tuple(cell("skipped", f"w{number}", failure="machine", reason="no /dev/fuse") for number in range(3))

    text = report.summary(BuildResult(results, 1.0), tmp_path)

    assert text.count("3 cells skipped: no /dev/fuse") == 1


def test_the_report_says_how_each_cell_ran(cell: Callable[..., Result], tmp_path: Path) -> None:
    left = CellReport(2, (("wget", "tcp 192.0.2.1:80"), ("test", "example.com")), ("memory", "pids"), ("/tmp",))
    results = [
        cell("flaky", "a", failure="infrastructure", reason="passed at attempt 2, after: x", ran=left),
        cell("passed", "b", ran=CellReport()),
        cell("passed", "c", cached=True),
        cell("skipped", "d", failure="machine"),
        cell("passed", "e", ran=CellReport(unlimited=("pids",))),
    ]

    report.write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), tmp_path)

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


def test_a_flaky_cell_is_named_with_its_reason(cell: Callable[..., Result], tmp_path: Path) -> None:
    reason = "passed at attempt 2, after: buildkitd ended"
    flaky = cell("flaky", failure="infrastructure", reason=reason, ran=CellReport(attempts=2))

    text = report.summary(BuildResult((flaky, cell("passed", "c", ran=CellReport())), 1.0), tmp_path)

    blocks = text.split("\n\n")
    assert f"FLAKY: {flaky.action.title}: {reason}" in blocks
    assert blocks[0].splitlines()[-1].split("  ")[1:] == ["FLAKY", "passed 1.50s"]
    assert "2 cells: 1 flaky, 1 passed (0 cached, 2 not)" in blocks[-1]


def test_who_tried_to_leave_is_said_once_for_all_cells_that_passed(cell: Callable[..., Result], tmp_path: Path) -> None:
    wget, curl = ("wget", "tcp 192.0.2.1:80"), ("a RUN step (curl)", "example.com")
    results = (
        cell("passed", "a", ran=CellReport(egress=(wget, curl))),
        cell("passed", "b", ran=CellReport(egress=(wget,))),
        cell("passed", "c", ran=CellReport()),
        cell("passed", "d", cached=True),
    )

    blocks = report.summary(BuildResult(results, 1.0), tmp_path).split("\n\n")

    assert blocks[1:-1] == [
        "2 cells passed although wget tried to reach tcp 192.0.2.1:80, and could not",
        "1 cell passed although a RUN step (curl) tried to reach example.com, and could not",
    ]


def test_what_a_failed_cell_tried_is_said_beside_its_failure(cell: Callable[..., Result], tmp_path: Path) -> None:
    ran = CellReport(2, (("wget", "example.com"),), ("pids",))
    failed = cell("failed", failure="infrastructure", reason="buildkitd ended", ran=ran)

    blocks = report.summary(BuildResult((failed,), 1.0), tmp_path).split("\n\n")

    head = f"FAILED (infrastructure, 2 attempts): {failed.action.title}: buildkitd ended"
    assert blocks[1:-1] == [f"{head}\n  wget tried to reach example.com"]


def test_what_is_not_kept_in_the_cache_is_said(cell: Callable[..., Result], tmp_path: Path) -> None:
    tainted = cell("passed", "c", ran=CellReport(tainted=("a process", "a mount")))
    results = (
        cell("passed", "a", ran=CellReport(unlimited=("memory", "pids"))),
        cell("passed", "b", ran=CellReport(unlimited=("pids",))),
        tainted,
    )

    blocks = report.summary(BuildResult(results, 1.0), tmp_path).split("\n\n")

    assert blocks[1:-1] == [
        f"TAINTED: {tainted.action.title}: it changed a process, a mount; not kept in the cache",
        "1 cell passed without a limit of memory, which this machine cannot give: not kept in the cache",
        "2 cells passed without a limit of pids, which this machine cannot give: not kept in the cache",
    ]


def test_junit_has_a_flaky_cell_among_those_that_passed(cell: Callable[..., Result]) -> None:
    results = [cell("flaky", failure="infrastructure", reason="why", ran=CellReport(attempts=2)), cell("passed", "c")]

    suite = ET.fromstring(report.junit(MATRIX, results).encode())[0]

    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("2", "0", "0")
    assert [[child.tag for child in case] for case in suite] == [["properties"]] * 2
