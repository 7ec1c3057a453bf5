"""Daemon coverage: daemons built with it write their coverage when they end, so bk ends them in order."""

from __future__ import annotations

import os

from bkrules.model.status import Status
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.daemon import DaemonError
from bkrules.plugin.guard import time_limit
from bkrules.plugin.spec import hookimpl

COVERAGE = "GOCOVERDIR"
PATIENCE = 20.0


@hookimpl(trylast=True)
def bk_cell_stopping(cell: RunningCell, result: ProgramResult) -> None:
    """End the daemons. Raises DaemonError when a test passed and its coverage is incomplete."""
    if COVERAGE not in cell.daemons.environment or result.status == Status.TIMED_OUT:
        return
    with time_limit((len(cell.daemons.running) + 1) * PATIENCE):
        late = cell.daemons.end(PATIENCE)
    os.chmod(cell.daemons.environment[COVERAGE], 0o755)  # it stays in the user's workspace
    if late and result.status == Status.PASSED:
        raise DaemonError(f"without coverage, since SIGTERM did not end {' and '.join(late)}")
