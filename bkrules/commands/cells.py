"""Names of cells on a command line: `test_x/worker=oci`, or `//pkg:matrix[test_x/worker=oci]`."""

from __future__ import annotations

import difflib
import re

from bkrules.analysis.runs import Runs
from bkrules.build.analysis import Analysis, analyze_patterns
from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.commands.parser import nothing
from bkrules.errors import UsageError
from bkrules.model.action import Action

_PATTERN_OF_CELL = re.compile(r"((?://|:)[^\[]*)\[(.*)\]")  # //pkg:matrix[test_x[a]/worker=oci]


def divided(text: str) -> tuple[str, str] | None:
    """Return the pattern of the matrix and the name of the cell in a word; None when the word names no cell."""
    if "[" not in text and "/worker=" not in text:
        return None
    match = _PATTERN_OF_CELL.fullmatch(text)
    return (match[1], match[2]) if match else ("//...", text)


def one_cell(text: str, runs: Runs, overrides: WorkerOverrides) -> tuple[Analysis, Action]:
    """Return the cell that a word names. Raises BkError for an unknown cell, and UsageError for an ambiguous name."""
    pattern, name = divided(text) or ("//...", text)
    analysis = analyze_patterns(".", [pattern], only_tests=True, runs=runs, overrides=overrides)
    cells = [action for action in analysis.wanted().values() if action.cell is not None]
    named = [action for action in cells if action.cell is not None and name in (action.cell.name, action.cell.point)]
    if not named:
        near = difflib.get_close_matches(name, [action.title for action in cells], n=3)
        raise nothing(
            f"no cell is called {text}", f"did you mean {' or '.join(near)}?" if near else "see `bk aquery //...`"
        )
    if len(named) > 1:
        labels = ", ".join(action.cell.label for action in named if action.cell is not None)
        raise UsageError("several-cells", f"{len(named)} cells are called {text}", hint=f"say which one: {labels}")
    return analysis, named[0]
