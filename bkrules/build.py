"""The steps of a build, one after the other.

Loading: files become targets. Analysis: targets become actions. Execution: actions become results.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import machine
from bkrules.action import Action, Cell
from bkrules.analysis.analyze import ActionGraph, analyze
from bkrules.analysis.runs import Runs
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.history import NAME as HISTORY
from bkrules.cache.history import History
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import BkError, LoadError
from bkrules.execution.executor import Executor
from bkrules.execution.pools import Pools
from bkrules.execution.profile import NoProfile, Profile
from bkrules.execution.result import Result
from bkrules.execution.runner import Workshop
from bkrules.execution.scheduler import Policy, Scheduler
from bkrules.execution.signals import StopSignals, go_on, leave
from bkrules.label import Label, parse_pattern
from bkrules.loading.glob import OUTPUT
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.sources import MARKER
from bkrules.loading.workspace import STATE, Workspace, check_labels, find_root
from bkrules.observed import note
from bkrules.plugin.manager import Plugins, load
from bkrules.report import artifacts
from bkrules.report.build_result import BuildResult
from bkrules.report.output import Display
from bkrules.report.progress import Progress, wants_live
from bkrules.resources import pool_sizes
from bkrules.rule import Target
from bkrules.rules import RULES
from bkrules.selection import Selected, Selection, select
from bkrules.wishes import NONE, Wishes, granted

if TYPE_CHECKING:
    from bkrules.cache.remote import Remote


ONCE = Runs()


@dataclass(frozen=True)
class Options:
    """What the command line says about how to build. `resources` are sizes of pools, `test_timeouts` seconds by size of test, and
    `profile` is the file for a profile, if there is to be one.
    """

    jobs: int
    disk_cache: str
    keep_going: bool = False
    test_keep_going: bool = True
    resources: tuple[tuple[str, float], ...] = ()
    test_timeouts: Mapping[str, int] = field(default_factory=dict)
    profile: str = ""
    remote: RemoteOptions | None = None
    cache_test_results: str = "auto"
    test_attempts: int | None = None
    test_output: str = "errors"


@dataclass(frozen=True)
class Analysis:
    """A build that has been loaded and analysed."""

    workspace: Workspace
    plugins: Plugins
    targets: TargetGraph
    actions: ActionGraph
    machine: functools._lru_cache_wrapper[machine.Machine]
    out: Path
    runs: Runs
    selected: Selected | None = None

    def cells(self) -> dict[str, Cell]:
        """The cells of the targets asked for, by their ids, whether they are selected or not."""
        own = self._own()
        return {name: action.cell for name, action in self.actions.actions.items() if name in own and action.cell}

    def _own(self) -> set[str]:
        """The ids of the actions of the targets asked for; a worker or a mirror is as good as what it is made of."""
        labels = list(self.targets.wanted)
        ids: set[str] = set()
        while labels:
            label = labels.pop()
            own = self.actions.of_target[label]
            ids.update(own)
            if not own:
                labels += self.targets.edges[label]
        return ids

    def wanted(self) -> dict[str, Action]:
        """The actions of the targets asked for and all that they depend on, in the order of execution; a cell for each run."""
        actions = {name: self._selected(self.actions.actions[name]) for name in self._own()}
        found = {name: action for name, action in actions.items() if action is not None}
        todo = list(found.values())
        while todo:
            for name in todo.pop().dependencies:
                if name not in found:
                    found[name] = self.actions.actions[name]
                    todo.append(found[name])
        chosen = (found[name] for name in self.actions.actions if name in found)
        return {one.id: one for action in chosen for one in self.runs.of(action)}

    def _selected(self, action: Action) -> Action | None:
        """The action, unless it is a cell that is not selected; one that is skipped needs no inputs."""
        if action.cell is None or self.selected is None:
            return action
        if action.id not in self.selected.ids:
            return None
        skip = self.selected.skip
        return replace(action, inputs=(), cell=replace(action.cell, skip=skip)) if skip else action


def open_workspace(folder: str) -> Workspace:
    """The workspace around a folder. Raises UsageError or LoadError."""
    root = find_root(folder)
    workspace = Workspace(root, RULES, f"{root}/{OUTPUT}/{STATE}")
    top = workspace.package("")
    if top is None or not top.workspace:
        raise LoadError(
            "no-workspace-name",
            f"{MARKER} does not name the workspace",
            where=f"{MARKER}:1",
            hint="call workspace(name = ...) in it",
        )
    return workspace


def analyze_patterns(
    folder: str, patterns: Sequence[str], *, kind: str = "", runs: Runs = ONCE, wishes: Wishes = NONE
) -> Analysis:
    """Load and analyse what the patterns name; with `kind`, only the targets of that rule. Raises BkError."""
    workspace = open_workspace(folder)
    package = package_of(workspace, folder)
    targets = workspace.match([parse_pattern(text, package) for text in patterns], manual=False)
    if kind:
        targets = [target for target in _unfolded(workspace, targets) if target.rule.name == kind]
    return analyze_targets(workspace, targets, runs, wishes)


def _unfolded(workspace: Workspace, targets: Iterable[Target]) -> list[Target]:
    """The targets, with those of a test_suite in its place. Raises LoadError for a label of a suite that names nothing."""
    found: dict[Label, Target] = {}
    waiting = list(reversed(list(targets)))
    while waiting:
        target = waiting.pop()
        if target.label in found:
            continue
        found[target.label] = target
        if target.rule.name == "test_suite":
            waiting += reversed(check_labels(workspace, target))
    return list(found.values())


def package_of(workspace: Workspace, folder: str) -> str:
    """The package that a folder of the workspace would be: what `:name` on a command line given there means."""
    package = os.path.relpath(os.path.realpath(folder), workspace.root)
    return "" if package == "." else package


def analyze_targets(
    workspace: Workspace, targets: Iterable[Target], runs: Runs = ONCE, wishes: Wishes = NONE
) -> Analysis:
    """Analyse these targets and all that they depend on. Raises BkError."""
    plugins = load()
    out = Path(workspace.root, OUTPUT)
    here = functools.lru_cache(maxsize=1)(lambda: machine.load(str(out / STATE)))
    graph = granted(close(workspace, targets, plugins), workspace, plugins, wishes)
    actions = analyze(graph, workspace, plugins, here, wishes.unsupported)
    workspace.save()
    return Analysis(workspace, plugins, graph, actions, here, out, runs)


def selected(analysis: Analysis, selection: Selection) -> Analysis:
    """The analysis with only those cells that are selected. Raises BkError with exit code 4 when none is left."""
    if not selection.words and not selection.skip:
        return analysis
    store = note(f"{analysis.out}/{STATE}/{HISTORY}") if selection.shard else ""
    return replace(analysis, selected=select(analysis.cells(), selection, History(store).seconds))


def history(out: Path) -> History:
    """What each action of a workspace took when it last ran; `out` is its `bk-out`."""
    return History(str(out / STATE / HISTORY))


class Execution:
    """The stores and processes of one build. Processes come to life with the first action that has to run."""

    def __init__(self, analysis: Analysis, options: Options, say: Callable[[str], None], *, show: bool = True) -> None:
        self._show = show
        self.profile = Profile() if options.profile else NoProfile()
        self.analysis = analysis
        self.options = options
        self.digests = FileDigests(str(analysis.out / STATE / "digests"))
        self.history = history(analysis.out)
        cache = options.disk_cache
        self.cas = Cas(f"{cache}/cas", self.digests)
        self.workshop: Workshop | None = None
        self.remote: Remote | None = None
        if options.remote is not None:
            from bkrules.cache.remote import Remote

            self.remote = Remote(options.remote, self.cas, say)
        actions = ActionCache(f"{cache}/ac", self.cas, self.remote)
        self.executor = Executor(
            analysis.workspace.root,
            actions,
            self.digests,
            self._open,
            whole=self._is_wanted,
            may_be_cached=self._may_be_cached,
            say=say,
            profile=self.profile,
        )

    def _is_wanted(self, action: Action) -> bool:
        """Whether the bytes that an action makes are to be shown in `bk-out`."""
        return self._show and (action.cell is not None or action.label in self.analysis.targets.asked)

    def _may_be_cached(self, action: Action) -> bool:
        """Whether a result from before will do. Bazel's rule for `auto`: who asks for several runs wants them to run."""
        wish = self.options.cache_test_results
        return action.cell is None or wish == "yes" or (wish == "auto" and not action.cell.runs)

    def prepare(self, *, tests: bool) -> None:
        """Open what running needs. Called in the main thread, before the first action runs; `tests` says whether cells may."""
        if self.workshop is None:
            self.workshop = self._make()
            if tests:
                self.workshop.processes.begin()

    def _open(self) -> Workshop:
        assert self.workshop is not None
        return self.workshop

    def _make(self) -> Workshop:
        from bkrules.execution.mirror_door import MirrorDoor
        from bkrules.execution.processes import Processes
        from bkrules.execution.registry import Registries
        from bkrules.execution.run_folder import RunFolder, sweep
        from bkrules.execution.shared_cells import SharedCells

        cache = self.options.disk_cache
        sweep(cache)
        folder = RunFolder(cache)
        processes = Processes()
        return Workshop(
            cache=Path(cache),
            out=self.analysis.out,
            cas=self.cas,
            folder=folder,
            processes=processes,
            registries=Registries(processes, folder),
            door=MirrorDoor(),
            machine=self.analysis.machine,
            plugins=self.analysis.plugins,
            jobs=self.options.jobs,
            shared=SharedCells(),
            test_timeouts=self.options.test_timeouts,
            test_attempts=self.options.test_attempts,
        )

    def look_up(self, action: Action) -> tuple[str | None, dict[str, str], str | None]:
        """The key of an action, its leaves, and in which cache its result is. No key when what it depends on has no result."""
        executor = self.executor
        if not all(name in executor.results for name in action.dependencies):
            return None, {}, None
        try:
            whole = executor.key(action)
        except BkError as error:
            return None, {"error": error.message}, None
        found = executor.look_up(action)
        if found is None and self.remote is not None:
            found = executor.ask(action)
        if found is not None and found.status == "passed":
            executor.results[action.id] = found
        kept = executor.results.get(action.id)
        return whole.digest.hash, dict(whole.leaves), kept.cache if kept else None

    def interrupt(self) -> None:
        """End whatever runs, and what waits for another run of bk."""
        self.executor.stopped.set()
        if self.workshop is not None:
            self.workshop.processes.interrupt()

    def end_shared(self) -> tuple[str, ...]:
        """End the workers that cells shared; what they left behind."""
        return self.workshop.shared.close() if self.workshop else ()

    def close(self) -> None:
        """End and remove all that the build brought to life."""
        if self.workshop is not None:
            self.workshop.shared.close()
            self.workshop.registries.close()
            self.workshop.processes.close()
            self.workshop.door.close()
            self.workshop.folder.close()
        self.digests.save()
        self.history.save()


