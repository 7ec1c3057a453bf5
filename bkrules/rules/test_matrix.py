"""`test_matrix`: every test on every worker at every point of the axes, each a cell with its own key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from bkrules.analysis import own_hooks
from bkrules.analysis.cell_inputs import (
    COVERAGE,
    Limits,
    SandboxInputs,
    broken_inputs,
    sandbox_inputs,
    updated,
    with_tools,
)
from bkrules.analysis.cell_rules import is_exclusive, skip_reason, time_factor
from bkrules.analysis.context import Context
from bkrules.analysis.extra_workers import read_extra_workers, with_extra_workers
from bkrules.analysis.matrix import choices
from bkrules.analysis.points import Points
from bkrules.analysis.test_files import read_modules, read_updaters
from bkrules.analysis.test_marks import Test
from bkrules.analysis.test_programs import ProgramTest, read_programs
from bkrules.analysis.updaters import TOOLS, meant, told
from bkrules.errors import did_you_mean
from bkrules.model.action import Action, Artifact, Cell
from bkrules.model.cases import CASES, TEST_OUTPUTS
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.parameters import DEFAULTS, AxisValue, PytestSettings, TestCell, TestProgram
from bkrules.model.providers import MatrixInfo, MirrorInfo, WorkerInfo
from bkrules.model.resources import SIZES
from bkrules.model.rule import Attr, Rule, Target
from bkrules.plugin import ask
from bkrules.plugin.installed import Plugins

MOST_POINTS = 20_000
"""The limit of combinations in a matrix."""
JAIL, SHARED = "jail", "worker"
ISOLATION = ("cell", JAIL, SHARED)
OUTPUTS = ("test.log", "result.json")


def _analyze(context: Context) -> tuple[object, ...]:
    return (declare_cells(context, list(_staged(context)), read_extra_workers(context)),)


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

    @property
    def axes(self) -> tuple[tuple[str, str], ...]:
        """The axes that the test has by itself."""
        return self.program.axes if self.program else ()


def declare_cells(context: Context, staged: Sequence[StagedTest], extra: Sequence[WorkerInfo] = ()) -> MatrixInfo:
    """Declare a cell for each test on each worker at each point of the axes; tests may start the `extra` workers.

    Raises LoadError.
    """
    axes = _axes(context)
    workers = [replace(one, covered=one.covered or any(more.covered for more in extra)) for one in _workers(context)]
    if not staged or not workers:
        what = "workers" if staged else "tests"
        raise context.error("empty-matrix", "the matrix has no cell: it needs a test and a worker", what)
    mirror = context.provider("mirror", context.attribute("mirror"), MirrorInfo, "an image_mirror")
    limits = Limits(**{name: context.attribute(name) for name in ("memory", "pids", "disk")})
    isolation, size = _one_of(context, "isolation", ISOLATION), _one_of(context, "size", SIZES)
    if extra:
        _check_extra(context, isolation, staged)
    sandboxes = [(one, _sandbox(context, one, extra, mirror, limits, jail=isolation == JAIL)) for one in workers]
    points = Points(
        context.attribute("exclude"),
        context.attribute("include"),
        tests=[one.test for one in staged],
        workers=[one.id for one in workers],
        axes=axes,
        error=context.error,
    )
    count = math.prod([len(staged), len(workers), *map(len, axes.values())])
    if count > MOST_POINTS:
        what = f"the matrix has {count:,} combinations of tests, workers and axes, but the most is {MOST_POINTS:,}"
        raise context.error("too-large", what, "axes", "divide it, or leave out an axis")
    updaters, code = read_updaters(context)
    _check_values(context, axes, workers, updaters.more)
    if isolation == SHARED and (covered := [worker.id for worker in workers if worker.covered]):
        what = f"tools of {covered[0]!r} write their coverage when they end, but 'isolation' is {isolation!r}"
        raise context.error("bad-attribute", what, "isolation", "give these workers a separate matrix")
    cells: list[Action] = []
    for one in staged:
        for worker, sandbox in sandboxes:
            for point in choices(axes):
                if not points.has(one.test, worker.id, point):
                    continue
                values = [(axis, choice, axes[axis][choice]) for axis, choice in point]
                update = updaters.read(values)
                if update.mirror and isolation == SHARED:
                    what = f"a mirror with faults cannot be shared, but 'isolation' is {isolation!r}"
                    raise context.error("bad-attribute", what, "isolation", "give these tests a separate matrix")
                changed = sandbox
                if not sandbox.is_broken:
                    changed = updated(context, sandbox, worker, mirror.images, update, code)
                program, own = one.on(context, worker)
                parameters = TestCell(
                    **vars(changed.parameters),
                    worker=worker.id,
                    axes={
                        **_told(values, updaters.more),
                        **{axis: AxisValue(choice, choice) for axis, choice in one.axes},
                    },
                    isolation=isolation,
                    module=one.path,
                    test=one.test.in_pytest,
                    pytest=one.settings,
                    program=program,
                    update=changed.update,
                )
                inputs = _with_own(context, worker, changed.inputs, own)
                parts = changed._replace(inputs=inputs, parameters=parameters)
                cells.append(_declare(context, one, worker, (*point, *one.axes), size, parts))
    if not cells:
        raise context.error("empty-matrix", "the matrix has no cell, since 'exclude' leaves none", "exclude")
    return MatrixInfo(tuple(action.id for action in cells))


def _staged(context: Context) -> Iterator[StagedTest]:
    """Yield the tests of a matrix: those of Python files, and the programs. Raises LoadError."""
    names: dict[str, str] = {}
    for module in read_modules(context):
        for test in module.tests:
            names[test.name.replace("::", ".")] = module.path  # as in the folders of cells
            yield StagedTest(module.path, test, module.staged(test), module.settings.parameters)
    for one in read_programs(context):
        if context.attribute("isolation") == SHARED:
            what = f"{one.path} is a program, but 'isolation' is {SHARED!r}, which only tests of pytest can have"
            raise context.error("bad-attribute", what, "isolation", "give the programs a separate matrix")
        name = "/".join([one.test.name, *map("=".join, one.axes)])
        if name in names:
            what = f"{names[name]} and {one.path} both are a test {name!r}"
            raise context.error("duplicate-name", what, "tests", "rename one of them")
        names[name] = one.path
        yield StagedTest(one.path, one.test, one.inputs, program=one)


def _with_own(
    context: Context, worker: WorkerInfo, inputs: Mapping[str, Artifact], own: Mapping[str, Artifact]
) -> dict[str, Artifact]:
    """Return the inputs of a cell with those of its test. Raises LoadError for a program with the name of a tool."""
    for path, file in own.items():
        if inputs.get(path, file) != file:
            what = f"the program {path.rpartition('/')[2]!r} has the name of a tool of {worker.label}, or of 'tools'"
            raise context.error("duplicate-name", what, "tests", "rename its target")
    return {**inputs, **own}


def _tables(axes: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the tables of tools in the values of axes, each with its place."""
    for axis, values in axes.items() if isinstance(axes, dict) else ():
        for choice, value in values.items() if isinstance(values, dict) else ():
            table = value.get(TOOLS) if isinstance(value, dict) else None
            if isinstance(table, dict):
                yield f"{axis}={choice}", table


