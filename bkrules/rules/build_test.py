"""`build_test` and `build_agreement`: tests of a Dockerfile that need no code.

Both declare the cells of a matrix whose one test, `declarative/cell.py`, is bk's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import bkrules
from bkrules.analysis.context import Context
from bkrules.analysis.test_files import Module
from bkrules.analysis.test_marks import read_tests
from bkrules.analysis.updaters import VALUE, is_update
from bkrules.declarative import expectations
from bkrules.declarative.expectations import CACHED, BadExpectation
from bkrules.declarative.seen import CHOICES, CONTEXT, DOCKERFILE, FILE, RECORDS, REQUEST, TEST, WHATS, BuildRequest
from bkrules.errors import LoadError, did_you_mean
from bkrules.incremental.dependencies import current
from bkrules.model.action import Action, Artifact, Cell, HostFile, Text
from bkrules.model.label import Label
from bkrules.model.parameters import CompareBuilds
from bkrules.model.providers import ImageInfo, MatrixInfo, MirrorInfo
from bkrules.model.rule import Attr, Rule
from bkrules.model.wire import text_of
from bkrules.plugin.registered import AxisKey
from bkrules.rules.cells import SHARED, StagedTest, declare_cells
from bkrules.rules.genrule import files_at
from bkrules.rules.matrix_axes import matrix_tools
from bkrules.rules.test_matrix import TEST_MATRIX
from bkrules.system.files import read_regular

REPORT = "agreement.json"
_REQUEST = f"src/{REQUEST}"
_PACKAGE = Path(bkrules.__file__).parent
_CODE = (*(f"declarative/{name}.py" for name in ("cell", "expectations", "observe", "rootfs", "seen")),)
_CODE_OF_COMPARISON = (*(f"declarative/{name}.py" for name in ("differences", "seen")), "runners/compare_builds.py")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?").fullmatch


def _analyze_test(context: Context) -> tuple[object, ...]:
    records = RECORDS in context.target.extra
    expect = _expectations(context, context.target.extra.get(RECORDS, context.attribute("expect")), records=records)
    request = _request(context)
    if not records:
        request |= {"expect": expect}
    kept = tuple(expectations.contents(expect))
    staged = _staged(context, BuildRequest(**request, contents=kept, twice=CACHED in expect, records=records))
    return (declare_cells(context, [staged]),)


def _analyze_agreement(context: Context) -> tuple[object, ...]:
    matrix = declare_cells(context, [_staged(context, BuildRequest(**_request(context), records=True))])
    cells = [action for action in context.actions if action.id in set(matrix.cells)]
    if len(cells) < 2:
        hint = "add a worker, or an axis"
        raise context.error("empty-matrix", "there is one cell, which has nothing to be compared with", "workers", hint)
    points = tuple({"worker": action.cell.worker, **dict(action.cell.axes)} for action in cells if action.cell)
    names = tuple("/".join(action.cell.parts[1:]).removeprefix("worker=") for action in cells if action.cell)
    seen = {f"seen/{number:05}.json": context.output(action, FILE) for number, action in enumerate(cells)}
    comparison = context.declare(
        "CompareBuilds",
        CompareBuilds(names, points, _expected(context, cells)),
        {**seen, **_code(_CODE_OF_COMPARISON)},
        ("test.log", REPORT),
        cell=Cell(context.label, "agreement", "all", (), size="small", compares=True),
    )
    return (MatrixInfo((*matrix.cells, comparison.id)),)


def _staged(context: Context, request: BuildRequest) -> StagedTest:
    """Return bk's own test, with the files and the request of one build. Raises LoadError."""
    text = (_PACKAGE / "declarative/cell.py").read_text()
    module = Module(TEST, text, read_tests(text))
    (test,) = module.tests
    own = {**_files(context), **_code(_CODE), _REQUEST: Text(text_of(request).encode())}
    return StagedTest(TEST, test, {**module.staged(test), **own}, outputs=(FILE,))


def _code(names: tuple[str, ...]) -> dict[str, Artifact]:
    """Return bk's own code for these cells as inputs, so that their keys cover it."""
    return {f"bkrules/{name}": HostFile(str(_PACKAGE / name)) for name in names}


