"""The analysis of a build: a command line becomes targets and actions."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.analysis import host_inputs as machine
from bkrules.analysis.analyze import ActionGraph, analyze
from bkrules.analysis.runs import Runs
from bkrules.build.ci_plan import check_sources, sources_of
from bkrules.build.early_actions import EarlyActions, cache_folder
from bkrules.build.selection import Selection, select
from bkrules.build.worker_overrides import NONE, WorkerOverrides, apply_overrides
from bkrules.cache import atomic
from bkrules.cache.history import NAME as HISTORY
from bkrules.cache.history import History
from bkrules.errors import PLACES, LoadError, MachineLacks
from bkrules.execution.phases import ANALYSIS, LOADING, Phases
from bkrules.incremental.dependencies import current
from bkrules.incremental.up_to_date import UpToDate
from bkrules.incremental.up_to_date import members as members_of
from bkrules.loading.glob import OUTPUT
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.plugins import load_plugins
from bkrules.loading.root import MARKER, find_root
from bkrules.loading.workspace import STATE, Workspace, check_labels
from bkrules.model.action import Action, Cell
from bkrules.model.label import Label, Pattern, parse_pattern
from bkrules.model.rule import Target
from bkrules.model.selected import Selected
from bkrules.plugin.installed import Plugins
from bkrules.plugin.remembered import remember
from bkrules.rules import RULES

ONCE = Runs()


@dataclass(frozen=True)
class Analysis:
    """A build that has been loaded and analysed. `faults` are the errors of the packages and targets that were left out."""

    workspace: Workspace
    plugins: Plugins
    targets: TargetGraph
    actions: ActionGraph
    machine: functools._lru_cache_wrapper[machine.Machine]
    out: Path
    runs: Runs
    phases: Phases
    selected: Selected | None = None
    up_to_date: UpToDate | None = None
    faults: tuple[LoadError, ...] = ()

    @property
    def left_out(self) -> tuple[int, float]:
        """How many actions were skipped because their packages are up to date, and the seconds they took when they ran."""
        return self.up_to_date.left_out() if self.up_to_date else (0, 0.0)

    def cells(self) -> dict[str, Cell]:
        """Return the cells of the requested targets by their ids, selected or not."""
        names = self._own()
        return {name: action.cell for name, action in self.actions.actions.items() if name in names and action.cell}

    def _own(self) -> set[str]:
        """Return the ids of the actions of the requested targets. For a worker or a mirror, these are the actions of
        its dependencies.
        """
        labels = list(self.targets.wanted)
        ids: set[str] = set()
        while labels:
            label = labels.pop()
            actions = self.actions.of_target[label]
            ids.update(actions)
            if not actions:
                labels += self.targets.edges[label]
        return ids

    def wanted(self) -> dict[str, Action]:
        """Return the actions of the requested targets and their dependencies, in the order of execution; a cell for each run."""
        return self._wanted

    @functools.cached_property
    def _wanted(self) -> dict[str, Action]:
        actions = {name: self._selected(self.actions.actions[name]) for name in self._own()}
        wanted = {name: action for name, action in actions.items() if action is not None}
        todo = list(wanted.values())
        while todo:
            for name in todo.pop().dependencies:
                if name not in wanted:
                    wanted[name] = self.actions.actions[name]
                    todo.append(wanted[name])
        chosen = [wanted[name] for name in self.actions.actions if name in wanted]
        cells = frozenset(action.id for action in chosen if action.cell is not None)
        return {run.id: run for action in chosen for run in self.runs.of(action, cells)}

    def _selected(self, action: Action) -> Action | None:
        """Return the action, unless it is a cell that is not selected. A skipped cell needs no inputs."""
        if action.cell is None or self.selected is None:
            return action
        if action.id not in self.selected.ids:
            return None
        skip = self.selected.skip
        return replace(action, inputs=(), cell=replace(action.cell, skip=skip)) if skip else action


def open_workspace(folder: str) -> Workspace:
    """Return the workspace around a folder. Raises UsageError or LoadError."""
    root = find_root(folder)
    out = Path(root, OUTPUT)
    PLACES[OUTPUT] = str(out)
    check_output(out)
    hide_output(out)
    workspace = Workspace(
        root,
        RULES,
        f"{root}/{OUTPUT}/{STATE}",
        lambda module: load_plugins(root).rules_of(module),
        lambda: load_plugins(root).usable(),
        cache_folder(),
    )
    top = workspace.package("")
    if top is None or not top.workspace:
        raise LoadError(
            "no-workspace-name",
            f"{MARKER} does not name the workspace",
            where=f"{MARKER}:1",
            hint="call workspace(name = ...) in it",
        )
    workspace.check_overrides()
    return workspace


def hide_output(out: Path) -> None:
    """Make version control ignore `bk-out`, in whatever repository it is."""
    file = out / ".gitignore"
    if not os.path.lexists(file):
        with suppress(OSError):  # the command that needs to write into the folder reports why it cannot
            atomic.write(str(file), b"*\n")


def check_output(out: Path) -> None:
    """Raise MachineLacks when `bk-out` is not a folder."""
    if not out.is_dir() and os.path.lexists(out):
        what = "a dangling link" if out.is_symlink() else "no folder"
        message = f"{out} is {what}, but bk needs a folder there"
        raise MachineLacks("output-folder", message, hint="bk did not make it: remove it")


def analyze_patterns(
    folder: str,
    patterns: Sequence[str],
    *,
    only_tests: bool = False,
    change: Callable[[Sequence[Target]], Sequence[Target]] | None = None,
    runs: Runs = ONCE,
    overrides: WorkerOverrides = NONE,
    up_to_date: UpToDate | None = None,
    keep_going: bool = False,
) -> Analysis:
    """Load and analyse the targets that the patterns name; with `only_tests`, only those with cells. Raises BkError.
    `change` returns those that are built, perhaps in another form for this build alone.

    Packages that are `up_to_date` are left out. With `keep_going`, a broken worker fails only its own cells, and what cannot be
    loaded or analysed is left out.
    """
    phases = Phases()
    with phases.during(LOADING):
        workspace = open_workspace(folder)
        package = package_of(workspace, folder)
        parsed = [parse_pattern(text, package) for text in patterns]
    if up_to_date is not None:
        with suppress(*([LoadError] if keep_going else [])):
            analysis = _analyze_others(workspace, parsed, up_to_date, runs, phases, keep_going=keep_going)
            if analysis is not None:
                return analysis
    faults: list[LoadError] = []
    with phases.during(LOADING):
        targets = workspace.match(parsed, manual=False, faults=faults if keep_going else None)
        if only_tests:
            targets = [target for target in _unfolded(workspace, targets) if target.rule.is_test]
        if change is not None:
            targets = list(change(targets))
            for target in targets:
                workspace.put(target)
    analysis = analyze_targets(workspace, targets, runs, overrides, phases, keep_going=keep_going)
    found = {str(fault): fault for fault in (*faults, *analysis.faults)}
    if found and not analysis.targets.wanted:
        raise next(iter(found.values()))
    return replace(analysis, faults=tuple(found.values()))


def _analyze_others(
    workspace: Workspace, patterns: list[Pattern], up_to_date: UpToDate, runs: Runs, phases: Phases, *, keep_going: bool
) -> Analysis | None:
    """Analyse the packages that are not up to date. Return None when an up-to-date one has other targets or actions than before."""
    while up_to_date.skipped:
        with phases.during(LOADING):
            targets = workspace.match(patterns, manual=False, skip=up_to_date.skipped)
        analysis = analyze_targets(workspace, targets, runs, phases=phases, keep_going=keep_going)
        needed = {target.label.package for target in analysis.targets.targets} & up_to_date.skipped
        if analysis.faults:
            return None
        if not needed:
            return None if up_to_date.is_short_of(members(analysis)) else replace(analysis, up_to_date=up_to_date)
        up_to_date.without(needed)
    return None


def members(analysis: Analysis) -> dict[str, str]:
    """Return a digest of each package's targets and actions in this build."""
    actions = ((action.label.package, name) for name, action in analysis.wanted().items())
    return members_of((target.label for target in analysis.targets.targets), actions)


