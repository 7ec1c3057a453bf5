"""The summary of a build: the grid of each matrix, failures, and counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bkrules.execution.phases import ANALYSIS, LOADING
from bkrules.execution.result import Result
from bkrules.model.label import Label
from bkrules.model.status import ABSENT, BAD, GOOD, Status
from bkrules.report.build_result import BuildResult, by_matrix, by_status
from bkrules.report.ci import current_ci
from bkrules.report.critical_path import critical_path
from bkrules.report.failures import LINE_WIDTH, Failure, cause, excerpt, failures
from bkrules.report.output import LOG, folder_of
from bkrules.system.kernel import NONE, RELEASE

TAIL_LINES = 20
MOST_EXCERPTS = 10
STEPS = 4
_NAMED = 3


def summarize(build: BuildResult, out: Path, *, tails: bool = True, width: int = LINE_WIDTH) -> str:
    """Return the whole summary: first excerpts of failures, with `tails`, and last what a reader looks for first.

    A line of an excerpt has up to `width` characters, and one of a grid too when that is the width of a terminal.
    """
    found = failures(build.results)
    parts: list[str] = []
    if tails:
        excerpts = ((failure.title, excerpt(failure, out, width)) for failure in found[:MOST_EXCERPTS])
        parts += [current_ci().grouped(title, text) for title, text in excerpts if text]
        more = len(found) - MOST_EXCERPTS
        parts += [f"{more} more failures are not shown here"] if more > 0 else []
    for label, cells in by_matrix(build.results).items():
        parts.append(f"{label}\n{grid(cells, width if width < LINE_WIDTH else 0)}")
    parts += [_error(result, tails) for result in build.results if result.action.cell is None and result.status in BAD]
    parts += [cause(failure, build.results, _log(failure, out)) for failure in found]
    parts += [f"error: a worker that cells shared: {leak}" for leak in build.leaks]
    parts += [f"error: {build.fault}"] if build.fault else []
    parts += _remarks(build.results)
    parts += _reasons(build.results)
    parts += _vacuous(build)
    parts += _selection(build)
    parts += _kernel(build)
    parts += _jails(build)
    parts.append("\n".join([*_phases(build.phases), *_critical_path(build.results), _counts(build)]))
    return "\n\n".join(parts)


def _log(failure: Failure, out: Path) -> str:
    """Return the path of the log of the first cell, as short as this folder allows; empty without one."""
    cell = failure.results[0].action.cell
    assert cell is not None
    path = out / folder_of(cell) / LOG
    if not path.is_file():
        return ""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def grid(cells: Sequence[Result], width: int = 0) -> str:
    """Return a table of one matrix: its tests with their axes down, its workers across; in several parts when it is wider than
    `width`, unless that is 0.
    """
    workers: dict[str, None] = {}
    rows: dict[str, dict[str, list[Result]]] = {}
    for result in cells:
        cell = result.action.cell
        assert cell is not None
        workers[cell.worker] = None
        row = "/".join([cell.test, *(f"{axis}={choice}" for axis, choice in cell.axes)])
        rows.setdefault(row, {}).setdefault(cell.worker, []).append(result)
    table = [["", *workers]]
    table += [
        [row, *(_mark(cells[worker]) if worker in cells else "" for worker in workers)] for row, cells in rows.items()
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(line[column].ljust(widths[column]) for column in [0, *columns]).rstrip()
        for columns in _columns(widths, width)
        for line in table
    )


def _columns(widths: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns after the first in groups, each of which fits into a width next to the first."""
    groups: list[list[int]] = [[]]
    taken = widths[0]
    for column, own in enumerate(widths[1:], 1):
        if width and groups[-1] and taken + 2 + own > width:
            groups.append([])
            taken = widths[0]
        groups[-1].append(column)
        taken += 2 + own
    return groups


def _selection(build: BuildResult) -> list[str]:
    """Return how many of the declared cells ran, when not all did."""
    if build.selected is None or not build.selected.by:
        return []
    points = {(cell.matrix, cell.point) for cell in (result.action.cell for result in build.results) if cell}
    declared = _count(sum(build.selected.declared.values()), "declared cell")
    same = (
        f"; shards that belong to this one have partition {build.selected.partition} too"
        if build.selected.shard
        else ""
    )
    return [f"{len(points)} of {declared} selected by {' '.join(build.selected.by)}{same}"]


