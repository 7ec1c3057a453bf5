"""Plans of a CI: their file, which comes from another machine, and what they say of cells, seconds and tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bkrules.build import ci_plan
from bkrules.build.ci_plan import SCHEMA, Plan, PlanJob, estimates, job_of, shared_tools
from bkrules.build.selection import Selection, select
from bkrules.errors import UsageError
from bkrules.model.action import Action, Cell, Output
from bkrules.model.label import Label

MATRIX = Label("t", "m")
PLAN = Plan(SCHEMA, "f" * 64, 4, (("//t:m[a/worker=oci]",), ("//t:m[b/worker=oci]",)), ("//t:tool",), ()).named()


def written(path: Path, document: object) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert ci_plan.read(written(tmp_path / "plan.json", PLAN.to())) == PLAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "'schema' is malformed"),
        ({"sources": "0" * 64}, "is not the plan that was written"),
        ({"jobs": [["//t:m[a/worker=oci]"]]}, "is not the plan that was written"),
        ({"jobs": "all"}, "'jobs' is malformed"),
        ({"more": 1}, "'more' is unknown"),
        ({"id": ""}, "is not the plan that was written"),
    ],
)
def test_a_plan_that_was_changed_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ci_plan.read(written(tmp_path / "plan.json", {**PLAN.to(), **change}))
    assert message in caught.value.message
    assert str(tmp_path / "plan.json") in caught.value.message


@pytest.mark.parametrize("report", [None, 1, [], {}, {"label": "//t:m"}])
def test_a_plan_with_a_report_that_is_none(report: object) -> None:
    """Its id is right: anyone can compute it."""
    plan = replace(PLAN, reports=(report,)).named()
    with pytest.raises(UsageError, match="the report 0 of the plan is damaged"):
        assert plan.documents


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError, match="is not a plan"):
        ci_plan.read(str(tmp_path / "plan.json"))


def test_a_plan_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        ci_plan.read(str(tmp_path / "plan.json"))
    assert "bk ci plan" in caught.value.hint


def test_a_job_without_cells_and_one_that_cannot_be(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.json", PLAN.to())
    assert [job_of(path, number).cells for number in (1, 2, 3, 4)] == [*PLAN.jobs, (), ()]
    with pytest.raises(UsageError, match="has no job 5"):
        job_of(path, 5)


def cells(count: int) -> dict[str, Cell]:
    return {f"{MATRIX} {number}": Cell(MATRIX, f"test_{number}", "oci", ()) for number in range(count)}


def test_a_job_has_its_cells_and_no_other() -> None:
    known = cells(5)
    plan = Plan(SCHEMA, "", 2, (("//t:m[test_3/worker=oci]", "//t:m[test_1/worker=oci]"),), (), ()).named()
    chosen = select(known, Selection(job=PlanJob(plan, 1, "plan.json")), lambda _: None)
    assert chosen.ids == {f"{MATRIX} 1", f"{MATRIX} 3"}
    assert chosen.by == ("--plan=plan.json", "--plan_job=1")
    assert chosen.folder == f"plan_{plan.id[:12]}_job_1_of_1"
    with pytest.raises(
        UsageError, match=r"test_3/worker=oci\] is in job 1 of 1 of plan.json, and not among these 2 cells"
    ):
        select(cells(2), Selection(job=PlanJob(plan, 1, "plan.json")), lambda _: None)


def test_seconds_of_the_same_test_count_then_those_of_the_worker() -> None:
    def cell(test: str, worker: str) -> Cell:
        return Cell(MATRIX, test, worker, ())

    known = [
        (cell("a", "oci"), 1.0),
        (cell("a", "rootless"), 3.0),
        (cell("a", "dockerd"), 2.0),
        (cell("b", "oci"), 9.0),
    ]
    estimate = estimates(known)
    assert estimate(cell("a", "containerd")) == 2.0
    assert estimate(cell("c", "rootless")) == 3.0
    assert estimate(cell("c", "containerd")) is None
    assert estimate(Cell(Label("t", "other"), "a", "oci", ())) is None


def action(name: str, *needs: str) -> Action:
    label = Label("t", name)
    return Action(name, label, "Make", (), tuple((need, Output(need, "out")) for need in needs), ("out",))


def shared(*jobs: list[Action]) -> tuple[str, ...]:
    made = [action("base"), action("one", "base"), action("other", "base"), action("alone")]
    return shared_tools(jobs, {one.id: one for one in made})


def test_tools_that_two_jobs_need_are_built_first() -> None:
    assert shared([action("x", "one")], [action("y", "other", "cached")]) == ("//t:base",)
    assert shared([action("x", "one")], [action("y", "one")], [action("z", "alone")]) == ("//t:base", "//t:one")
    assert shared([action("x", "one"), action("y", "one")]) == ()
    assert shared() == ()
