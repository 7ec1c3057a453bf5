"""`bk build` and `bk test`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import __version__, errors
from bkrules.build import early_actions
from bkrules.build.analysis import ONCE, Analysis, analyze_patterns, members, selected
from bkrules.build.execute import execute
from bkrules.build.lacks import NOTHING, Lacks, lacks_of
from bkrules.build.request import LOGGED, Options
from bkrules.build.selection import Selection
from bkrules.build.worker_overrides import NONE
from bkrules.commands.build_arguments import add_execution, options_of, runs_of
from bkrules.commands.harness import add_overrides, add_selection, overrides_of, selection_of
from bkrules.commands.parser import add_patterns, command, nothing, patterns_of
from bkrules.commands.test_targets import Change, add_targets, changes_of
from bkrules.commands.watch import add_watch, watch
from bkrules.execution.result import Result
from bkrules.incremental import null_build, stamps, up_to_date
from bkrules.incremental.dependencies import current
from bkrules.loading.root import root_of
from bkrules.plugin.calls import Hooks, PluginFault
from bkrules.plugin.registered import Reporter
from bkrules.plugin.spec import LISTENERS, hookimpl
from bkrules.report import artifacts
from bkrules.report.build_result import BuildResult
from bkrules.report.ci import current_ci
from bkrules.report.events import Events
from bkrules.report.failures import LINE_WIDTH, failures
from bkrules.report.summary import summarize
from bkrules.system import colours

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

MANUAL_HINT = "targets with the tag 'manual' must be named; //... and :all do not match them"


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    build = command(commands, "build", _build, "build targets; a matrix runs the cells without a cached result")
    add_patterns(build)
    add_selection(build)
    add_overrides(build)
    add_execution(build)
    test = command(commands, "test", _test, "run the tests of the matrices among the targets")
    add_patterns(test)
    add_targets(test)
    add_watch(test)
    add_selection(test)
    add_overrides(test)
    add_execution(test)
    test.add_argument(
        "--update_expectations",
        action="store_true",
        help="write what the build_tests make into the JSON files of their attribute 'expect', and compare nothing",
    )
    test.add_argument(
        "--pdb",
        action="store_true",
        help="run one cell after the other on this terminal, and stop in a test that fails with pdb, inside its cell",
    )


def _build(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    selection = selection_of(arguments)
    if _is_idle(selection):
        return errors.SUCCESS
    current().note_code()
    early_actions.runs_cells = True
    with _recorded(arguments) as events:
        runs, overrides = runs_of(arguments), overrides_of(arguments)
        is_plain = _is_plain(options, arguments) and not selection.words and not selection.skip
        is_plain = is_plain and replace(runs, kernel_key=ONCE.kernel_key) == ONCE and overrides == NONE
        known = up_to_date.before() if is_plain else None
        analysis = analyze_patterns(
            ".", patterns_of(arguments), runs=runs, overrides=overrides, up_to_date=known, keep_going=options.keep_going
        )
        if not analysis.targets.wanted and analysis.up_to_date is None:
            raise nothing(f"no target is left of {' '.join(patterns_of(arguments))}", MANUAL_HINT)
        lacks = lacks_of(analysis, patterns_of(arguments))
        if lacks.named and not options.keep_going:
            raise lacks.named[0]
        return _finish(selected(analysis, selection), options, arguments, events, lacks)


def _test(arguments: argparse.Namespace) -> int:
    if arguments.watch:
        return watch(arguments.argv)
    from bkrules.commands.expectations import recording, write_expectations

    options = options_of(arguments)
    selection = selection_of(arguments)
    if _is_idle(selection):
        return errors.SUCCESS
    changes = [*changes_of(arguments), *([recording] if arguments.update_expectations else [])]
    current().note_code()
    if arguments.pdb:
        from bkrules.commands.debug import check_terminal

        check_terminal()
    early_actions.runs_cells = True
    with _recorded(arguments) as events:
        analysis = analyze_patterns(
            ".",
            patterns_of(arguments),
            only_tests=True,
            change=_in_order(changes),
            runs=runs_of(arguments),
            overrides=overrides_of(arguments),
            keep_going=options.keep_going,
        )
        if not analysis.targets.wanted:
            raise nothing(
                f"no test_matrix among {' '.join(patterns_of(arguments))}", f"see `bk query //...`; {MANUAL_HINT}"
            )
        analysis = selected(analysis, selection)
        if arguments.pdb:
            from bkrules.commands.debug import debug_cells

            code = debug_cells(analysis, options)
            events.finished(code)
            return code
        code = _finish(analysis, options, arguments, events)
        return code or (write_expectations(analysis) if arguments.update_expectations else code)


def _in_order(changes: Sequence[Change]) -> Change | None:
    """Return all changes of targets as one; None without any."""
    return (lambda targets: functools.reduce(lambda left, change: change(left), changes, targets)) if changes else None


@contextmanager
def _recorded(arguments: argparse.Namespace) -> Iterator[Events]:
    """Write the events of a build, which are complete however the build ends."""
    events = Events(arguments.build_event_json_file)
    try:
        events.started(arguments.name, patterns_of(arguments), root_of(".") or "", __version__)
        yield events
    except BaseException as error:
        events.finished(errors.exit_code_of(error), str(error))
        raise


def _is_idle(selection: Selection) -> bool:
    """Print that a plan has no cell for this job of the CI, and return True, when that is so."""
    if selection.job is None or selection.job.cells:
        return False
    count = len(selection.job.plan.jobs)
    print(f"nothing to run: {selection.job.file} needs {count} jobs, and this is number {selection.job.number}")
    return True


def _finish(
    analysis: Analysis, options: Options, arguments: argparse.Namespace, events: Events, lacks: Lacks = NOTHING
) -> int:
    for remark in analysis.selected.remarks if analysis.selected else ():
        print(remark, file=sys.stderr, flush=True)
    wanted = set(analysis.targets.wanted)
    targets = [target for target in analysis.targets.targets if target.label in wanted]
    events.configured(patterns_of(arguments), targets, analysis.wanted(), analysis.out)
    hooks = analysis.plugins.hooks
    hooks.faults.clear()
    hooks.add(events)
    result = execute(analysis, options)
    hooks.remove(events)
    ci = current_ci()
    skipped = [f"SKIPPED: {lack}" for lack in lacks.matched]
    text = ci.shown("\n\n".join([*skipped, *_texts(hooks, result, analysis, options)]))
    print(colours.painted(text) if colours.wanted(sys.stdout, options.color) else text, flush=True)
    print(
        *(f"{line}\n" for line in ci.annotations(failures(result.results), analysis.workspace.root)),
        sep="",
        end="",
        flush=True,
    )
    for fault in (*analysis.faults, *lacks.named, *hooks.faults):
        print(ci.shown(errors.error_text(fault)), file=sys.stderr)
    exit_code = result.exit_code or (errors.BUILD_FAILED if hooks.faults else errors.SUCCESS)
    if lacks.named and not exit_code:
        exit_code = errors.MACHINE_LACKS
    if analysis.faults and exit_code != errors.INTERRUPTED:
        exit_code = errors.BUILD_FAILED
    events.finished(exit_code)
    if exit_code != result.exit_code or hooks.plugins_with(*LISTENERS):
        return exit_code  # a listener hears of every build, so no answer is kept
    has_all = result.exit_code == errors.SUCCESS and all(map(_is_known, result.results))
    if result.exit_code == errors.SUCCESS and _is_plain(options, arguments):
        _keep(text if has_all else None, analysis, options, result, arguments.argv, lacks)
    return result.exit_code


class _Summary:
    """The summary that bk prints when a build is over."""

    def __init__(self, out: Path, *, tails: bool) -> None:
        self._out, self._tails = out, tails

    @hookimpl
    def bk_summary(self, build: BuildResult) -> str:
        """Return the grids, the failures and the counts."""
        width = os.get_terminal_size(1).columns if os.isatty(1) else LINE_WIDTH
        return summarize(build, self._out, tails=self._tails, width=width)


def _texts(hooks: Hooks, build: BuildResult, analysis: Analysis, options: Options) -> list[str]:
    """Return what all plugins say at the end of a build, bk's own summary first."""
    summary = _Summary(analysis.out, tails=options.test_output in ("errors", "all"))
    hooks.add(summary)
    try:
        answers = hooks.call("bk_summary", build=build)
        if wrong := [answer for answer in answers if not isinstance(answer, str)]:
            raise hooks.wrong("bk_summary", wrong[0], "return a text, or None")
        return [text for text in answers if text]
    except PluginFault as fault:
        hooks.faults.append(fault)
        return [summary.bk_summary(build)]
    finally:
        hooks.remove(summary)