def _check_values(
    context: Context, axes: Mapping[str, Mapping[str, object]], workers: Iterable[WorkerInfo], more: Collection[str]
) -> None:
    """Raise LoadError for a tool in the value of an axis that no worker runs, and for a value that changes no worker although it
    looks so.
    """
    known = {name for worker in workers for name in worker.tools}
    for axis, values in axes.items():
        for choice, value in values.items():
            if found := meant(value, more, known):
                what = f"the value {axis}={choice} has the key {found[0]!r}, which changes nothing"
                hint = f"did you mean {found[1]}? A parameter of the test may have it one level deeper"
                raise context.error("bad-axis", what, "axes", hint)
    if any(worker.fault for worker in workers):
        return  # its tools are unknown
    for place, table in _tables(axes):
        for name in table:
            if name not in known:
                hint = did_you_mean(name, known, "tools of its workers")
                raise context.error("unknown-tool", f"the value {place}: no worker here runs {name!r}", "axes", hint)


def matrix_tools(target: Target, _plugins: Plugins) -> list[Label]:
    """Return the binaries that values of axes name. The analysis reports text that is no label."""
    found = []
    for _, table in _tables(target.attributes["axes"]):
        for text in table.values():
            if isinstance(text, str):
                with suppress(LabelError):
                    found.append(parse_label(text, target.label.package))
    return found


def _check_extra(context: Context, isolation: str, staged: Iterable[StagedTest]) -> None:
    """Raise LoadError for extra workers that no test of the matrix can start."""
    if isolation == SHARED:
        what = f"a worker that tests share has no others next to it, but 'isolation' is {isolation!r}"
        raise context.error("bad-attribute", what, "extra_workers", "give these tests a separate matrix")
    if all(one.program for one in staged):
        what = "only tests of pytest can start them, and all 'tests' are programs"
        raise context.error("bad-attribute", what, "extra_workers", "leave it out")


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
    return with_tools(context, sandbox, one) if "tools" in context.target.attributes else sandbox


def _told(values: Iterable[tuple[str, str, object]], more: Collection[str]) -> dict[str, AxisValue]:
    return {axis: AxisValue(choice, told(value, more)) for axis, choice, value in values}


