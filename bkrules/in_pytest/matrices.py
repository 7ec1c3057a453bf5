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
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.providers import WorkerInfo
from bkrules.model.rule import MANUAL, Target
from bkrules.model.selected import Selected

ALL = "all"


@dataclass(frozen=True)
class Matrices:
    """The analysed matrices, the options of their builds, and their cells by the absolute path of the file."""

    analysis: Analysis
    options: Options
    cells: Mapping[str, Sequence[Action]]

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
    cells: dict[str, list[Action]] = {}
    for action in analysis.wanted().values():
        if action.cell is not None and action.mnemonic == "TestCell":
            test = parameters_of(action, TestCell)
            if test.program is None:
                cells.setdefault(os.path.join(root, test.module), []).append(action)
    _check_workers(workers, analysis, is_asked=is_asked)
    return Matrices(analysis, options, cells)


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
            if target.rule.is_test and any(_has(target, path) for path in paths):
                targets.append(target)
    return targets


def _has(target: Target, path: str) -> bool:
    files = [label.path for label in target.attributes.get("tests") or ()]
    if path in files:
        return True
    inside = path == "." or any(file.startswith(f"{path}/") for file in files)
    return inside and MANUAL not in target.attributes["tags"]


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
