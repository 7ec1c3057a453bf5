"""The plan of a CI: which cells each of its jobs runs, and the results that cells had before.

`bk ci plan` writes it as one file. Each job reads its part of it, and `bk ci merge` all of it, so what a CI passes from job
to job stays small, and merging misses no cell. The file comes from another machine: it is parsed before anything is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

from bkrules.errors import UsageError
from bkrules.incremental.dependencies import current
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import find_root
from bkrules.loading.workspace import Workspace
from bkrules.model import digest
from bkrules.model.action import Action, Cell, Source
from bkrules.model.wire import Wire
from bkrules.report.schema import check_report
from bkrules.system.files import read_regular

NAME = f"{OUTPUT}/plan.json"
"""The file of a plan when no option names it."""
SCHEMA = 1
_MOST = 1 << 30
"""The limit in bytes of a plan; each cell takes about half a kilobyte."""
_HINT = "name the file that `bk ci plan` of the same version of bk has written"


@dataclass(frozen=True)
class Plan(Wire):
    """A plan. `jobs` are the labels of the cells that each job runs; `reports` are the reports of all matrices: cells
    with a result have it, and the cells of jobs are not run yet.

    `sources` is a digest of the sources of the plan, `tools` the targets that more than one job would build, and `most`
    the limit of jobs. `id` is a digest of all that, so reports of another plan are told apart.
    """

    schema: Annotated[int, SCHEMA.__eq__]
    sources: str
    most: int
    jobs: tuple[tuple[str, ...], ...]
    tools: tuple[str, ...]
    reports: tuple[object, ...]
    id: str = ""

    def named(self) -> Plan:
        """Return the same plan with its id."""
        plain = replace(self, id="")
        return replace(self, id=digest.of_bytes(json.dumps(plain.to(), sort_keys=True).encode()).hash)

    @cached_property
    def documents(self) -> dict[str, dict[str, Any]]:
        """The reports by the labels of their matrices. Raises UsageError for one that is not as its schema says."""
        found: dict[str, dict[str, Any]] = {}
        for number, report in enumerate(self.reports):
            try:
                check_report(report)
            except ValueError as error:
                raise UsageError(
                    "no-plan", f"the report {number} of the plan is damaged: {error}", hint=_HINT
                ) from error
            assert isinstance(report, dict)  # so its schema says
            found[report["label"]] = report
        return found


@dataclass(frozen=True)
class PlanJob:
    """One job of a plan, by its number from 1. A plan may need fewer jobs than the CI starts: others have no cell."""

    plan: Plan
    number: int
    file: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The labels of the cells of the job."""
        return self.plan.jobs[self.number - 1] if self.number <= len(self.plan.jobs) else ()

    @property
    def numbers(self) -> tuple[int, int]:
        """The number of the job, and how many the plan has."""
        return self.number, len(self.plan.jobs)

    @property
    def title(self) -> str:
        """The job and the plan, for a message."""
        return f"job {self.number} of {len(self.plan.jobs)} of {self.file}"

    @property
    def words(self) -> tuple[str, ...]:
        """The options that name the job."""
        return f"--plan={self.file}", f"--plan_job={self.number}"


def file_of(option: str | None) -> str:
    """Return the file of a plan, as an option names it or at its usual place in the workspace. Raises UsageError without one."""
    return option or os.path.relpath(f"{find_root('.')}/{NAME}")


def read(path: str) -> Plan:
    """Return the plan in a file. Raises UsageError."""
    try:
        data = read_regular(current().note(os.path.abspath(path)), _MOST + 1)
    except OSError as error:
        hint = "fetch it from the job that ran `bk ci plan`, or name it with --plan"
        raise UsageError("no-plan", f"the plan {path} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > _MOST:
        raise UsageError("no-plan", f"{path} has more than {_MOST} bytes", hint=_HINT)
    try:
        plan = Plan.parse(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise UsageError("no-plan", f"{path} is not a plan: {error}", hint=_HINT) from error
    if plan.named().id != plan.id:
        hint = "fetch it again from the job that ran `bk ci plan`; nobody may edit it"
        raise UsageError("no-plan", f"{path} is not the plan that was written: its id is another one", hint=hint)
    return plan


def job_of(path: str, number: int) -> PlanJob:
    """Return a job of the plan in a file. Raises UsageError for a number above the limit of the plan."""
    plan = read(path)
    if number > plan.most:
        hint = f"start at most {plan.most} jobs, or plan with --max_jobs={number}"
        raise UsageError("no-plan", f"{path} has no job {number}: its cells are in at most {plan.most} jobs", hint=hint)
    return PlanJob(plan, number, path)


def sources_of(workspace: Workspace, actions: Iterable[Action]) -> str:
    """Return a digest of all sources and build files of these actions, and of their names.

    It says nothing of the machine, which may differ between the jobs of a CI. Raises LoadError.
    """
    actions = list(actions)
    paths = {item.path for action in actions for _, item in action.inputs if isinstance(item, Source)}
    lines = [action.id for action in actions]
    lines += [f"{path} {_digest(workspace.place(path))}" for path in sorted(paths | workspace.reads.keys())]
    return digest.of_bytes("\n".join(lines).encode()).hash


def _digest(path: str) -> str:
    try:
        return digest.of_file(path).hash
    except OSError as error:
        return str(error.strerror)


def check_sources(job: PlanJob, sources: str) -> None:
    """Raise UsageError when a plan was made of other sources."""
    if job.plan.sources != sources:
        message = f"{job.file} is a plan of other sources, targets or options than these"
        hint = "plan and jobs need the same commit, and the targets and options that `bk ci plan` prints as arguments"
        raise UsageError("not-the-plan", message, hint=hint)


def estimates(known: Iterable[tuple[Cell, float]]) -> Callable[[Cell], float | None]:
    """Return a function that estimates the seconds of a cell by those of other cells of its matrix: of the same test, else of the
    same worker; None without any.
    """
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for cell, took in known:
        for place in _alike(cell):
            seconds.setdefault(place, []).append(took)
    usual = {place: sorted(values)[len(values) // 2] for place, values in seconds.items()}

    def estimate(cell: Cell) -> float | None:
        return next((usual[place] for place in _alike(cell) if place in usual), None)

    return estimate


def _alike(cell: Cell) -> tuple[tuple[str, str, str], ...]:
    matrix = str(cell.matrix)
    return (matrix, "test", cell.test), (matrix, "worker", cell.worker)


def shared_tools(jobs: Sequence[Iterable[Action]], dirty: Mapping[str, Action]) -> tuple[str, ...]:
    """Return the targets of the `dirty` actions that more than one job needs. `jobs` are the cells of each."""
    needed: dict[str, int] = {}
    for cells in jobs:
        waiting = [name for action in cells for name in action.dependencies if name in dirty]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [below for below in dirty[name].dependencies if below in dirty]
        for name in found:
            needed[name] = needed.get(name, 0) + 1
    matrices = {action.label for cells in jobs for action in cells}
    labels = {dirty[name].label for name, count in needed.items() if count > 1}
    return tuple(sorted(map(str, labels - matrices)))