def _declare(
    context: Context,
    staged: StagedTest,
    worker: WorkerInfo,
    point: tuple[tuple[str, str], ...],
    size: str,
    parts: SandboxInputs,
) -> Action:
    """Return the action of one cell. A skipped cell has no inputs, so that nothing is built for it."""
    test = staged.test
    cell = Cell(
        *(context.label, test.name, worker.id, point),
        flaky=context.attribute("flaky"),
        size=size,
        jail=context.attribute("isolation") == JAIL,
    )
    unsupported = parts.parameters.unsupported
    if parts.is_broken:
        skip = skip_reason(test, rootless=False, unsupported=unsupported)
    else:
        skip = own_hooks.skipped(context.plugins, cell, worker.worker, test, unsupported)
    assert isinstance(parts.parameters, TestCell)
    folders = (*([COVERAGE] if worker.covered else []), TEST_OUTPUTS)
    return context.declare(
        "TestCell",
        parts.parameters,
        {} if skip else parts.inputs,
        (*OUTPUTS, *([CASES] if parts.parameters.program else []), *folders, *staged.outputs),
        environment=parts.environment,
        platform=parts.platform,
        timeout=(context.attribute("timeout") or SIZES[size].timeout) * time_factor(test),
        cell=replace(cell, skip=skip),
        exclusive=is_exclusive(test),
        memory=min(SIZES[size].memory, context.attribute("memory")),
        folders=folders,
        optional=[TEST_OUTPUTS],
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


def _axes(context: Context) -> dict[str, dict[str, object]]:
    axes = context.attribute("axes")
    for axis, values in axes.items():
        if axis in ("worker", "test") or not axis.isidentifier():
            raise context.error(
                "bad-axis",
                f"{axis!r} cannot be the name of an axis",
                "axes",
                "use a word that is not 'worker' or 'test'",
            )
        if (
            not isinstance(values, dict)
            or not values
            or not all(isinstance(name, str) and name and "/" not in name for name in values)
        ):
            raise context.error("bad-axis", f"the axis {axis!r} must map names to values, but was {values!r}", "axes")
    return dict(axes)


TEST_MATRIX = Rule(
    "test_matrix",
    "Tests, crossed with workers and axes. Each cell runs in its own sandbox and is cached by itself.",
    {
        "tests": Attr(
            "labels",
            "Python files with pytest functions; and programs, each a test by itself: files that begin with `#!`, and targets "
            "with a binary. A program runs by Bazel's contract, with BUILDKIT_HOST, BK_WORKER, BK_SNAPSHOTTER, BK_MIRROR and "
            "BK_AXIS_<NAME>.",
            required=True,
        ),
        "workers": Attr("labels", "The workers to run them on.", required=True),
        "extra_workers": Attr(
            "labels",
            "Workers that tests may start next to the one of their cell: `sandbox.start_worker`. Each runs as it is declared; "
            "values of axes do not change it.",
            default=(),
        ),
        "mirror": Attr("label", "The image_mirror that answers in every cell.", required=True),
        "axes": Attr(
            "dict",
            "Axis to its values by name: {'compression': {'gzip': ..., 'estargz': ...}}. A value with a key such as "
            "'buildkitd.toml', 'flags', 'environment', 'tools' or 'updater' changes the worker, one with 'mirror' what the "
            "mirror does.",
            default={},
        ),
        "updaters": Attr(
            "labels", "Python files with functions that edit the daemons' configuration, for axis values.", default=()
        ),
        "exclude": Attr(
            "dicts",
            "Cells to leave out: {'worker': 'slow', 'compression': 'estargz'} names all that have these values; 'test' "
            "may be a pattern with `*`.",
            default=(),
        ),
        "include": Attr("dicts", "Cells to keep although 'exclude' names them, written in the same way.", default=()),
        "data": Attr("labels", "Files that the tests read, found at the same path below the test root.", default=()),
        "tools": Attr(
            "labels",
            "Binaries that the tests run, on PATH in their cells: of go_binary, http_file, genrule or host_binary.",
            default=(),
        ),
        "args": Attr("strings", "More words on the command line of each program among the tests.", default=()),
        "cases": Attr(
            "dict",
            "Parts of programs that run as separate cells: {'suite.sh': ['push', 'pull']}. The program gets the name of its part "
            "in TESTBRIDGE_TEST_ONLY.",
            default={},
        ),
        "shard_count": Attr(
            "count",
            "How many cells share the work of each program, by TEST_SHARD_INDEX and TEST_TOTAL_SHARDS as of Bazel.",
            default=1,
        ),
        "flaky": Attr(
            "bool",
            "Whether a test that fails runs up to three times; what passes at a later attempt is flaky and not kept.",
            default=False,
        ),
        "size": Attr(
            "string",
            "As in Bazel: 'small', 'medium', 'large' or 'enormous'. It is a cell's timeout, 60, 300, 900 or 3600 seconds, and "
            "the scheduler's estimate of its memory, 20, 100, 300 or 800 MiB.",
            default="medium",
        ),
        "timeout": Attr("count", "Seconds that a cell may take, instead of those of its size."),
        "isolation": Attr(
            "string",
            "'cell': a sandbox for each cell. 'jail': the same in a user namespace, whose root has no power over "
            "the machine, for tests of strangers; not every worker can be in one. 'worker': cells share a worker that is put "
            "back after each, and compared with what it was; one that a test left otherwise is not used again, and its "
            "result not kept.",
            default="cell",
        ),
        "memory": Attr("count", "MiB of memory that a cell may use, its disk included.", default=Limits.memory),
        "pids": Attr("count", "Processes and threads that a cell may have.", default=Limits.pids),
        "disk": Attr("count", "MiB that the file systems of a cell may hold.", default=Limits.disk),
    },
    _analyze,
    implicit=matrix_tools,
    is_test=True,
)
