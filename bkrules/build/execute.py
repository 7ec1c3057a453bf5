"""The steps of a build, one after the other.

Loading: files become targets. Analysis: targets become actions. Execution: actions become results.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bkrules.build.analysis import Analysis, history
from bkrules.build.request import LOGGED, Options
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.history import History
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote_options import ALL, MINIMAL
from bkrules.errors import BkError, of_machine
from bkrules.execution.context import RunContext
from bkrules.execution.executor import Executor
from bkrules.execution.job_slot import JobSlot
from bkrules.execution.pools import Pools
from bkrules.execution.profile import NoProfile, Profile
from bkrules.execution.result import Result, failed
from bkrules.execution.scheduler import Policy, Scheduler
from bkrules.execution.signals import StopSignals, go_on, leave
from bkrules.loading.workspace import STATE
from bkrules.model.action import Action
from bkrules.model.parameters import KINDS, CellParameters, TestCell, parameters_of
from bkrules.model.resources import pool_sizes
from bkrules.model.status import BAD, FailureClass, Status
from bkrules.plugin.calls import Hooks
from bkrules.plugin.spec import hookimpl
from bkrules.report import artifacts
from bkrules.report.build_result import BuildResult
from bkrules.report.output import Display
from bkrules.report.progress import Progress, wants_live
from bkrules.system import colours

if TYPE_CHECKING:
    from bkrules.cache.remote import Remote
    from bkrules.execution.elsewhere import Elsewhere


_OBJECTS = 700
"""The number of new objects after which Python collects garbage while actions run, its default."""


@dataclass(frozen=True)
class Known:
    """The knowledge of an action without a run: its key, the leaves of that, and its result.

    There is no key when a dependency has no result. In the place of leaves may be an `error`.
    """

    key: str | None = None
    leaves: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None

    @property
    def cache(self) -> str | None:
        """The cache with the result, if any."""
        return self.result.cache if self.result else None


class Execution:
    """The stores and processes of one build. Processes start with the first action that has to run."""

    def __init__(self, analysis: Analysis, options: Options, say: Callable[[str], None], *, show: bool = True) -> None:
        self.profile = Profile() if options.profile else NoProfile()
        self.analysis = analysis
        self.options = options
        self.digests = FileDigests(str(analysis.out / STATE / "digests"))
        self.history = history(analysis.out, of_shards=bool(analysis.selected and analysis.selected.shard))
        cache = options.disk_cache
        self.cas = Cas(f"{cache}/cas", self.digests)
        self.context: RunContext | None = None
        self.remote: Remote | None = None
        self.fault = ""
        self._lacks: dict[str, BkError | None] = {}
        if options.remote is not None:
            from bkrules.cache.remote import Remote

            self.remote = Remote(options.remote, self.cas, say)
        self.elsewhere: Elsewhere | None = None
        if options.executor is not None and self.remote is not None:
            from bkrules.execution.elsewhere import Elsewhere

            self.elsewhere = Elsewhere(options.executor, self.cas, self.remote)
        actions = ActionCache(f"{cache}/ac", self.cas, self.remote)
        self.executor = Executor(
            analysis.workspace.place,
            actions,
            self.digests,
            self._open,
            whole=lambda action: show and self._is_fetched(action),
            read=self.is_wanted,  # also for `bk why`, which tells what `bk build` would do
            may_be_cached=self._may_be_cached,
            say=say,
            profile=self.profile,
            elsewhere=self.elsewhere,
        )

    def is_wanted(self, action: Action) -> bool:
        """Return whether an action is wanted for itself: its outputs are shown in `bk-out`."""
        return action.cell is not None or action.label in self.analysis.targets.asked

    def _is_fetched(self, action: Action) -> bool:
        """Return whether the outputs of an action are fetched though nothing here reads them, as the options have it."""
        options = self.options
        if options.downloads == MINIMAL:  # without its log, a cell has no output to print
            return action.cell is not None and options.test_output in LOGGED
        return options.downloads == ALL or self.is_wanted(action)

    def _may_be_cached(self, action: Action) -> bool:
        """Return whether a cached result may be used. Bazel's rule for `auto`: several runs always run."""
        wish = self.options.cache_test_results
        return action.cell is None or wish == "yes" or (wish == "auto" and not action.cell.runs)

    def refuse(self, action: Action) -> Result | None:
        """Return the result of a cell that this machine cannot run; None when it can, or when only its run can tell."""
        from bkrules.runners.preflight import lack_of

        if self.elsewhere is not None and self.elsewhere.takes(action):
            return None
        if not issubclass(KINDS[action.mnemonic], CellParameters):
            return None  # it boots no daemon
        parameters = parameters_of(action, CellParameters)
        isolation = parameters.isolation if isinstance(parameters, TestCell) else ""
        needs = repr((isolation, list(parameters.workers)))
        if needs not in self._lacks:
            try:
                self._lacks[needs] = lack_of(action, self.analysis.plugins, self.analysis.machine().host)
            except BkError:
                self._lacks[needs] = None  # of a plugin, whose cell reports it
        lack = self._lacks[needs]
        return failed(action, lack) if lack else None

    def prepare(self, *, tests: bool) -> None:
        """Open the context of the run. Call this in the main thread, before the first action runs; `tests`: cells may run."""
        if self.context is None:
            self.context = self._make()
            # Loaded and analysed objects stay; garbage comes from here on.
            gc.freeze()
            gc.set_threshold(_OBJECTS)
            if tests:
                self.context.processes.begin()

    def _open(self) -> RunContext:
        assert self.context is not None
        return self.context

    def _make(self) -> RunContext:
        from bkrules.build.open_context import open_context

        return open_context(
            self.options.disk_cache,
            self.cas,
            self.analysis.out,
            self.analysis.machine,
            self.analysis.plugins,
            self.options.jobs,
            test_timeouts=self.options.test_timeouts,
            test_attempts=self.options.test_attempts,
        )

    def look_up(self, action: Action, *, ask: bool = True) -> Known:
        """Return the key and the cached result of an action; without `ask` only from the disk. Starts nothing."""
        executor = self.executor
        if not all(name in executor.results for name in action.dependencies):
            return Known()
        try:
            whole = executor.key(action)
        except BkError as error:
            return Known(leaves={"error": error.message})
        result = executor.look_up(action, whole)
        if result is None and self.remote is not None and ask:
            result = executor.ask(action)
        if result is not None and result.status == Status.PASSED:
            executor.results[action.id] = result
        known = result if result is not None and result.cached else executor.results.get(action.id)
        return Known(whole.digest.hash, whole.leaves, known)

    def interrupt(self) -> None:
        """End all that runs, and the wait for another run of bk."""
        self.executor.stopped.set()
        if self.elsewhere is not None:
            self.elsewhere.engine.end()
        if self.remote is not None:
            self.remote.repeat_no_more()
        if self.context is not None:
            self.context.processes.interrupt()

    @property
    def remote_failed(self) -> bool:
        """Whether a required remote cache failed, or an engine."""
        return any(one.failed for one in (self.remote, self.elsewhere) if one is not None)

    def end_shared(self) -> tuple[str, ...]:
        """End the shared workers. Return their leaks."""
        cells = self.context.of_cells if self.context else None
        return cells.shared.close() if cells else ()

    def close(self) -> None:
        """End all processes of the build, and its connections to an engine. Remove its files. No action runs any more."""
        if self.elsewhere is not None:
            self.elsewhere.engine.close()
        if self.context is not None:
            from bkrules.build.open_context import close_context

            close_context(self.context)
        with self.bearing():
            self.digests.save()
            self.history.save()

    @contextmanager
    def bearing(self) -> Iterator[None]:
        """Keep the first fault of the machine, such as a full disk: what the build has found is shown all the same."""
        try:
            yield
        except OSError as error:
            lack = of_machine(error)
            if lack is None:
                raise
            self.fault = self.fault or str(lack)