def _is_plain(options: Options, arguments: argparse.Namespace) -> bool:
    """Return whether the output of a build is only what `null_build` and `up_to_date` can repeat."""
    said_more = arguments.build_event_json_file or options.profile or options.test_output in LOGGED
    return options.remote is None and not said_more and not vars(arguments).get("update_expectations")


def _is_known(result: Result) -> bool:
    """Return whether a result follows from the disk: a cached one, or a skip that was known before anything started."""
    return result.cached or (result.action.cell is not None and bool(result.action.cell.skip))


def _keep(
    text: str | None, analysis: Analysis, options: Options, result: BuildResult, argv: list[str], lacks: Lacks
) -> None:
    """Keep the state for the next build, and the whole answer, its `text`, when everything was cached."""
    dependencies = current()
    if dependencies.doubts or stamps.clock_was_set():
        return
    dependencies.note_code()
    dependencies.note_for_all("/dev/fuse")
    if text is not None:
        before, after = text.rsplit(f"{result.seconds:.2f}", 1)
        text = f"{options.color}\n{before}{null_build.SECONDS}{after}\n"
    with suppress(OSError):  # without it, the next build repeats the work
        up_to_date.keep(
            argv,
            analysis.workspace.root,
            options.disk_cache,
            text,
            _states(analysis, result, lacks),
            analysis.up_to_date,
            dependencies,
        )


def _states(analysis: Analysis, build: BuildResult, lacks: Lacks) -> dict[str, up_to_date.PackageState]:
    """Return the state of each package in this build. One with a lack is not clean, since each build reports the lack."""
    packages = members(analysis).items()
    states = {name: up_to_date.PackageState(state, is_clean=name not in lacks.packages) for name, state in packages}
    reports = list(analysis.plugins.registered(Reporter))
    for result in build.results:
        package = states[result.action.label.package]
        package.count += 1
        package.seconds += result.seconds
        package.is_clean &= result.cached and result.action.cell is None
        package.outputs += artifacts.outputs(result, build, analysis.targets.asked, analysis.out, reports)
    return states
