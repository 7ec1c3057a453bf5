"""The diary of a cell: records the starts and ends of its daemons in the cell's log."""

from __future__ import annotations

import signal as signals
import time

from bkrules.plugin.cell import RunningCell
from bkrules.plugin.cell_log import note
from bkrules.plugin.daemon import Daemon
from bkrules.plugin.spec import hookimpl


@hookimpl(tryfirst=True)
def bk_daemon_ready(cell: RunningCell, daemon: Daemon) -> None:
    """Record how long the start took."""
    note(cell.daemons.logs, f"{daemon.name} ready after {time.monotonic() - daemon.began:.3f} s")


@hookimpl(tryfirst=True)
def bk_daemon_stopping(cell: RunningCell, daemon: Daemon, signal: int) -> None:
    """Record the signal."""
    note(cell.daemons.logs, f"{daemon.name} is sent {signals.Signals(signal).name}")


@hookimpl(tryfirst=True)
def bk_daemon_stopped(cell: RunningCell, daemon: Daemon, status: str) -> None:
    """Record how the daemon ended."""
    text = f"{daemon.name} {status}"
    if daemon.signalled is not None:
        number, sent = daemon.signalled
        text += f" {time.monotonic() - sent:.3f} s after {signals.Signals(number).name}"
    note(cell.daemons.logs, text)
