"""`test_matrix`: every test on every worker at every point of the axes, each a cell with a key of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bkrules.action import Action, Cell, Source, Text, parameters
from bkrules.analysis.cell_inputs import Limits, sandbox_inputs
from bkrules.analysis.context import Context
from bkrules.analysis.matrix import choices, imported_files, meaning, only_test, test_functions
from bkrules.errors import LoadError, did_you_mean
from bkrules.observed import note
from bkrules.providers import MatrixInfo, MirrorInfo, WorkerInfo
from bkrules.rule import Attr, Rule

ISOLATION = ("cell", "worker")
OUTPUTS = ("test.log", "result.json")


def _analyze(context: Context) -> tuple[object, ...]:
    axes = _axes(context)
    workers = _workers(context)
    mirror = context.provider("mirror", context.attribute("mirror"), MirrorInfo, "an image_mirror")
    isolation = _isolation(context)
    limits = Limits(**{name: context.attribute(name) for name in ("memory", "pids", "disk")})
    shared = [(worker, sandbox_inputs(context, worker, mirror.images, limits)) for worker in workers]
    cells: list[Action] = []
    seen: dict[str, str] = {}
    for label in context.attribute("tests"):
        source = context.source("tests", label)
        text = _read(context, source.path)
        functions = _functions(context, source.path, text)
        staged = {f"src/{file}": Source(file) for file in _closure(context, source.path)}
        for function in functions:
            if function in seen:
                raise context.error(
                    "duplicate-name", f"{source.path} and {seen[function]} both have a test {function!r}", "tests"
                )
            seen[function] = source.path
            shown = only_test(text, function)
            own = Text(meaning(shown).encode(), shown.encode())
            for worker, (common, environment, platform, base) in shared:
                inputs = {**common, **staged, f"src/{source.path}": own}
                for point in choices(axes):
                    values = {axis: {"choice": choice, "value": axes[axis][choice]} for axis, choice in point}
                    spec = {
                        **base,
                        "isolation": isolation,
                        "axes": values,
                        "worker": worker.id,
                        "test": f"{source.path}::{function}",
                    }
                    cells.append(
                        context.declare(
                            "TestCell",
                            [parameters(spec)],
                            inputs,
                            OUTPUTS,
                            environment=environment,
                            platform=platform,
                            timeout=context.attribute("timeout"),
                            cell=Cell(context.label, function, worker.id, point, flaky=context.attribute("flaky")),
                        )
                    )
    if not cells:
        raise context.error(
            "empty-matrix", "the matrix has no cell: it needs a test and a worker", "tests" if not seen else "workers"
        )
    return (MatrixInfo(tuple(action.id for action in cells)),)


def _isolation(context: Context) -> str:
    isolation: str = context.attribute("isolation")
    if isolation not in ISOLATION:
        hint = did_you_mean(isolation, ISOLATION)
        raise context.error("bad-attribute", f"'isolation' cannot be {isolation!r}", "isolation", hint)
    return isolation


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


def _functions(context: Context, path: str, text: str) -> list[str]:
    try:
        functions = test_functions(text)
    except SyntaxError as error:
        raise LoadError(
            "syntax-error", f"{context.label}: {path}: {error.msg}", where=f"{path}:{error.lineno}"
        ) from error
    if not functions:
        raise context.error("empty-test", f"{path} has no test function", "tests", "name one test_something")
    for name in functions:
        if functions.count(name) > 1:
            raise context.error("duplicate-name", f"{path} has two tests {name!r}", "tests")
    return functions


def _closure(context: Context, test: str) -> list[str]:
    """The files of the workspace that a test needs: conftests of its package, what it imports, and `data`; sorted."""

    def exists(path: str) -> bool:
        return os.path.isfile(note(f"{context.workspace.root}/{path}"))

    found = {context.source("data", label).path for label in context.attribute("data")}
    waiting = [test, *(path for path in conftests(context, test) if exists(path))]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        roots = [os.path.dirname(path), os.path.dirname(test), ""]
        try:
            imported = list(imported_files(_read(context, path), path, roots, exists))
        except SyntaxError as error:
            raise LoadError(
                "syntax-error", f"{context.label}: {path}: {error.msg}", where=f"{path}:{error.lineno}"
            ) from error
        waiting += [file for file in imported if not file.startswith("bkrules/")]
    return sorted(found - {test})


def conftests(context: Context, test: str) -> Iterator[str]:
    """The places of conftest.py from a test's folder up to that of its package, which bounds what it may share."""
    folder = os.path.dirname(test)
    while True:
        yield f"{folder}/conftest.py".lstrip("/")
        if not folder or context.workspace.package(folder) is not None:
            return
        folder = os.path.dirname(folder)


def _read(context: Context, path: str) -> str:
    with open(note(f"{context.workspace.root}/{path}"), encoding="utf-8") as file:
        return file.read()


TEST_MATRIX = Rule(
    "test_matrix",
    "Tests, crossed with workers and axes. Each cell runs in a sandbox of its own and is cached by itself.",
    {
        "tests": Attr("labels", "Python files with pytest functions.", required=True),
        "workers": Attr("labels", "The workers to run them on.", required=True),
        "mirror": Attr("label", "The image_mirror that answers in every cell.", required=True),
        "axes": Attr("dict", "Axis to its values by name: {'compression': {'gzip': ..., 'estargz': ...}}.", default={}),
        "data": Attr("labels", "Files that the tests read, found at the same path below the test root.", default=()),
        "timeout": Attr("count", "Seconds that a cell may take.", default=300),
        "flaky": Attr(
            "bool",
            "Whether a test that fails runs up to three times; what passes at a later attempt is flaky and not kept.",
            default=False,
        ),
        "isolation": Attr(
            "string",
            "'cell': a sandbox of its own for each cell. 'worker': cells share a worker that is put back after each, and "
            "compared with what it was; one that a test left otherwise is not used again, and its result not kept.",
            default="cell",
        ),
        "memory": Attr("count", "MiB of memory that a cell may use, its disk included.", default=Limits.memory),
        "pids": Attr("count", "Processes and threads that a cell may have.", default=Limits.pids),
        "disk": Attr("count", "MiB that the file systems of a cell may hold.", default=Limits.disk),
    },
    _analyze,
)