def _unfolded(workspace: Workspace, targets: Iterable[Target]) -> list[Target]:
    """Return the targets, with each test_suite replaced by its targets. Raises LoadError for an unknown label in a suite."""
    unfolded: dict[Label, Target] = {}
    waiting = list(reversed(list(targets)))
    while waiting:
        target = waiting.pop()
        if target.label in unfolded:
            continue
        unfolded[target.label] = target
        if target.rule.name == "test_suite":
            waiting += reversed(check_labels(workspace, target))
    return list(unfolded.values())


def package_of(workspace: Workspace, folder: str) -> str:
    """Return the package that a folder of the workspace would be: the package of `:name` on a command line in that folder."""
    package = os.path.relpath(os.path.realpath(folder), workspace.root)
    return "" if package == "." else package


def analyze_targets(
    workspace: Workspace,
    targets: Iterable[Target],
    runs: Runs = ONCE,
    overrides: WorkerOverrides = NONE,
    phases: Phases | None = None,
    *,
    keep_going: bool = False,
) -> Analysis:
    """Analyse these targets and their dependencies. Raises BkError, for a broken worker only without `keep_going`."""
    phases = phases or Phases()
    out = Path(workspace.root, OUTPUT)
    with phases.during(LOADING):
        machine.note_reads_of_plugins()
        plugins = remember(str(out / STATE), load_plugins(workspace.root))
        here = functools.lru_cache(maxsize=1)(lambda: machine.load(str(out / STATE), runs.kernel_key))
        faults: list[LoadError] = []
        closed = _closed(workspace, list(targets), plugins, faults if keep_going else None)
        graph = apply_overrides(closed, workspace, plugins, overrides)
    with phases.during(ANALYSIS):
        early = EarlyActions(workspace.place, out, f"{out}/{STATE}", here, plugins, phases)
        actions = analyze(graph, workspace, plugins, here, overrides.unsupported, early.run, keep_going=keep_going)
        workspace.save()
    faults += actions.faults
    return Analysis(workspace, plugins, graph, actions, here, out, runs, phases, faults=tuple(faults))


