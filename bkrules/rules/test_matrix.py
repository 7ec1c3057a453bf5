"""`test_matrix`: tests of pytest and programs, crossed with workers and axes."""

from __future__ import annotations

from collections.abc import Iterator

from bkrules.analysis.cell_inputs import Limits
from bkrules.analysis.context import Context
from bkrules.analysis.extra_workers import read_extra_workers
from bkrules.analysis.test_files import read_modules
from bkrules.analysis.test_programs import read_programs
from bkrules.model.rule import Attr, Rule
from bkrules.rules.cells import SHARED, StagedTest, declare_cells
from bkrules.rules.matrix_axes import matrix_tools


def _analyze(context: Context) -> tuple[object, ...]:
    return (declare_cells(context, list(_staged(context)), read_extra_workers(context)),)


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
        "workers": Attr("labels", "The workers on which the tests run.", required=True),
        "extra_workers": Attr(
            "labels",
            "Workers next to the one of the cell: tests of pytest start them by `sandbox.start_worker`, and before a program bk "
            "starts all of them. Each runs as it is declared; values of axes do not change it.",
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
            "may be a pattern with `*`. Axes that tests on BuildKit's harness have by themselves count too.",
            default=(),
        ),
        "include": Attr("dicts", "Cells to keep although 'exclude' names them, written in the same way.", default=()),
        "data": Attr("labels", "Files that the tests read, found at the same path below the test root.", default=()),
        "tools": Attr(
            "labels",
            "Binaries that the tests run, on PATH in their cells: of go_binary, http_file, genrule or host_binary.",
            default=(),
        ),
        "packages": Attr(
            "labels",
            "Debian packages whose files the cells have, at their paths in the package. A library that bk itself takes from this "
            "machine stays as it is.",
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
            "Whether a failing test runs up to three times. A pass at a later attempt is flaky, and bk does not cache it.",
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
            "the machine, for tests of strangers; not every worker can be in one. 'worker': cells share a worker. After each "
            "test, bk resets it and compares its state; it does not use a changed worker again, nor cache the result of that test.",
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
