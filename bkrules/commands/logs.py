"""`bk logs`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.harness import add_overrides
from bkrules.commands.parser import command, nothing
from bkrules.execution.layout import TIMELINE
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import root_of
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.system.files import open_regular

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    logs = command(commands, "logs", _logs, "print the kept logs of a cell, each line whole")
    logs.add_argument(
        "cell",
        metavar="CELL",
        help="test_x/worker=oci, its beginning, a pattern as of --test_filter, or //pkg:matrix[CELL]",
    )
    logs.add_argument("names", nargs="*", metavar="NAME", help="test, buildkitd, buildkitd.stacks, ...: these alone")
    logs.add_argument("--timeline", action="store_true", help="print them merged, in the order of time")
    add_cells(logs)
    add_overrides(logs)


def _logs(arguments: argparse.Namespace) -> int:
    from bkrules.execution import timeline

    folder, label = _place(arguments)
    logs = _files(folder)
    if not logs:
        raise nothing(f"no logs of {label} are kept", f"run it:  bk test -t- '{label}'")
    if arguments.timeline:
        for line in timeline.lines(folder):
            print(line)
        sys.stdout.flush()
        return errors.SUCCESS
    for name in arguments.names:
        if name not in logs:
            raise nothing(f"{label} has no log {name!r}", f"it has: {', '.join(logs)}")
    _print([logs[name] for name in arguments.names or logs])
    return errors.SUCCESS


def _place(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Return the folder of a cell's logs, and the cell's label. Kept logs need no loadable workspace. Raises BkError."""
    kept = _kept(arguments.cell)
    if len(kept) > 1:
        from bkrules.commands.cells import ambiguous

        raise ambiguous(arguments.cell, list(kept.values()))
    if kept:
        return next(iter(kept.items()))
    from bkrules.commands.cells import one_cell
    from bkrules.commands.harness import overrides_of

    analysis, action = one_cell(arguments.cell, runs_of(arguments), overrides_of(arguments))
    assert action.cell is not None
    return analysis.out / action.label.package / action.label.name / action.cell.folder, action.cell.label


def _kept(text: str) -> dict[Path, str]:
    """Return the folders in `bk-out` with logs of a cell of that name, each with the cell's label."""
    root = root_of(".")
    out = f"{root}/{OUTPUT}"
    if root is None or not os.path.isdir(out):
        return {}
    named = re.fullmatch(r"(?://([^:\[]*))?:([^\[]*)\[(.*)\]", text, re.DOTALL)
    name = named[3] if named else text
    folder = _cell(name).folder
    if named:
        package = os.path.relpath(os.path.realpath("."), root) if named[1] is None else named[1]
        places = [os.path.normpath(f"{out}/{package}/{named[2]}/{folder}")]
    else:
        places = [place for place, _, _ in os.walk(out) if place.endswith(f"/{folder}")]
    folders = {}
    for place in places:
        if place.startswith(f"{out}/") and _files(Path(place)):
            package, _, matrix = place[len(out) + 1 : -len(folder) - 1].rpartition("/")
            folders[Path(place)] = f"//{package}:{matrix}[{name}]"
    return folders


def _cell(name: str) -> Cell:
    """Return the cell of that name in any matrix; the last part of the name may be a run."""
    test, _, rest = name.partition("/worker=")
    worker, *axes = rest.split("/")
    run = re.fullmatch(r"run_(\d+)_of_(\d+)", axes[-1]) if axes else None
    pairs = tuple(
        (axis, choice) for axis, _, choice in (axis_value.partition("=") for axis_value in (axes[:-1] if run else axes))
    )
    return Cell(Label("", "any"), test, worker, pairs, *(map(int, run.groups()) if run else ()))


def _files(folder: Path) -> dict[str, Path]:
    """Return the logs in a folder by their names."""
    from bkrules.execution import timeline

    logs = {path.stem: path for path in timeline.kept(folder, "*.log") if path.name != TIMELINE}
    return logs | {path.name: path for path in timeline.kept(folder, "*.stacks")}


def _print(paths: list[Path]) -> None:
    """Print files byte by byte, each after a header line when there are several."""
    out = sys.stdout.buffer
    for path in paths:
        if len(paths) > 1:
            out.write(os.fsencode(f"--- {path}\n"))
        with open_regular(path) as file:
            shutil.copyfileobj(file, out)
    out.flush()
