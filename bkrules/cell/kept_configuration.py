"""Keeps the configuration that the daemons of a failed cell ran with beside their logs, after all that changed it."""

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
    """Copy the files when the test failed, unless the cell ran out of something; remove what a test before it left there."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    if result.status in (Status.FAILED, Status.TIMED_OUT) and result.failure != FailureClass.RESOURCES:
        with suppress(OSError):  # the folder is full, say; the test's failure is what is reported
            shutil.copytree(cell.daemons.configuration, folder / FOLDER)