def _files(context: Context) -> dict[str, Artifact]:
    """Return the Dockerfile and the files of the context, where a cell has them. Raises LoadError."""
    name, file = _dockerfile(context)
    found: dict[str, Artifact] = {f"src/{DOCKERFILE}/{name}": file}
    root = os.path.normpath(f"{context.label.package}/{context.attribute('root')}").lstrip("/")
    start = "" if root == "." else f"{root}/"
    if root.startswith(".."):
        raise context.error("bad-path", f"'root' leaves the workspace: {context.attribute('root')!r}", "root")
    for label in context.attribute("context"):
        for path, one in files_at(context, "context", label).items():
            if not path.startswith(start):
                hint = f"set 'root', or name files below {root or 'the workspace'}"
                raise context.error(
                    "bad-path", f"{path} is not below {root}, the folder of the context", "context", hint
                )
            found[f"src/{CONTEXT}/{path.removeprefix(start)}"] = one
            if path == f"{_path(context)}.dockerignore":
                found[f"src/{DOCKERFILE}/{name}.dockerignore"] = one
    return found


def _path(context: Context) -> str:
    label: Label = context.attribute("dockerfile")
    return label.path


def _dockerfile(context: Context) -> tuple[str, Artifact]:
    files = files_at(context, "dockerfile", context.attribute("dockerfile"))
    if len(files) != 1:
        raise context.error(
            "bad-attribute", f"'dockerfile' stands for {len(files)} files, but must be one", "dockerfile"
        )
    ((path, file),) = files.items()
    return os.path.basename(path), file


def _request(context: Context) -> dict[str, Any]:
    """Return the fields of the request that both rules have. Raises LoadError."""
    _check_axes(context)
    if context.attribute("isolation") == SHARED:
        what = f"'isolation' cannot be {SHARED!r}: what another build left in a worker's cache would count"
        raise context.error("bad-attribute", what, "isolation", "leave it out, or take 'jail'")
    where = {name: context.attribute(name) for name in CHOICES}
    for problem, attribute in _bad_choices(where):
        raise context.error("bad-attribute", problem, attribute)
    name, _ = _dockerfile(context)
    return {"filename": name, **where, "frontend": _frontend(context)}


