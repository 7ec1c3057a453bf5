"""`bk logs`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.arguments import add_cells, command, nothing, runs_of
from bkrules.commands.cells import one_cell
from bkrules.commands.harness import add_wishes, wishes_of

if TYPE_CHECKING:
    from bkrules.commands.arguments import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    logs = command(commands, "logs", _logs, "print the kept logs of a cell, each line whole")
    logs.add_argument("cell", metavar="CELL", help="test_x/worker=oci, or //pkg:matrix[CELL]")
    logs.add_argument("names", nargs="*", metavar="NAME", help="test, buildkitd, buildkitd.stacks, ...: these alone")
    logs.add_argument("--timeline", action="store_true", help="print them as one, in the order of time")
    add_cells(logs)
    add_wishes(logs)


def _logs(arguments: argparse.Namespace) -> int:
    from bkrules.execution import timeline
    from bkrules.execution.result import TIMELINE

    analysis, action = one_cell(arguments.cell, runs_of(arguments), wishes_of(arguments))
    assert action.cell is not None
    folder = analysis.out / action.label.package / action.label.name / action.cell.folder
    found = {path.stem: path for path in timeline.kept(folder, "*.log") if path.name != TIMELINE}
    found |= {path.name: path for path in timeline.kept(folder, "*.stacks")}
    if not found:
        raise nothing(f"no logs of {action.title} are kept", f"run it:  bk test -t- '{action.label}'")
    if arguments.timeline:
        for line in timeline.lines(folder):
            print(line)
        sys.stdout.flush()
        return errors.SUCCESS
    for name in arguments.names:
        if name not in found:
            raise nothing(f"{action.title} has no log {name!r}", f"it has: {', '.join(found)}")
    _print([found[name] for name in arguments.names or found])
    return errors.SUCCESS


def _print(paths: list[Path]) -> None:
    """Print files as they are, byte by byte, and a line before each when there are several."""
    out = sys.stdout.buffer
    for path in paths:
        if len(paths) > 1:
            out.write(f"--- {path}\n".encode())
        with path.open("rb") as file:
            shutil.copyfileobj(file, out)
    out.flush()