def _vacuous(build: BuildResult) -> list[str]:
    """Return warnings about matrices of which no cell ran: the filters match none of them, or all are skipped."""
    if build.exit_code:
        return []
    warnings = []
    selected = build.selected
    if (
        selected is not None
        and selected.shard is None
        and any(word.startswith("--test_filter=") for word in selected.by)
    ):
        matched = {result.action.cell.matrix for result in build.cells if result.action.cell}
        if empty := [label for label in selected.declared if label not in matched]:
            warnings.append(f"warning: --test_filter matches no cell of {_named(empty)}")
    is_wanted = selected is not None and selected.skip
    matrices = by_matrix(build.results)
    skipped = [label for label, cells in matrices.items() if {cell.status for cell in cells} == {Status.SKIPPED}]
    if skipped and not is_wanted:
        warnings.append(f"warning: no test ran of {_named(skipped)}: all cells are skipped")
    return warnings


def _named(labels: Sequence[Label]) -> str:
    """Return the first of these labels, and the number of the others."""
    more = [f"{len(labels) - _NAMED} more"] if len(labels) > _NAMED else []
    return ", ".join([*map(str, labels[:_NAMED]), *more])


def _kernel(build: BuildResult) -> list[str]:
    """Return how much of the kernel is in the keys of these cells, when that is not the default."""
    words = {RELEASE: "the whole release of the kernel", NONE: "nothing of the kernel"}
    if not build.cells or build.kernel_key not in words:
        return []
    return [f"the keys of these cells have {words[build.kernel_key]} (--kernel_key={build.kernel_key})"]


def _jails(build: BuildResult) -> list[str]:
    """Return how many of the cells were jails, if any."""
    cells = [result for result in build.cells if result.ran is not None or result.cached]
    jails = sum(result.action.cell is not None and result.action.cell.jail for result in cells)
    return [f"{_count(jails, 'cell')} in a jail, each in its own user namespace"] if jails else []


def _mark(runs: Sequence[Result]) -> str:
    """Return the mark of a cell in the grid, with Bazel's words for several runs."""
    if len(runs) > 1:
        return _mark_of_runs(runs)
    [result] = runs
    if result.status == Status.PASSED:
        return "passed (cached)" if result.cached else f"passed {result.seconds:.2f}s"
    if result.status in ABSENT:
        return f"{result.status} (cached)" if result.cached else result.status
    return result.status.upper()


def _mark_of_runs(runs: Sequence[Result]) -> str:
    statuses = by_status(runs)
    if bad := statuses.get(Status.FAILED, 0) + statuses.get(Status.TIMED_OUT, 0):
        return f"{'FAILED' if 'failed' in statuses else 'TIMED OUT'} in {bad} out of {len(runs)}"
    if len(statuses) > 1 or Status.FLAKY in statuses:
        return ", ".join(f"{count} {status}" for status, count in statuses.items())
    cached = " (cached)" if all(result.cached for result in runs) else ""
    return f"{runs[0].status} in {len(runs)} runs{cached}"


def _error(result: Result, tails: bool) -> str:
    """Return the failure of an action that is no cell."""
    lines = [f"error: {result.reason}"]
    lines += [f"  {result.action.where}"] if result.action.where else []
    lines += [f"  {line}" for line in result.hint.splitlines()]
    return "\n".join([*lines, *(_tail(result.log) if tails else ())])


def _tail(text: str, lines: int = TAIL_LINES) -> list[str]:
    shown = text.splitlines()[-lines:]
    return [f"    | {line[:LINE_WIDTH]}{'...' if len(line) > LINE_WIDTH else ''}" for line in shown]


