"""Names of cells on a command line: `test_x/worker=oci`, or `//pkg:matrix[test_x/worker=oci]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bkrules.analysis.runs import Runs
from bkrules.build.analysis import Analysis, analyze_patterns
from bkrules.build.selection import fitting
from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.commands.parser import nothing
from bkrules.errors import UsageError
from bkrules.model.action import Action, Cell

_PATTERN_OF_CELL = re.compile(r"((?://|:)[^\[]*)\[(.*)\]")  # //pkg:matrix[test_x[a]/worker=oci]
_SHOWN = 10


def divided(text: str) -> tuple[str, str] | None:
    """Return the pattern of the matrix and the name of the cell in a word; None when the word need not name a cell."""
    match = _PATTERN_OF_CELL.fullmatch(text)
    if match:
        return match[1], match[2]
    return ("//...", text) if "[" in text or "/worker=" in text else None


def is_bare(text: str) -> bool:
    """Return whether a word may be a target of the current package as well as the beginning or the pattern of a cell's name."""
    return divided(text) is None and not _is_pattern(text)


def _is_pattern(text: str) -> bool:
    return text.startswith(("//", ":", "-", ".")) or text.endswith("...") or (":" in text and "::" not in text)


def one_cell(text: str, runs: Runs, overrides: WorkerOverrides) -> tuple[Analysis, Action]:
    """Return the only cell that a word names: by its name, the beginning of that, or a filter as of `--test_filter`; or the
    only cell of a matrix.

    Raises BkError for an unknown cell, and UsageError for an ambiguous word.
    """
    pattern, name = divided(text) or ((text, "") if _is_pattern(text) else ("//...", text))
    analysis = analyze_patterns(".", [pattern], only_tests=True, runs=runs, overrides=overrides)
    wanted = analysis.wanted()
    if not name and not any(action.cell for action in wanted.values()):
        raise nothing(f"{text} has no cells", "name a cell, such as test_x/worker=oci, or a matrix with one cell")
    named = named_cells(wanted, name)
    if len(named) > 1:
        raise ambiguous(text, [cell_of(wanted[each]).label for each in named])
    return analysis, wanted[named[0]]


def named_cells(actions: Mapping[str, Action], name: str) -> list[str]:
    """Return the ids of the cells that a name, its beginning or a filter names. Raises BkError when there is none."""
    cells = {each: action.cell for each, action in actions.items() if action.cell is not None}
    return fitting(cells, name)


def cell_of(action: Action) -> Cell:
    """Return the cell of an action that is one."""
    assert action.cell is not None
    return action.cell


def ambiguous(text: str, labels: Sequence[str]) -> UsageError:
    """Return the error of a word that names several cells, with their labels."""
    more = [f"and {len(labels) - _SHOWN} more"] if len(labels) > _SHOWN else []
    hint = "\n".join(["say which one:", *(f"  {label}" for label in labels[:_SHOWN]), *more])
    return UsageError("several-cells", f"{len(labels)} cells match {text}", hint=hint)
