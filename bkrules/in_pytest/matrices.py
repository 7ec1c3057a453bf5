"""The matrices that test the files of a command line of pytest, and their cells by file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bkrules import cli
from bkrules.build.analysis import Analysis, analyze_targets, open_workspace
from bkrules.build.request import Options
from bkrules.commands.build_arguments import options_of, runs_of
from bkrules.commands.harness import overrides_of
from bkrules.errors import UsageError, did_you_mean
from bkrules.loading.glob import BUILD_FILE
from bkrules.loading.root import find_root
from bkrules.loading.workspace import Workspace
from bkrules.model.action import Action
from bkrules.model.label import Label
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.providers import WorkerInfo
from bkrules.model.resources import MANUAL
from bkrules.model.rule import Target
from bkrules.model.selected import Selected

ALL = "all"


@dataclass(frozen=True)
class Matrices:
    """The analysed matrices, the options of their builds, and their cells by the absolute path of the file.

    The file of a test that is a target, such as a Go test, is the build file of its matrix. A file may have no cell, when its
    matrix could not be analysed.
    """

    analysis: Analysis
    options: Options
    cells: Mapping[str, Sequence[Action]]

    def line(self, matrix: Label) -> int:
        """Return the line of a matrix in its build file; the first is 1."""
        return next(target.location.line for target in self.analysis.targets.targets if target.label == matrix)

    def only(self, ids: Iterable[str]) -> Analysis:
        """Return the analysis with these cells alone."""
        declared = dict.fromkeys(self.analysis.targets.wanted, 0)
        for cell in self.analysis.cells().values():
            declared[cell.matrix] = declared.get(cell.matrix, 0) + 1
        return replace(self.analysis, selected=Selected(frozenset(ids), declared, by=("pytest",)))


def read(paths: Sequence[str], workers: Sequence[str], *, is_asked: bool) -> Matrices | None:
    """Analyse the matrices with tests in these files and folders. Return None when there are none and none `is_asked` for.

    The options are those of `bk test`, as .bkrc files give them. Raises BkError.
    """
    roots = {find_root(path if os.path.isdir(path) else os.path.dirname(path)) for path in paths}
    if len(roots) > 1:
        what = f"these tests are in several workspaces: {', '.join(sorted(roots))}"
        raise UsageError("several-workspaces", what, hint="run pytest once for each")
    (root,) = roots
    with contextlib.chdir(root):
        arguments = cli.prepared(["test", "//..."])
    workspace = open_workspace(root)
    below = [os.path.relpath(os.path.realpath(path), root) for path in paths]
    targets = _targets(workspace, below)
    if not targets and is_asked:
        what = f"no test_matrix has tests in {', '.join(paths)}"
        hint = f"add them to 'tests' of a test_matrix in a {BUILD_FILE}, or leave out --bk-worker"
        raise UsageError("no-matrix", what, hint=hint)
    if not targets:
        return None
    runs = replace(runs_of(arguments), number=1)
    analysis = analyze_targets(workspace, targets, runs, overrides_of(arguments), keep_going=True)
    options = replace(options_of(arguments), keep_going=True, test_output="errors")
    cells: dict[str, list[Action]] = {
        os.path.join(root, file): []
        for target in targets
        for file in _files(workspace, target)
        if _is_below(file, below)
    }
    for action in analysis.wanted().values():
        if action.cell is not None and action.mnemonic == "TestCell":
            file = _file(parameters_of(action, TestCell), action.cell.matrix)
            cells.setdefault(os.path.join(root, file), []).append(action)
    if not analysis.faults:  # a matrix that could not be analysed may have any worker
        _check_workers(workers, analysis, is_asked=is_asked)
    return Matrices(analysis, options, cells)


def _file(test: TestCell, matrix: Label) -> str:
    """Return the file with the items of a cell's test."""
    is_file = test.program is None or f"/src/{test.module}" in test.program.arguments
    return test.module if is_file else _build_file(matrix)


def _build_file(matrix: Label) -> str:
    return os.path.join(matrix.package, BUILD_FILE)


def _targets(workspace: Workspace, paths: Sequence[str]) -> list[Target]:
    """Return the matrices with a test in these files or folders, at first those of their packages.

    A matrix that is `manual` counts when one of its files is named.
    """
    near = {name for path in paths for name in _packages(workspace, path)}
    return _fitting(workspace, near, paths) or _fitting(workspace, workspace.packages(), paths)


def _packages(workspace: Workspace, path: str) -> list[str]:
    """Return the packages below a folder, and the nearest one at or above it."""
    path = "" if path == "." else path
    found = list(workspace.packages(path)) if os.path.isdir(f"{workspace.root}/{path}") else []
    while path and not os.path.isfile(f"{workspace.root}/{path}/{BUILD_FILE}"):
        path = os.path.dirname(path)
    return [*found, path]


def _fitting(workspace: Workspace, packages: Iterable[str], paths: Sequence[str]) -> list[Target]:
    targets = []
    for name in sorted(packages):
        package = workspace.package(name)
        for target in package.targets.values() if package else ():
            if target.rule.is_test and any(_has(workspace, target, path) for path in paths):
                targets.append(target)
    return targets


def _has(workspace: Workspace, target: Target, path: str) -> bool:
    files = _files(workspace, target)
    return path in files or (MANUAL not in target.attributes["tags"] and any(_is_below(file, [path]) for file in files))


def _files(workspace: Workspace, target: Target) -> list[str]:
    """Return the files with the tests of a matrix."""
    labels = target.attributes.get("tests") or ()
    return [_build_file(target.label) if workspace.target(label) else label.path for label in labels]


def _is_below(file: str, paths: Iterable[str]) -> bool:
    return any(path in (".", file) or file.startswith(f"{path}/") for path in paths)


def _check_workers(workers: Sequence[str], analysis: Analysis, *, is_asked: bool) -> None:
    """Raise UsageError for a worker that no matrix has; a setting may name those of other matrices of the workspace."""
    known = {cell.worker for cell in analysis.cells().values()}
    for name in workers:
        if name in known or name == ALL:
            continue
        others = known if is_asked else _all_workers(analysis.workspace)
        if name not in others:
            source, where = ("--bk-worker", "these tests") if is_asked else ("bk_workers", "this workspace")
            what = f"{source}: no matrix of {where} runs on the worker {name!r}"
            raise UsageError("unknown-worker", what, hint=did_you_mean(name, [*others, ALL], "workers"))


def _all_workers(workspace: Workspace) -> set[str]:
    """Return the names in cells of all workers of the workspace."""
    targets = [target for target in workspace.every() if target.rule.name == "worker"]
    providers = analyze_targets(workspace, targets, keep_going=True).actions.providers
    return {found.id for target in targets for found in providers[target.label] if isinstance(found, WorkerInfo)}