def _bad_choices(table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with values that change the build, with its key."""
    for name, value in table.items():
        if name == "build_args":
            if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
                yield f"'build_args' must be a dictionary of strings, but was {value!r}", name
            elif wrong := [key for key in value if not key or "=" in key]:
                yield f"{wrong[0]!r} cannot be the name of a build argument", name
        elif name not in CHOICES:
            yield f"there is no key {name!r}; {did_you_mean(name, CHOICES, 'keys')}", name
        elif not isinstance(value, str):
            yield f"{name!r} must be a string, but was {value!r}", name
        elif name == "platform" and value and not _PLATFORM(value):
            yield f"'platform' must be one platform as in 'linux/arm64', but was {value!r}", name


def _check_axes(context: Context) -> None:
    """Raise LoadError for an axis value that changes neither the worker nor the build."""
    more = context.plugins.registered(AxisKey)
    for axis, values in context.attribute("axes").items():
        for choice, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, dict) and is_update(value, more):
                if VALUE not in value:
                    continue
                value = value[VALUE]
            problems = _bad_choices(value) if isinstance(value, dict) else iter([(f"{value!r} changes nothing", "")])
            for problem, _ in problems:
                hint = "a value has 'build_args', 'target' or 'platform', or what changes a worker, such as 'tools'"
                raise context.error("bad-axis", f"the value {axis}={choice}: {problem}", "axes", hint)


def _frontend(context: Context) -> str:
    """Return the reference in the mirror of the image that is the frontend; empty for BuildKit's own. Raises LoadError."""
    label = context.attribute("frontend")
    if label is None:
        return ""
    layout = context.provider("frontend", label, ImageInfo, "an image").layout
    mirror = context.attribute("mirror")
    images = context.provider("mirror", mirror, MirrorInfo, "an image_mirror").images
    found = sorted(str(reference) for reference, one in images.items() if one == layout)
    if not found:
        hint = f"add it to 'images' of {mirror}: {{'docker.io/my/frontend:latest': {str(label)!r}}}"
        raise context.error("not-in-mirror", f"{mirror} does not have the frontend {label}", "frontend", hint)
    return found[0]


def _expectations(context: Context, given: object, *, records: bool) -> dict[str, Any]:
    """Return the expectations of a dictionary or a file. Raises LoadError.

    With `records`, the file may be missing, and values may be None.
    """
    document = _document(context, given, records=records) if isinstance(given, Label) else given
    try:
        expect = expectations.parse(document, records=records)
    except BadExpectation as error:
        place = f"{given.path}: " if isinstance(given, Label) else "'expect': "
        raise context.error("bad-expectation", f"{place}{error}", "expect", error.hint) from error
    return expect


def _document(context: Context, label: Label, *, records: bool) -> object:
    if context.workspace.target(label) is not None:
        raise context.error("wrong-kind", f"'expect' needs a JSON file, but {label} is a target", "expect")
    try:
        data = read_regular(current().note(context.workspace.place(label.path)))
    except OSError as error:
        if records and isinstance(error, FileNotFoundError):
            return {}
        raise context.error("missing-file", f"cannot read {label.path}: {error.strerror}", "expect") from error
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoadError(
            "bad-expectation",
            f"{context.label}: {label.path} is not JSON: {error}",
            where=f"{label.path}:{getattr(error, 'lineno', 1)}",
        ) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON. Raises ValueError for a name that it has twice, of which one would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _expected(context: Context, cells: list[Action]) -> tuple[Mapping[str, str], ...]:
    """Return the differences in the attribute `expected`. Raises LoadError for one that no difference can be."""
    axes = context.attribute("axes")
    if taken := {"what", "path"} & set(axes):
        what = f"{min(taken)!r} cannot be the name of an axis here: 'expected' uses it for each difference"
        raise context.error("bad-axis", what, "axes", "use another word")
    known = ("what", "path", "worker", *axes)
    workers = {action.cell.worker for action in cells if action.cell}
    for entry in context.attribute("expected"):
        if wrong := [name for name in entry if name not in known]:
            hint = did_you_mean(wrong[0], known, "names")
            raise context.error("bad-entry", f"{entry!r} has an unknown name {wrong[0]!r}", "expected", hint)
        if not {"what", "path"} & set(entry):
            hint = "an entry with neither would expect any difference"
            raise context.error("bad-entry", f"{entry!r} has neither 'what' nor 'path'", "expected", hint)
        for name, values in (("what", WHATS), ("worker", workers), *((axis, axes[axis]) for axis in axes)):
            pattern = entry.get(name, "*")
            if not any(fnmatchcase(value, pattern) for value in values):
                hint = did_you_mean(pattern, values, "values")
                raise context.error("bad-entry", f"{entry!r}: no {name} is called {pattern!r}", "expected", hint)
    return tuple(context.attribute("expected"))


_MATRIX = ("workers", "mirror", "axes", "updaters", "exclude", "include", "flaky", "size", "timeout")
_SHARED = {
    "dockerfile": Attr("label", "The Dockerfile: a file, or a genrule with one.", default="Dockerfile"),
    "context": Attr(
        "labels",
        "The files of the build context: files, as of glob(), filegroups and genrules. Empty folders and links are not in it.",
        default=(),
    ),
    "root": Attr(
        "string", "The folder of the package that is the root of the context; by default the package.", default=""
    ),
    "build_args": Attr("dict", "Build arguments by name. SOURCE_DATE_EPOCH is 0 unless it is given.", default={}),
    "target": Attr("string", "The stage to build; by default the last.", default=""),
    "platform": Attr("string", "The platform, as in 'linux/arm64'; by default the worker's.", default=""),
    "frontend": Attr(
        "label", "The image of a frontend, which the mirror has, in the place of BuildKit's own for Dockerfiles."
    ),
    **{name: TEST_MATRIX.attributes[name] for name in (*_MATRIX, "memory", "pids", "disk")},
    "isolation": Attr("string", "'cell' or 'jail', as in a test_matrix.", default="cell"),
    "axes": Attr(
        "dict",
        "Axis to its values by name, as in a test_matrix. A value may also have 'build_args', 'target' or 'platform', which "
        "change the build: {'python': {'3.11': {'build_args': {'PYTHON': '3.11'}}, ...}}.",
        default={},
    ),
}

BUILD_TEST = Rule(
    "build_test",
    "A test of a Dockerfile without code: on each worker, the build makes what is expected. Each cell is cached by itself.",
    {
        **_SHARED,
        "expect": Attr(
            "dict_or_label",
            "The expected result, by default only that the build passes: a dictionary, or a JSON file that "
            "`bk test --update_expectations` writes: 'files' (text, {'sha256': ...}, True or False), 'modes', 'owners', 'env', "
            "'labels', 'entrypoint', 'cmd', 'user', 'workdir', 'digest', 'cached' (steps that a second build does not run) or "
            "'fails_with' (a regular expression).",
            default={},
            missing="`bk test --update_expectations {target}` writes it",
        ),
    },
    _analyze_test,
    implicit=matrix_tools,
    is_test=True,
)

BUILD_AGREEMENT = Rule(
    "build_agreement",
    "The same build on all workers and at all points of the axes, which must make the same image: paths, configuration, layers "
    "and digest.",
    {
        **_SHARED,
        "expected": Attr(
            "dicts",
            "Differences that may be: {'worker': 'rootless*', 'what': 'mode', 'path': '/proc'}, with `*` as a pattern. "
            "Values of 'what': "
            f"{', '.join(WHATS)}. An entry without such a difference fails.",
            default=(),
        ),
    },
    _analyze_agreement,
    implicit=matrix_tools,
    is_test=True,
)
