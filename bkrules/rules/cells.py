"""The cells of a matrix: every test on every worker at every point of the axes, each an action with its own key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bkrules.analysis import own_hooks
from bkrules.analysis.cell_inputs import (
    COVERAGE,
    Limits,
    SandboxInputs,
    broken_inputs,
    sandbox_inputs,
    updated,
    with_packages,
    with_tools,
)
from bkrules.analysis.cell_rules import is_exclusive, skip_reason, time_factor
from bkrules.analysis.context import Context, pairs_of
from bkrules.analysis.extra_workers import with_extra_workers
from bkrules.analysis.matrix import choices
from bkrules.analysis.points import Points
from bkrules.analysis.test_files import read_updaters
from bkrules.analysis.test_marks import Test
from bkrules.analysis.test_programs import ProgramTest
from bkrules.analysis.updaters import Updaters, told
from bkrules.errors import did_you_mean
from bkrules.model.action import Action, Artifact, Cell, Inputs, SharedInputs, Text
from bkrules.model.cases import CASES, TEST_OUTPUTS
from bkrules.model.parameters import (
    DEFAULTS,
    AxisValue,
    OneTest,
    PytestSettings,
    TestCell,
    TestProgram,
    variable_of,
)
from bkrules.model.providers import MatrixInfo, MirrorInfo, WorkerInfo
from bkrules.model.resources import SIZES
from bkrules.model.wire import Wire, joined, parts_of, text_of
from bkrules.plugin import ask
from bkrules.rules.matrix_axes import check_values, read_axes

MOST_POINTS = 20_000
"""The limit of combinations in a matrix."""
JAIL, SHARED = "jail", "worker"
ISOLATION = ("cell", JAIL, SHARED)
OUTPUTS = ("test.log", "result.json")

Point = tuple[tuple[str, str], ...]


class StagedTest(NamedTuple):
    """A test, and what its cells have for it alone. `outputs` are what they write besides the outputs of every cell."""

    path: str
    test: Test
    inputs: Mapping[str, Artifact]
    settings: PytestSettings = DEFAULTS
    program: ProgramTest | None = None
    outputs: tuple[str, ...] = ()

    def on(self, context: Context, worker: WorkerInfo) -> tuple[TestProgram | None, Mapping[str, Artifact]]:
        """Return the program and the inputs of the test on a worker. Raises LoadError."""
        return self.program.on(context, worker) if self.program else (None, self.inputs)

    def is_on(self, worker: WorkerInfo) -> bool:
        """Return whether the test exists on a worker."""
        return self.program is None or self.program.is_on(worker)

    @property
    def axes(self) -> tuple[tuple[str, str], ...]:
        """The axes that the test has by itself."""
        return self.program.axes if self.program else ()


@dataclass(frozen=True)
class _Axes(Wire):
    """The axes among the parameters of a cell."""

    axes: Mapping[str, AxisValue]


class _Sandbox(NamedTuple):
    """A worker of the matrix, and the inputs of all cells on it."""

    worker: WorkerInfo
    parts: SandboxInputs
    shared: SharedInputs


class _AtPoint(NamedTuple):
    """The parts of cells on a worker at a point of the axes: the `shared` inputs, and those that are `changed` there.

    `parameters` are the parts of the JSON of the cells' parameters that do not depend on the test. `running` names the
    worker that these cells share, which is that of other points too when they change nothing of it.
    """

    axes: Mapping[str, AxisValue]
    shared: SharedInputs
    changed: Mapping[str, Artifact]
    parameters: Mapping[str, str]
    running: str


@dataclass(frozen=True)
class _Matrix:
    """The parts that all cells of a matrix share; `code` are the files with functions of its updaters."""

    context: Context
    axes: Mapping[str, Mapping[str, object]]
    mirror: MirrorInfo
    isolation: str
    size: str
    updaters: Updaters
    code: Sequence[str]
    points: dict[tuple[str, Point], _AtPoint] = field(default_factory=dict)
    last: dict[int, tuple[Mapping[str, Artifact], Inputs]] = field(default_factory=dict)

    def declare(self, staged: StagedTest, on: _Sandbox, points: Iterable[Point]) -> Iterator[Action]:
        """Declare the cells of a test on a worker at these points of the axes. Raises LoadError."""
        program, own = staged.on(self.context, on.worker)
        settings = staged.settings
        one = OneTest(module=staged.path, test=staged.test.in_pytest, pytest=settings, program=program)
        of_test = parts_of(one)
        cells = _Cells(self.context, staged, on, self.size)
        for point in points:
            at = self._at(on, point)
            parameters = {**at.parameters, **of_test}
            if staged.axes:
                axes = {**at.axes, **{axis: AxisValue(choice, choice) for axis, choice in staged.axes}}
                parameters["axes"] = parts_of(_Axes(axes))["axes"]
            inputs = self._inputs(on.worker, at, own)
            yield cells.declare((*point, *staged.axes), joined(parameters), inputs, at.running)

    def _inputs(self, worker: WorkerInfo, at: _AtPoint, own: Mapping[str, Artifact]) -> Inputs:
        """Return the inputs of a cell, one object for all points of a test that change none. Raises LoadError."""
        test, inputs = self.last.get(id(at.shared), (None, None))
        if inputs is None or test is not own or at.changed:
            inputs = Inputs.of(at.shared, _with_own(self.context, worker, at, own))
            if not at.changed:
                self.last[id(at.shared)] = own, inputs
        return inputs

    def _at(self, on: _Sandbox, point: Point) -> _AtPoint:
        """Return the parts of the cells on a worker at a point of the axes, for every test. Raises LoadError."""
        worker, parts, shared = on
        if (worker.id, point) in self.points:
            return self.points[worker.id, point]
        values = [(axis, choice, self.axes[axis][choice]) for axis, choice in point]
        update = self.updaters.read(values)
        if update.mirror and self.isolation == SHARED:
            what = f"a mirror with faults cannot be shared, but 'isolation' is {self.isolation!r}"
            raise self.context.error("bad-attribute", what, "isolation", "give these tests a separate matrix")
        if not parts.is_broken:
            parts = updated(self.context, parts, worker, self.mirror.images, update, self.code)
        changed = {path: file for path, file in parts.inputs.items() if shared.by_path.get(path) is not file}
        axes = {axis: AxisValue(choice, told(value, self.updaters.more)) for axis, choice, value in values}
        texts = [f"{path} {file.digest}" for path, file in sorted(changed.items()) if isinstance(file, Text)]
        running = " ".join((str(worker.label), text_of(parts.update), *texts)) if self.isolation == SHARED else ""
        if shared.outputs_in(changed):
            shared, changed = SharedInputs(parts.inputs), {}
        of_matrix = TestCell(
            **vars(on.parts.parameters),
            worker=worker.id,
            axes=axes,
            isolation=self.isolation,
            update=parts.update,
            module="",
            test="",
        )
        at = self.points[worker.id, point] = _AtPoint(axes, shared, changed, parts_of(of_matrix), running)
        return at


def declare_cells(context: Context, staged: Sequence[StagedTest], extra: Sequence[WorkerInfo] = ()) -> MatrixInfo:
    """Declare a cell for each test on each worker at each point of the axes; tests may start the `extra` workers.

    Raises LoadError.
    """
    axes = read_axes(context)
    workers = [replace(one, covered=one.covered or any(more.covered for more in extra)) for one in _workers(context)]
    if not staged or not workers:
        what = "workers" if staged else "tests"
        raise context.error("empty-matrix", "the matrix has no cell: it needs a test and a worker", what)
    mirror = context.provider("mirror", context.attribute("mirror"), MirrorInfo, "an image_mirror")
    limits = Limits(**{name: context.attribute(name) for name in ("memory", "pids", "disk")})
    isolation, size = _one_of(context, "isolation", ISOLATION), _one_of(context, "size", SIZES)
    if extra:
        _check_extra(context, isolation, staged, extra)
    parts = [_sandbox(context, one, extra, mirror, limits, jail=isolation == JAIL) for one in workers]
    sandboxes = [_Sandbox(one, own, SharedInputs(own.inputs)) for one, own in zip(workers, parts, strict=True)]
    points = Points(
        context.attribute("exclude"),
        context.attribute("include"),
        tests=[one.test for one in staged],
        workers=[one.id for one in workers],
        axes=_all_axes(axes, staged),
        error=context.error,
    )
    count = math.prod([len(staged), len(workers), *map(len, axes.values())])
    if count > MOST_POINTS:
        what = f"the matrix has {count:,} combinations of tests, workers and axes, but the most is {MOST_POINTS:,}"
        raise context.error("too-large", what, "axes", "divide it, or leave out an axis")
    updaters, code = read_updaters(context)
    check_values(context, axes, workers, updaters.more)
    _check_covered(context, isolation, workers)
    matrix = _Matrix(context, axes, mirror, isolation, size, updaters, code)
    all_points = choices(axes)
    cells: list[Action] = []
    for one in staged:
        for sandbox in sandboxes:
            if one.is_on(sandbox.worker):
                own = [point for point in all_points if points.has(one.test, sandbox.worker.id, (*point, *one.axes))]
                cells += matrix.declare(one, sandbox, own)
    if not cells:
        raise context.error(
            "empty-matrix", "the matrix has no cell: 'exclude' leaves none, or no worker has a test", "exclude"
        )
    return MatrixInfo(tuple(action.id for action in cells))


def _all_axes(axes: Mapping[str, Iterable[str]], staged: Iterable[StagedTest]) -> dict[str, set[str]]:
    """Return the values of all axes: those of the matrix, and those that tests have by themselves."""
    found = {axis: set(values) for axis, values in axes.items()}
    for axis, choice in (own for one in staged for own in one.axes):
        found.setdefault(axis, set()).add(choice)
    return found


def _check_covered(context: Context, isolation: str, workers: Iterable[WorkerInfo]) -> None:
    """Raise LoadError for workers that write their coverage when they end, and would be shared."""
    if isolation == SHARED and (covered := [worker.id for worker in workers if worker.covered]):
        what = f"tools of {covered[0]!r} write their coverage when they end, but 'isolation' is {isolation!r}"
        raise context.error("bad-attribute", what, "isolation", "give these workers a separate matrix")


def _with_own(context: Context, worker: WorkerInfo, at: _AtPoint, own: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Return the inputs of a cell that others on its worker lack: those that its axis values have `changed`, and its test's.

    Raises LoadError for a program with the name of a tool.
    """
    for path, file in own.items():
        if at.changed.get(path, at.shared.by_path.get(path, file)) != file:
            what = f"the program {path.rpartition('/')[2]!r} has the name of a tool of {worker.label}, or of 'tools'"
            raise context.error("duplicate-name", what, "tests", "rename its target")
    return {**at.changed, **own}