def execute(analysis: Analysis, options: Options, told: Callable[[Result], None] = lambda _: None) -> BuildResult:
    """Execute what was analysed, report it, and write its outputs. Each result is `told` as it comes, in this thread."""
    began = time.monotonic()
    actions = analysis.wanted()
    with in_use(options.disk_cache):
        return _execute(analysis, options, actions, began, told)


def _execute(
    analysis: Analysis, options: Options, actions: Mapping[str, Action], began: float, told: Callable[[Result], None]
) -> BuildResult:
    progress = Progress(sys.stderr, len(actions), live=wants_live(sys.stderr))
    execution = Execution(analysis, options, progress.say)
    results = execution.executor.results
    display = Display(progress, analysis.out, options.test_output)
    scheduler = _scheduler(execution, actions, display, told)
    interrupted = False
    leaks: tuple[str, ...] = ()
    fault = ""
    with StopSignals(scheduler.interrupt) as signals:
        try:
            scheduler.execute(actions)
            signals.reaction = leave
            if scheduler.interrupted:
                leave()
            leaks = execution.end_shared()
            fault = execution.remote.flush() if execution.remote else ""
        except KeyboardInterrupt:
            interrupted = True
            display.close()
            progress.say("interrupted: what runs is ended (Ctrl-C again: at once)")
            execution.interrupt()
        finally:
            signals.reaction = go_on
            execution.interrupt()
            scheduler.join()
            display.close()
            execution.close()
            execution.profile.write(options.profile)
    why = ("the build was interrupted", "interrupted") if interrupted else (scheduler.stopped_by, "")
    for name, action in actions.items():
        if name not in results:
            results[name] = Result(action, "not run", reason=why[0], failure=why[1])
            told(results[name])
    build = BuildResult(
        tuple(results[name] for name in actions),
        time.monotonic() - began,
        interrupted,
        leaks,
        fault,
        analysis.selected,
    )
    artifacts.write(build, analysis.targets.asked, analysis.out)
    return build


def _scheduler(
    execution: Execution, actions: Mapping[str, Action], display: Display, told: Callable[[Result], None]
) -> Scheduler:
    executor, options, profile = execution.executor, execution.options, execution.profile
    tests = any(one.cell for one in actions.values())

    def on_start(action: Action) -> None:
        execution.prepare(tests=tests)
        display.start(action)

    def on_result(result: Result) -> None:
        executor.results[result.action.id] = result
        if result.has_run:
            execution.history.note(result.action.id, result.seconds, failed=result.status in ("failed", "timed out"))
        display.end(result)
        told(result)

    return Scheduler(
        profile.traced(executor.look_up, "disk cache"),
        executor.run,
        on_start,
        on_result,
        pools=Pools(options.jobs, pool_sizes(options.jobs, options.resources)),
        policy=Policy(options.keep_going, options.test_keep_going),
        ask=profile.traced(executor.ask, "remote cache") if execution.remote else None,
        history=execution.history,
        cancel=execution.interrupt,
        profile=profile,
    )
