"""`bk ci plan` and `bk ci merge`: divide the cells that must run among the jobs of a CI, and merge their reports."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.build.analysis import analyze_patterns, history, selected
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.build.selection import divide_cells
from bkrules.cache import atomic
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.harness import add_overrides, add_selection, overrides_of, selection_of
from bkrules.commands.parser import add_cache, command, nothing, patterns_of, positive
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.errors import UsageError
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import root_of
from bkrules.model.action import Cell
from bkrules.model.status import Status
from bkrules.report.artifacts import JUNIT, REPORT
from bkrules.report.merge import merged, merged_junit

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    ci = command(commands, "ci", _ci, "divide the cells that must run among the jobs of a CI; merge reports of shards")
    ci.add_argument("what", choices=("plan", "merge"), help="print jobs as JSON; merge reports")
    help_text = f"for plan: //pkg:name and the like; for merge: the {REPORT} of each shard, with its {JUNIT} next to it"
    ci.add_argument("patterns", nargs="+", metavar="PATTERN-or-REPORT", help=help_text)
    ci.add_argument("--max_jobs", type=positive, default=4, metavar="N", help="for plan: the limit of jobs")
    ci.add_argument("--out", metavar="DIR", help=f"for merge: where {REPORT} and {JUNIT} are written")
    add_selection(ci)
    add_overrides(ci)
    add_cells(ci)
    add_cache(ci)
    add_remote(ci)


def _ci(arguments: argparse.Namespace) -> int:
    return _plan(arguments) if arguments.what == "plan" else _merge(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    patterns = patterns_of(arguments)
    analysis = analyze_patterns(
        ".", patterns, only_tests=True, runs=runs_of(arguments), overrides=overrides_of(arguments)
    )
    if not analysis.targets.wanted:
        raise nothing(f"no test_matrix among {' '.join(patterns)}", "see `bk query //...`")
    analysis = selected(analysis, selection_of(arguments))
    options = Options(1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    seconds = history(analysis.out).seconds
    dirty: dict[str, float | None] = {}
    named: dict[str, Cell] = {}
    cells = cached = 0
    for action in analysis.wanted().values():
        cache = execution.look_up(action).cache
        if action.cell is not None:
            cells += 1
            cached += cache is not None
            if cache is None and not action.cell.skip:  # all runs of a cell are in one job
                name = f"{action.cell.matrix}[{action.cell.point}]"
                named[name], dirty[name] = action.cell, seconds(action.id)
    execution.digests.save()
    shards = divide_cells(named, dirty.get, min(arguments.max_jobs, len(dirty))) if dirty else []
    shards = list(filter(None, shards))
    jobs = [
        {
            "job": f"{number} of {len(shards)}",
            "cells": len(shard),
            "seconds": round(sum(dirty[name] or 0 for name in shard), 1),
            "arguments": shlex.join([*patterns, *(f"--test_filter={name}" for name in shard)]),
        }
        for number, shard in enumerate(shards, 1)
    ]
    print(json.dumps({"include": jobs}))
    print(f"{cells} cells: {cached} cached, {len(dirty)} to run in {len(jobs)} jobs", file=sys.stderr)
    return errors.SUCCESS


def _merge(arguments: argparse.Namespace) -> int:
    if not arguments.out:
        raise UsageError("usage", "bk ci merge: there is no --out", hint="see `bk ci --help`")
    paths = [Path(text) for text in patterns_of(arguments)]
    report = merged([_read(path) for path in paths])
    texts = [path.with_name(JUNIT).read_text() for path in paths if path.with_name(JUNIT).is_file()]
    atomic.write(str(Path(arguments.out, REPORT)), json.dumps(report, indent=1).encode())
    atomic.write(str(Path(arguments.out, JUNIT)), merged_junit(texts).encode())
    _remember(report)
    words = ", ".join(f"{count} {word}" for word, count in report["summary"].items() if word not in ("total", "cached"))
    print(f"{report['label']}: {report['summary']['total']} cells: {words}")
    code: int = report["exit_code"]
    return code


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


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            "no-report", f"{path} cannot be read: {error}", hint=f"name the {REPORT} of each shard"
        ) from error
    if not isinstance(document, dict) or "selection" not in document:
        raise UsageError("no-report", f"{path} is not the report of a matrix", hint=f"name the {REPORT} of each shard")
    return document
