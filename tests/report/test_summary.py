"""What is printed when a build is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.execution.result import Attempt, CellReport, Result
from bkrules.model.label import Label
from bkrules.model.selected import Selected
from bkrules.model.status import Status
from bkrules.report.build_result import BuildResult
from bkrules.report.summary import grid, summarize

TWICE = (Attempt(Status.FAILED, 1.0, "attempt_1/test.log"), Attempt(Status.PASSED, 2.0, "test.log"))


def test_the_grid_has_a_row_for_a_point_and_a_column_for_a_worker(cell: Callable[..., Result]) -> None:
    results = [cell("passed"), cell("passed", "rootless", cached=True), cell("timed out", "containerd")]

    head, row = grid(results).splitlines()

    assert head.split() == ["oci", "rootless", "containerd"]
    assert row.split("  ") == ["test_it/compression=gzip", "passed 1.50s", "passed (cached)", "TIMED OUT"]
    assert head.index("rootless") == row.index("passed (cached)")


def test_a_grid_that_is_wider_than_the_terminal_has_several_parts(cell: Callable[..., Result]) -> None:
    results = [cell("passed", name) for name in ("oci", "containerd+stargz", "rootless")]

    assert len(grid(results).splitlines()) == 2
    assert [line.split()[-1] for line in grid(results, 60).splitlines()] == [
        "containerd+stargz",
        "1.50s",
        "rootless",
        "1.50s",
    ]
    assert max(map(len, grid(results, 60).splitlines())) <= 60
    assert [line.split()[-1] for line in grid(results, 10).splitlines()][::2] == [
        "oci",
        "containerd+stargz",
        "rootless",
    ]


def test_hits_are_counted_by_the_cache_they_are_from(cell: Callable[..., Result], tmp_path: Path) -> None:
    remote = dataclasses.replace(cell("passed", "c", cached=True), remote=True)
    results = (cell("passed"), cell("passed", "rootless", cached=True), remote)

    lines = summarize(BuildResult((*results, cell("skipped", "d")), 1.0), tmp_path).splitlines()

    assert lines[-2] == "4 cells: 3 passed, 1 skipped (2 cached, 2 not); 0 actions: 0 ran, 0 cached"
    assert lines[-1] == "hit local 1, hit remote 1, ran 1, skipped 1; 3.0 s saved, 1.00 s taken"
    skip = cell("skipped", "d", cached=True, failure="skip", reason="no wings")
    cached = summarize(BuildResult((*results, skip), 1.0), tmp_path)
    assert "skipped (cached)\n\n1 cell skipped: no wings\n" in cached
    assert "4 cells: 3 passed, 1 skipped (3 cached, 1 not)" in cached
    assert cached.endswith("\nhit local 2, hit remote 1, ran 1, skipped 0; 4.5 s saved, 1.00 s taken")
    assert [result.cache for result in results] == [None, "disk", "remote"]


def test_a_required_cache_that_failed_is_the_machine(cell: Callable[..., Result], tmp_path: Path) -> None:
    good = BuildResult((cell("passed"),), 1.0, fault="remote cache http://host: PUT ac/0: status 507")
    assert good.exit_code == 36
    assert "error: remote cache http://host" in summarize(good, tmp_path)
    assert BuildResult((cell("failed", failure="test"),), 1.0, fault="it failed").exit_code == 3


def test_a_reason_is_said_once_for_all_its_cells(cell: Callable[..., Result], tmp_path: Path) -> None:
    results = tuple(cell("skipped", f"w{number}", failure="machine", reason="no /dev/fuse") for number in range(3))

    text = summarize(BuildResult(results, 1.0), tmp_path)

    assert text.count("3 cells skipped: no /dev/fuse") == 1


def test_a_flaky_cell_is_named_with_its_reason(cell: Callable[..., Result], tmp_path: Path) -> None:
    reason = "passed at attempt 2, after: buildkitd ended"
    flaky = cell("flaky", failure="infrastructure", reason=reason, ran=CellReport(TWICE))

    text = summarize(BuildResult((flaky, cell("passed", "c", ran=CellReport())), 1.0), tmp_path)

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

    blocks = summarize(BuildResult(results, 1.0), tmp_path).split("\n\n")

    assert blocks[1:-1] == [
        "2 cells passed although wget tried to reach tcp 192.0.2.1:80, and could not",
        "1 cell passed although a RUN step (curl) tried to reach example.com, and could not",
    ]


def test_faults_that_no_request_has_met_are_said(cell: Callable[..., Result], tmp_path: Path) -> None:
    """The test was green, and has proven nothing about the fault."""
    results = [cell("passed", name, ran=CellReport(unmet=True)) for name in "abcde"]
    results += [cell("passed", "f", ran=CellReport()), cell("failed", "g", failure="test", ran=CellReport(unmet=True))]

    text = summarize(BuildResult(tuple(results), 1.0), tmp_path)

    names = ", ".join(result.action.title for result in results[:3])
    assert f"UNMET: 5 cells passed, but no request met the faults of the mirror: {names}, 2 more\n" in text


def test_what_a_failed_cell_tried_is_said_beside_its_failure(cell: Callable[..., Result], tmp_path: Path) -> None:
    ran = CellReport(TWICE, (("wget", "example.com"),), ("pids",))
    failed = cell("failed", failure="infrastructure", reason="buildkitd ended", ran=ran)

    blocks = summarize(BuildResult((failed,), 1.0), tmp_path).split("\n\n")

    head = f"FAILED (infrastructure, 2 attempts): {failed.action.title}: buildkitd ended"
    assert blocks[1:-1] == [f"{head}\n  wget tried to reach example.com"]


def test_what_is_not_kept_in_the_cache_is_said(cell: Callable[..., Result], tmp_path: Path) -> None:
    tainted = cell("passed", "c", ran=CellReport(tainted=("a process", "a mount")))
    results = (
        cell("passed", "a", ran=CellReport(unlimited=("memory", "pids"))),
        cell("passed", "b", ran=CellReport(unlimited=("pids",))),
        tainted,
    )

    blocks = summarize(BuildResult(results, 1.0), tmp_path).split("\n\n")

    assert blocks[1:-1] == [
        f"TAINTED: {tainted.action.title}: it changed a process, a mount; not cached",
        "1 cell passed without a limit of memory, which this machine cannot apply: not cached",
        "2 cells passed without a limit of pids, which this machine cannot apply: not cached",
    ]


@pytest.mark.parametrize(
    ("statuses", "mark"),
    [
        (["passed", "failed", "passed", "timed out", "passed"], "FAILED in 2 out of 5"),
        (["passed", "timed out"], "TIMED OUT in 1 out of 2"),
        (["passed", "passed", "passed"], "passed in 3 runs"),
        (["skipped", "skipped"], "skipped in 2 runs"),
        (["passed", "flaky", "passed"], "2 passed, 1 flaky"),
        (["passed", "not run"], "1 passed, 1 not run"),
    ],
)
def test_the_runs_of_a_cell_are_one_entry_of_the_grid(
    cell: Callable[..., Result], tmp_path: Path, statuses: list[str], mark: str
) -> None:
    results = tuple(cell(status, run=number, runs=len(statuses)) for number, status in enumerate(statuses, 1))

    text = summarize(BuildResult(results, 1.0), tmp_path)

    assert grid(results).splitlines()[-1].split("  ")[1] == mark
    assert f"{len(statuses)} runs of 1 cell: " in text


def test_runs_that_were_all_cached_say_so(cell: Callable[..., Result]) -> None:
    results = [cell("passed", cached=True, run=number, runs=2) for number in (1, 2)]
    assert grid(results).splitlines()[-1].endswith("passed in 2 runs (cached)")


def test_a_matrix_of_which_no_cell_ran_is_named(cell: Callable[..., Result], tmp_path: Path) -> None:
    """All of its cells are skipped, or the filters match none of them."""
    ran, skipped, matrix = cell("passed", "a"), cell("skipped", "b", failure="skip"), Label("t", "m")
    others = [Label("t", name) for name in "pqrs"]
    chosen = Selected(frozenset(), {matrix: 2, **dict.fromkeys(others, 1)}, ("--test_filter=x",))

    def warnings(*results: Result, selected: Selected | None = None) -> list[str]:
        blocks = summarize(BuildResult(results, 1.0, selected=selected), tmp_path).split("\n\n")
        return [block for block in blocks if block.startswith("warning: ")]

    of_skips = ["warning: no test ran of //t:m: all cells are skipped"]
    assert warnings(skipped) == of_skips
    assert warnings(skipped, ran) == []
    assert warnings(skipped, cell("skipped", failure="machine")) == [], "the exit code says it already"
    assert warnings(skipped, selected=Selected(frozenset(), {matrix: 2}, skip="SKIP_INTEGRATION_TESTS=1")) == []
    assert warnings(ran, selected=chosen) == ["warning: --test_filter matches no cell of //t:p, //t:q, //t:r, 1 more"]
    assert warnings(ran, selected=dataclasses.replace(chosen, shard=(1, 2))) == [], "they are in another shard"
    assert warnings(ran, selected=dataclasses.replace(chosen, by=("--failed",))) == []
    assert warnings(ran, cell("failed", "c", failure="test"), selected=chosen) == []
