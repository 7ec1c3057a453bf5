"""`bk ci plan`, `tools` and `merge`: divide the cells that must run among the jobs of a CI, and merge the reports."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.build import ci_plan, ci_seconds
from bkrules.build.analysis import Analysis, analyze_patterns, history, open_workspace, selected
from bkrules.build.ci_plan import NAME as PLAN
from bkrules.build.ci_plan import SCHEMA, Plan, estimates, shared_tools, sources_of
from bkrules.build.execute import Execution, execute
from bkrules.build.request import Options
from bkrules.build.selection import divide_cells
from bkrules.cache import atomic
from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote import DOWNLOADS, Remote
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.harness import add_overrides, add_selection, overrides_of, selection_of
from bkrules.commands.parser import PARSER, add_cache, command, nothing, patterns_of, positive
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.errors import RemoteFailed, UsageError
from bkrules.execution.result import Result
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import root_of
from bkrules.loading.workspace import STATE, Workspace
from bkrules.model.action import Action, Cell
from bkrules.model.label import parse_label
from bkrules.model.selected import is_of_plan
from bkrules.model.status import Status
from bkrules.report.artifacts import JUNIT, REPORT, document_of, entry
from bkrules.report.build_result import BuildResult, by_matrix
from bkrules.report.merge import junit_of, merged, merged_junit, merged_plan
from bkrules.report.schema import check_report
from bkrules.report.summary import summarize
from bkrules.system.files import read_regular

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

_REPEATED = ("cells", "workers")
"""The groups of options that jobs repeat: they change keys."""
_HINT = f"name the {REPORT} of each job or shard"


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    ci = command(commands, "ci", _ci, "divide the cells that must run among the jobs of a CI; merge their reports")
    help_text = "write a plan and print its jobs as JSON; build the tools that several jobs need; merge reports"
    ci.add_argument("what", choices=("plan", "tools", "merge"), help=help_text)
    help_text = (
        f"for plan: //pkg:name and the like; for merge: the {REPORT} of each job or shard, with its {JUNIT} next to it, "
        "or with --plan a folder with those of all jobs"
    )
    ci.add_argument("patterns", nargs="*", metavar="PATTERN-or-REPORT", help=help_text)
    ci.add_argument("--max_jobs", type=positive, default=4, metavar="N", help="for plan: the limit of jobs")
    ci.add_argument("--out", metavar="DIR", help=f"for merge: where {REPORT} and {JUNIT} are written")
    add_selection(ci)
    add_overrides(ci)
    add_cells(ci)
    add_cache(ci)
    add_remote(ci)


def _ci(arguments: argparse.Namespace) -> int:
    if arguments.plan_job is not None:
        hint = f"bk test --plan={arguments.plan or PLAN} --plan_job={arguments.plan_job} runs the cells of a job"
        raise UsageError("usage", f"bk ci {arguments.what} takes no --plan_job", hint=hint)
    return {"plan": _plan, "tools": _tools, "merge": _merge}[arguments.what](arguments)


def _plan(arguments: argparse.Namespace) -> int:
    patterns = patterns_of(arguments)
    if not patterns:
        raise UsageError("usage", "bk ci plan needs targets", hint="for example  bk ci plan //...")
    file = ci_plan.file_of(arguments.plan)
    arguments.plan = None
    analysis = analyze_patterns(
        ".", patterns, only_tests=True, runs=runs_of(arguments), overrides=overrides_of(arguments)
    )
    if not analysis.targets.wanted:
        raise nothing(f"no test_matrix among {' '.join(patterns)}", "see `bk query //...`")
    analysis = selected(analysis, selection_of(arguments))
    options = Options(1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))
    execution = Execution(analysis, options, _say, show=False)
    known = _known(execution)
    execution.digests.save()
    plan, shown = _divided(execution, known, arguments.max_jobs)
    _write(file, plan.to())
    words = [f"--plan={file}", *_repeated(arguments), *patterns]
    jobs = [{**job, "arguments": shlex.join([*words[:1], f"--plan_job={job['number']}", *words[1:]])} for job in shown]
    print(json.dumps({"include": jobs}))
    cells = [result for result in known.values() if result.action.cell]
    cached = sum(result.cached for result in cells)
    planned = sum(map(len, plan.jobs))
    _say(f"{len(cells)} cells: {cached} cached, {planned} to run in {len(jobs)} jobs; the plan is {file}")
    return errors.SUCCESS


def _known(execution: Execution) -> dict[str, Result]:
    """Return the results of all wanted actions that need no run; the others are not run. Many cells at once are looked up in
    the remote cache.
    """
    wanted, executor = execution.analysis.wanted(), execution.executor
    known: dict[str, Result | None] = {}
    for name, action in wanted.items():
        skipped = executor.look_up(action) if action.cell is not None and action.cell.skip else None
        known[name] = skipped or execution.look_up(action, ask=action.cell is None).result
    if execution.remote is not None:
        missed = [action for name, action in wanted.items() if action.cell is not None and known[name] is None]
        alone = [action for action in missed if all(name in executor.results for name in action.dependencies)]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            found = dict(zip([action.id for action in alone], pool.map(executor.ask, alone), strict=True))
        known |= found
        executor.results |= {name: result for name, result in found.items() if result is not None}
        known |= {action.id: execution.look_up(action).result for action in missed if action.id not in found}
    return {name: result or Result(wanted[name], Status.NOT_RUN) for name, result in known.items()}


def _divided(execution: Execution, known: Mapping[str, Result], most: int) -> tuple[Plan, list[dict[str, Any]]]:
    """Return the plan of these results, and its jobs for the CI."""
    analysis = execution.analysis
    recorded = history(analysis.out).seconds
    results = [result for result in known.values() if result.action.cell]
    estimate = estimates((one.action.cell, one.seconds) for one in results if one.cached and one.action.cell)
    runs: dict[str, list[Action]] = {}
    points: dict[str, Cell] = {}
    for one in results:
        cell = one.action.cell
        if cell is not None and not one.cached and not cell.skip:  # all runs of a cell are in one job
            points[_point(cell)] = cell
            runs.setdefault(_point(cell), []).append(one.action)

    elsewhere = _published(execution, [cell for name, cell in points.items() if recorded(runs[name][0].id) is None])

    def seconds(point: str) -> float | None:
        name = runs[point][0].id
        took = recorded(name)
        took = elsewhere.get(name) if took is None else took
        return estimate(points[point]) if took is None else took

    shards = list(filter(None, divide_cells(points, seconds, min(most, len(points))))) if points else []
    dirty = {name: one.action for name, one in known.items() if one.action.cell is None and one.status != Status.PASSED}
    tools = shared_tools([[action for point in shard for action in runs[point]] for shard in shards], dirty)
    shown = [
        {
            "job": f"{number} of {len(shards)}",
            "number": number,
            "cells": len(shard),
            "seconds": round(sum(seconds(point) or 0 for point in shard), 1),
        }
        for number, shard in enumerate(shards, 1)
    ]
    sources = sources_of(analysis.workspace, analysis.actions.actions.values())
    reports = tuple(_reports(analysis, results, points))
    return Plan(SCHEMA, sources, most, tuple(map(tuple, shards)), tools, reports).named(), shown


def _published(execution: Execution, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the seconds of cells by their ids, as the last merge has sent them."""
    if execution.remote is None:
        return {}
    cache = ActionCache(f"{execution.options.disk_cache}/ac", execution.cas, execution.remote)
    return ci_seconds.published(cache, _name_of(execution.analysis.workspace), (str(cell.matrix) for cell in cells))


