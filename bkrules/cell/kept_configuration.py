"""Keeps the configuration of a failed cell's daemons next to their logs, after all changes to it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.spec import hookimpl

FOLDER = "configuration"


@hookimpl
def bk_collect_logs(cell: RunningCell, folder: Path, result: ProgramResult) -> None:
    """Copy the files when the test failed, unless the cell ran out of a resource; remove those of an earlier test."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    if result.status in (Status.FAILED, Status.TIMED_OUT) and result.failure != FailureClass.RESOURCES:
        with suppress(OSError):  # for example the folder is full; the report has the test's failure
            shutil.copytree(cell.daemons.configuration, folder / FOLDER)