def execute(analysis: Analysis, options: Options, progress: Progress | None = None) -> BuildResult:
    """Execute the analysed actions, report them, and write their outputs. Listeners hear of each result, in this thread.

    `progress` shows them, by default on standard error. Raises the exceptions of bk's own listeners.
    """
    began = time.monotonic()
    actions = analysis.wanted()
    with in_use(options.disk_cache):
        coloured = colours.wanted(sys.stderr, options.color)
        shown = progress or Progress(sys.stderr, live=wants_live(sys.stderr), coloured=coloured)
        return _execute(analysis, options, actions, began, shown)


def _execute(
    analysis: Analysis, options: Options, actions: Mapping[str, Action], began: float, progress: Progress
) -> BuildResult:
    execution = Execution(analysis, options, progress.say)
    display = Display(progress, analysis.out, options.test_output, execution.history.seconds)
    listeners = (_Reports(analysis, execution), display, _Noting(execution.history))
    with _listening(analysis.plugins.hooks, listeners) as hooks:
        hooks.tell("bk_build_started", targets=[str(label) for label in analysis.targets.wanted], actions=len(actions))
        build = _executed(execution, actions, display, progress, began)
        hooks.tell("bk_build_finished", build=build)
    fault = build.fault or execution.fault
    return replace(build, fault=fault) if fault else build