def _name_of(workspace: Workspace) -> str:
    top = workspace.package("")
    return "" if top is None else top.workspace


def _reports(analysis: Analysis, results: Sequence[Result], points: Mapping[str, Cell]) -> Iterator[dict[str, Any]]:
    """Yield the reports of all matrices: cells with a result, and one entry for all runs of a cell of a job."""
    wanted: dict[str, Result] = {}
    for one in results:
        cell = one.action.cell
        assert cell is not None
        if _point(cell) in points:
            point = replace(cell, run=0, runs=0)
            wanted[_point(cell)] = Result(replace(one.action, cell=point), Status.NOT_RUN)
        else:
            wanted[cell.label] = one
    build = BuildResult(tuple(wanted.values()), 0.0, selected=analysis.selected, kernel_key=analysis.runs.kernel_key)
    for label, cells in by_matrix(build.results).items():
        yield document_of(label, cells, build, [entry(result) for result in cells])


def _point(cell: Cell) -> str:
    return f"{cell.matrix}[{cell.point}]"


def _repeated(arguments: argparse.Namespace) -> list[str]:
    """Return the words of the command line that change keys, for the jobs."""
    parser = getattr(arguments, PARSER)
    options = {
        name: action
        for group in parser._action_groups  # argparse has no public list of them
        if group.title in _REPEATED
        for action in group._group_actions
        for name in action.option_strings
    }
    words, found = iter(arguments.argv), []
    for word in words:
        name, equals, _ = word.partition("=")
        if name in options:
            found.append(word)
            if not equals and options[name].nargs != 0:
                found.append(next(words))
    return found


def _tools(arguments: argparse.Namespace) -> int:
    if arguments.patterns:
        raise UsageError("usage", "bk ci tools takes no targets: the plan names them", hint=f"--plan={PLAN}")
    plan = ci_plan.read(ci_plan.file_of(arguments.plan))
    if not plan.tools:
        print("no tool is to be built for several jobs")
        return errors.SUCCESS
    analysis = analyze_patterns(".", plan.tools, overrides=overrides_of(arguments))
    folder = os.path.abspath(arguments.disk_cache)
    options = Options(os.cpu_count() or 1, folder, keep_going=True, remote=remote_of(arguments))
    build = execute(analysis, options)
    print(summarize(build, analysis.out))
    return build.exit_code


