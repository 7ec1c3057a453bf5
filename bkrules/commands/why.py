"""`bk why`."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.build.analysis import Analysis, analyze_patterns, open_workspace, package_of
from bkrules.build.execute import Execution, Known
from bkrules.build.request import Options
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.cells import divided, is_bare, named_cells
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.parser import add_cache, command, nothing, patterns_of
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.errors import UsageError
from bkrules.model.action import Action
from bkrules.model.label import parse_pattern
from bkrules.model.status import Status
from bkrules.report.artifacts import action_folder

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.report.explain import Read


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    why = command(commands, "why", _why, "print in one line why an action would run, or ran")
    why.add_argument(
        "patterns",
        nargs="+",
        metavar="CELL-or-PATTERN",
        help="test_x/worker=oci, its beginning, a pattern as of --test_filter, //pkg:matrix[CELL], //pkg:name",
    )
    why.add_argument(
        "--against",
        metavar="RUN",
        help="compare with the keys of another run: a bk-out folder, its URL, or a zip or tar of it",
    )
    why.add_argument("--json", action="store_true", help="print JSON")
    add_cells(why)
    add_overrides(why)
    add_cache(why)
    add_remote(why)


def _why(arguments: argparse.Namespace) -> int:
    from bkrules.build.whole_binaries import whole_binary
    from bkrules.report.explain import compare, explain, opened

    parts = {text: _divided(text) for text in patterns_of(arguments)}
    named = [part for part in parts.values() if part is not None]
    patterns = [text for text, part in parts.items() if part is None] + [pattern for pattern, _ in named]
    analysis = analyze_patterns(".", patterns, runs=runs_of(arguments), overrides=overrides_of(arguments))
    cells = {each for _, name in named for each in named_cells(analysis.wanted(), name)}
    options = Options(1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    against = (arguments.against or str(analysis.out)).rstrip("/")
    documents = []
    with opened(against, must_exist=bool(arguments.against)) as run:
        for action in analysis.wanted().values():
            known = execution.look_up(action)
            if not _is_asked_for(action, analysis, cells if len(named) == len(parts) else set()):
                continue
            waits = next((name for name in action.dependencies if name not in execution.executor.results), "")
            folder = os.path.relpath(action_folder(action, analysis.out), analysis.out)
            read = functools.partial(_in, run, folder)
            if action.cell is not None and action.cell.skip:
                why = f"skipped: {action.cell.skip}"
            elif "error" in known.leaves:
                why = known.leaves["error"]
            elif arguments.against:
                why = compare(known.key, known.leaves, read, waits_for=waits)
            else:
                why = explain(known.key, known.leaves, read, cache=known.cache, waits_for=waits, skip=_skip(known))
            whole = whole_binary(action, analysis.actions.actions, execution.executor.results)
            if whole is not None and f"input/{whole[0]} " in why:
                why += f"; the key has the whole binary: {whole[1]}"
            documents.append(
                {
                    "action": action.id,
                    "name": action.title,
                    "cached": known.cache is not None,
                    "cache": known.cache,
                    "status": known.result.status if known.cache and known.result else None,
                    "key": known.key,
                    "whole_binary": whole[1] if whole else None,
                    "why": why,
                }
            )
    execution.digests.save()
    if not documents:
        raise nothing(f"no cell or action is called {' or '.join(arguments.patterns)}", "see `bk aquery //...`")
    for document in documents:
        if not arguments.json:
            print(f"{document['name']}: {document['why']}")
    if arguments.json:
        print(json.dumps(documents, indent=1))
    return errors.SUCCESS


def _skip(known: Known) -> str | None:
    """Return why the cached cell skipped itself, in one line; None when it passed."""
    result = known.result
    if result is None or not result.cached or result.status != Status.SKIPPED:
        return None
    return result.reason.partition("\n")[0]


def _in(run: Read, folder: str, name: str) -> Mapping[str, Any] | None:
    return run(f"{folder}/{name}")


def _divided(text: str) -> tuple[str, str] | None:
    """Return the pattern and the cell in a word; None when it names targets, which take precedence."""
    if not is_bare(text):
        return divided(text)
    workspace = open_workspace(".")
    try:
        workspace.match([parse_pattern(text, package_of(workspace, "."))])
    except UsageError:
        return "//...", text
    return None


def _is_asked_for(action: Action, analysis: Analysis, cells: set[str]) -> bool:
    if cells:
        return action.id in cells
    return action.label in analysis.targets.asked