def _check_extra(context: Context, isolation: str, staged: Sequence[StagedTest], extra: Iterable[WorkerInfo]) -> None:
    """Raise LoadError for extra workers that no test of the matrix can start, or that a program could not tell apart."""
    if isolation == SHARED:
        what = f"a worker that tests share has no others next to it, but 'isolation' is {isolation!r}"
        raise context.error("bad-attribute", what, "extra_workers", "give these tests a separate matrix")
    if all(one.program and one.program.harness is not None for one in staged):
        what = "all 'tests' start their daemons themselves, on BuildKit's harness, so no cell has another worker"
        raise context.error("bad-attribute", what, "extra_workers", "leave it out")
    names: dict[str, str] = {}
    for worker in extra if any(one.program for one in staged) else ():
        other = names.setdefault(variable_of(worker.id), worker.id)
        if other != worker.id:
            what = f"programs find both {other!r} and {worker.id!r} by BK_EXTRA_WORKER_{variable_of(worker.id)}_HOST"
            raise context.error("duplicate-name", what, "extra_workers", "give one of them another 'id'")


def _sandbox(
    context: Context,
    one: WorkerInfo,
    extra: Sequence[WorkerInfo],
    mirror: MirrorInfo,
    limits: Limits,
    *,
    jail: bool,
) -> SandboxInputs:
    """Return the inputs of the cells with a worker. Raises LoadError when the cells must run in a jail and it cannot."""
    try:
        sandbox = sandbox_inputs(context, one, mirror.images, limits)
        if extra:
            sandbox = with_extra_workers(context, sandbox, extra, mirror.images, jail=jail)
        reason = ask.no_jail(one.worker) if jail else ""
    except ask.WorkerFault as fault:
        return broken_inputs(context, one, fault)
    if reason:
        what = f"{one.id!r} cannot run in a jail: {reason}"
        raise context.error("bad-attribute", what, "isolation", "give it a matrix with another isolation")
    attributes = context.target.attributes
    sandbox = with_tools(context, sandbox, one) if "tools" in attributes else sandbox
    return with_packages(context, sandbox) if "packages" in attributes else sandbox