class _Noting:
    """Notes how long actions took."""

    def __init__(self, history: History) -> None:
        self._history = history

    @hookimpl
    def bk_action_finished(self, result: Result) -> None:
        """Note an action that ran."""
        if result.has_run:
            self._history.note(result.action.id, result.seconds, failed=result.status in BAD)


class _Reports:
    """Writes the outputs and reports of a build."""

    def __init__(self, analysis: Analysis, execution: Execution) -> None:
        self._analysis, self._execution = analysis, execution

    @hookimpl
    def bk_build_finished(self, build: BuildResult) -> None:
        """Write them below `bk-out`."""
        analysis, digests = self._analysis, self._execution.digests
        with self._execution.bearing():
            artifacts.write(build, analysis.targets.asked, analysis.out, digests, analysis.plugins)
            digests.save()


@contextmanager
def _listening(hooks: Hooks, listeners: Sequence[object]) -> Iterator[Hooks]:
    """Have bk's own listeners hear of one build."""
    for listener in listeners:
        hooks.add(listener)
    try:
        yield hooks
    finally:
        for listener in listeners:
            hooks.remove(listener)


def _executed(
    execution: Execution, actions: Mapping[str, Action], display: Display, progress: Progress, began: float
) -> BuildResult:
    analysis, options, hooks = execution.analysis, execution.options, execution.analysis.plugins.hooks
    results = execution.executor.results
    scheduler = _scheduler(execution, actions)
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
            progress.say("interrupted: ending running actions (Ctrl-C again: at once)")
            execution.interrupt()
        finally:
            signals.reaction = go_on
            execution.interrupt()
            scheduler.join()
            display.close()
            execution.close()
            execution.profile.write(options.profile)
    why = (
        ("the build was interrupted", FailureClass.INTERRUPTED)
        if interrupted
        else (scheduler.stopped_by, FailureClass.NONE)
    )
    for name, action in actions.items():
        if name not in results:
            results[name] = Result(action, Status.NOT_RUN, reason=why[0], failure=why[1])
            hooks.tell("bk_action_finished", result=results[name])
    return BuildResult(
        tuple(results[name] for name in actions),
        time.monotonic() - began,
        interrupted,
        leaks,
        fault,
        execution.remote_failed,
        analysis.selected,
        analysis.left_out,
        analysis.runs.kernel_key,
        analysis.phases.seconds(),
    )


def _scheduler(execution: Execution, actions: Mapping[str, Action]) -> Scheduler:
    executor, options, profile = execution.executor, execution.options, execution.profile
    hooks, phases = execution.analysis.plugins.hooks, execution.analysis.phases
    engine = execution.elsewhere
    tests = any(action.cell and not (engine and engine.takes(action)) for action in actions.values())

    def on_start(action: Action) -> None:
        execution.prepare(tests=tests)
        hooks.tell("bk_action_started", action=action)

    def run(action: Action, slot: JobSlot) -> Result:
        with phases.during(action.mnemonic):
            return executor.run(action, slot)

    def on_result(result: Result) -> None:
        executor.results[result.action.id] = result
        hooks.tell("bk_action_finished", result=result)

    return Scheduler(
        profile.traced(executor.look_up, "disk cache"),
        run,
        on_start,
        on_result,
        pools=Pools(
            options.jobs,
            pool_sizes(options.jobs, options.resources),
            options.executor.threads if options.executor else 0,
        ),
        policy=Policy(options.keep_going, options.test_keep_going),
        ask=profile.traced(executor.ask, "remote cache") if execution.remote else None,
        history=execution.history,
        cancel=execution.interrupt,
        refuse=execution.refuse,
        wanted=execution.is_wanted,
        elsewhere=execution.elsewhere.takes if execution.elsewhere else lambda _action: False,
        profile=profile,
    )