def _merge(arguments: argparse.Namespace) -> int:
    if not arguments.out:
        raise UsageError("usage", "bk ci merge: there is no --out", hint="see `bk ci --help`")
    if arguments.plan is not None:
        return _merge_plan(arguments)
    if not arguments.patterns:
        hint = f"{_HINT}, or the plan of a build that needed no job with --plan"
        raise UsageError("usage", "bk ci merge needs reports", hint=hint)
    paths = [Path(text) for text in patterns_of(arguments)]
    report = merged([_read(path) for path in paths])
    _write(Path(arguments.out, REPORT), report)
    _write_junit(arguments.out, _texts(paths))
    _remember(report)
    print(_summary(report))
    _publish(arguments, [report])
    code: int = report["exit_code"]
    return code


def _merge_plan(arguments: argparse.Namespace) -> int:
    plan = ci_plan.read(arguments.plan)
    paths = [path for text in patterns_of(arguments) for path in _of_plan(Path(text), plan)]
    planned = plan.documents
    whole = merged_plan(planned, plan.jobs, plan.id, {str(path): _read(path) for path in paths})
    for label, report in whole.reports.items():
        matrix = parse_label(label)
        _write(Path(arguments.out, matrix.package, matrix.name, REPORT), report)
        _remember(report)
        print(_summary(report))
    in_jobs = {label for job in plan.jobs for label in job}
    known = [cell for report in planned.values() for cell in report["cells"] if cell["label"] not in in_jobs]
    _write_junit(arguments.out, [*_texts(paths), junit_of([*known, *whole.missing])])
    hint = "see why the job ended early, run it again, and merge again"
    for line in whole.lacks:
        _say(errors.error_text(errors.BkError("nothing-ran", line, hint=hint)))
    _publish(arguments, list(whole.reports.values()))
    return whole.exit_code


def _of_plan(path: Path, plan: Plan) -> list[Path]:
    """Return a report, or the reports of the jobs of a plan below a folder."""
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.rglob(REPORT) if is_of_plan(one.parent.name, plan.id))


def _texts(paths: Sequence[Path]) -> list[str]:
    return [path.with_name(JUNIT).read_text() for path in paths if path.with_name(JUNIT).is_file()]


def _write(path: str | Path, document: Mapping[str, object]) -> None:
    """Write a document. Raises UsageError when the folder cannot be written."""
    try:
        atomic.write(str(path), json.dumps(document, indent=1).encode())
    except OSError as error:
        raise UsageError("usage", f"{path} cannot be written: {error.strerror}", hint="name another place") from error


def _write_junit(folder: str, texts: Sequence[str]) -> None:
    atomic.write(str(Path(folder, JUNIT)), merged_junit(texts).encode())


def _summary(report: Mapping[str, Any]) -> str:
    words = ", ".join(f"{count} {word}" for word, count in report["summary"].items() if word not in ("total", "cached"))
    return f"{report['label']}: {report['summary']['total']} cells: {words}"


def _remember(report: dict[str, Any]) -> None:
    """Record how long these cells took, so that the next shards are balanced."""
    root = root_of(".")
    if root is None:
        return
    known = history(Path(root, OUTPUT))
    for cell in report["cells"]:
        if cell["status"] == Status.PASSED and not cell["cached"]:
            known.note(f"{report['label']} {cell['name']}", cell["seconds"], failed=False)
    known.save()


def _publish(arguments: argparse.Namespace, reports: Sequence[Mapping[str, Any]]) -> None:
    """Send how long cells took, so that the next plan is balanced in a clone without a history. Raises RemoteFailed."""
    options = remote_of(arguments)
    if options is None or not options.upload or root_of(".") is None:
        return
    workspace = open_workspace(".")
    folder = os.path.abspath(arguments.disk_cache)
    cas = Cas(f"{folder}/cas", FileDigests(str(Path(workspace.root, OUTPUT, STATE, "digests"))))
    remote = Remote(options, cas, _say)
    with in_use(folder):
        for report in reports:
            ci_seconds.publish(ActionCache(f"{folder}/ac", cas, remote), _name_of(workspace), report)
        fault = remote.flush()
    if fault:
        raise RemoteFailed("remote-cache", fault)


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("no-report", f"{path} cannot be read: {error}", hint=_HINT) from error
    try:
        check_report(document)
    except ValueError as error:
        raise UsageError("no-report", f"{path} is not the report of a matrix: {error}", hint=_HINT) from error
    return document


def _say(line: str) -> None:
    print(line, file=sys.stderr)