def _closed(
    workspace: Workspace, targets: list[Target], plugins: Plugins, faults: list[LoadError] | None
) -> TargetGraph:
    """Return the graph of the targets; with `faults`, those with an error below them are left out, and the error is added."""
    try:
        return close(workspace, targets, plugins)
    except LoadError:
        if faults is None:
            raise
    good = []
    for target in targets:
        try:
            close(workspace, [target], plugins)
            good.append(target)
        except LoadError as error:
            faults.append(error)
    return close(workspace, good, plugins)


def selected(analysis: Analysis, selection: Selection) -> Analysis:
    """Return the analysis with only the selected cells. Raises BkError with exit code 4 when none is left."""
    if not selection.words and not selection.skip:
        return analysis
    history = History(
        current().note(f"{analysis.out}/{STATE}/{HISTORY}") if selection.shard or selection.failed else ""
    )
    failed = history.failed() if selection.failed else frozenset()
    if selection.job is not None:
        check_sources(selection.job, sources_of(analysis.workspace, analysis.actions.actions.values()))
    return replace(analysis, selected=select(analysis.cells(), selection, history.seconds, failed))


def history(out: Path, *, of_shards: bool = False) -> History:
    """Return the history of a workspace's actions; `out` is its `bk-out`.

    Builds of one shard have a separate history: the other shards must divide the cells by the same seconds.
    """
    return History(str(out / STATE / (f"{HISTORY}-of-shards" if of_shards else HISTORY)))