def _remarks(results: Iterable[Result]) -> list[str]:
    """Return remarks on cells that did not fail: flaky ones, uncached ones, and those that tried to leave."""
    remarks: dict[str, int] = {}
    blocks = []
    results = list(results)
    for result in results:
        if result.ran is None or result.status not in GOOD:
            continue
        if result.status == Status.FLAKY:
            blocks.append(f"FLAKY: {result.action.title}: {result.reason}")
        for name in result.ran.unlimited:
            remark = f"passed without a limit of {name}, which this machine cannot apply: not cached"
            remarks[remark] = remarks.get(remark, 0) + 1
        if result.ran.tainted:
            blocks.append(f"TAINTED: {result.action.title}: it changed {', '.join(result.ran.tainted)}; not cached")
        for who, what in result.ran.egress:
            remark = f"passed although {who} tried to reach {what}, and could not"
            remarks[remark] = remarks.get(remark, 0) + 1
    unmet = [result.action.title for result in results if result.ran and result.ran.unmet and result.status in GOOD]
    if unmet:
        named = ", ".join([*unmet[:_NAMED], *([f"{len(unmet) - _NAMED} more"] if len(unmet) > _NAMED else [])])
        blocks.append(
            f"UNMET: {_count(len(unmet), 'cell')} passed, but no request met the faults of the mirror: {named}"
        )
    actions = Counter(name for result in results for name in result.unlimited)
    return [
        *blocks,
        *(f"{_count(count, 'cell')} {remark}" for remark, count in remarks.items()),
        *(f"{_count(count, 'action')} ran without a limit of {name}" for name, count in sorted(actions.items())),
    ]


def _reasons(results: Iterable[Result]) -> list[str]:
    """Return why cells were skipped or not run, each reason once."""
    counts: dict[tuple[str, str, str], int] = {}
    for result in results:
        if result.action.cell is not None and result.status in ABSENT:
            why = (result.status, result.reason, result.hint)
            counts[why] = counts.get(why, 0) + 1
    blocks = []
    for (status, reason, hint), count in counts.items():
        remedies = "".join(f"\n  {line}" for line in hint.splitlines())
        blocks.append(f"{_count(count, 'cell')} {status}: {reason}{remedies}")
    return blocks


def _phases(phases: Sequence[tuple[str, float]]) -> list[str]:
    """Return the seconds of each phase; empty when nothing ran."""
    if {name for name, _ in phases} <= {LOADING, ANALYSIS}:
        return []
    return [f"Phases: {', '.join(f'{name} {seconds:.2f}s' for name, seconds in phases)}"]


def _critical_path(results: Iterable[Result]) -> list[str]:
    """Return the critical path, in Bazel's words; empty when nothing ran."""
    chain = critical_path(results)
    if not chain:
        return []
    shown = [f"{result.action.mnemonic} {result.action.title} {result.seconds:.2f}s" for result in chain]
    if len(shown) > STEPS:
        shown[1 : 1 - STEPS] = [f"{len(shown) - STEPS + 1} more"]
    return [f"Critical Path: {sum(result.seconds for result in chain):.2f}s: {' -> '.join(shown)}"]


def _counts(build: BuildResult) -> str:
    """Return two lines: the counts, and the sources of the results."""
    cells = build.cells
    actions = [result for result in build.results if result.action.cell is None]
    parts = []
    if cells:
        words = ", ".join(f"{count} {status}" for status, count in by_status(cells).items())
        cached = sum(result.cached for result in cells)
        names = {(cell.matrix, cell.point) for cell in (result.action.cell for result in cells) if cell}
        many = _count(len(names), "cell")
        many = many if len(names) == len(cells) else f"{len(cells)} runs of {many}"
        parts.append(f"{many}: {words} ({cached} cached, {len(cells) - cached} not)")
    ran = sum(_has_run(result) for result in actions)
    up_to_date = build.up_to_date[0]
    cached = sum(result.cached for result in actions) + up_to_date
    parts.append(f"{_count(len(actions) + up_to_date, 'action')}: {ran} ran, {cached} cached")
    return f"{'; '.join(parts)}\n{_truth(build)}"


def _has_run(result: Result) -> bool:
    return not result.cached and result.status not in ABSENT


def _truth(build: BuildResult) -> str:
    where = [result.cache for result in build.results]
    ran = sum(_has_run(result) for result in build.results)
    skipped = sum(result.status in ABSENT and not result.cached for result in build.results)
    saved = sum(result.seconds for result in build.results if result.cached) + build.up_to_date[1]
    return (
        f"hit local {where.count('disk') + build.up_to_date[0]}, hit remote {where.count('remote')}, ran {ran}, skipped {skipped}; "
        f"{saved:.1f} s saved, {build.seconds:.2f} s taken"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