class _Cells:
    """The cells of one test on one worker, with what is the same at all points of the axes."""

    def __init__(self, context: Context, staged: StagedTest, on: _Sandbox, size: str) -> None:
        self._context, self._staged, self._on = context, staged, on
        worker, test = on.worker, staged.test
        folders = (*([COVERAGE] if worker.covered else []), TEST_OUTPUTS)
        self._outputs = (*OUTPUTS, *([CASES] if staged.program else []), *folders, *staged.outputs)
        self._cell: dict[str, Any] = {
            "flaky": context.attribute("flaky"),
            "size": size,
            "jail": context.attribute("isolation") == JAIL,
        }
        self._action: dict[str, Any] = {
            "environment": pairs_of(on.parts.environment),
            "platform": pairs_of(on.parts.platform),
            "timeout": (context.attribute("timeout") or SIZES[size].timeout) * time_factor(test),
            "exclusive": is_exclusive(test),
            "memory": min(SIZES[size].memory, context.attribute("memory")),
            "folders": folders,
            "optional": (TEST_OUTPUTS,),
        }
        self._skip: str | None = None
        if on.parts.is_broken:
            self._skip = skip_reason(test, rootless=False, unsupported=on.parts.parameters.unsupported)

    def declare(self, point: Point, parameters: str, inputs: Inputs, running: str) -> Action:
        """Return the action of one cell; `running` names the worker that it shares.

        A skipped cell has no inputs, so that nothing is built for it.
        """
        context, test, worker = self._context, self._staged.test, self._on.worker
        cell = Cell(context.label, test.name, worker.id, point, skip=self._skip or "", **self._cell)
        if self._skip is None:
            unsupported = self._on.parts.parameters.unsupported
            skip = own_hooks.skipped(context.plugins, cell, worker.worker, test, unsupported)
            if own_hooks.skips_tests(context.plugins):
                self._skip = skip
            cell = replace(cell, skip=skip)
        return context.declare(
            "TestCell",
            [parameters],
            {} if cell.skip else inputs,
            self._outputs,
            cell=cell,
            worker=running,
            **self._action,
        )


def _one_of(context: Context, attribute: str, allowed: Collection[str]) -> str:
    value: str = context.attribute(attribute)
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise context.error("bad-attribute", f"{attribute!r} cannot be {value!r}", attribute, hint)
    return value


def _workers(context: Context) -> list[WorkerInfo]:
    found: dict[str, WorkerInfo] = {}
    for label in context.attribute("workers"):
        worker = context.provider("workers", label, WorkerInfo, "a worker")
        if worker.id in found:
            raise context.error(
                "duplicate-name",
                f"{label} and {found[worker.id].label} are both called {worker.id!r} in cells",
                "workers",
                "give one of them an 'id'",
            )
        found[worker.id] = worker
    return list(found.values())
