"""The stacks of a cell's daemons at the timeout: of all goroutines.

A Go program that gets SIGQUIT writes the stacks of all its goroutines to its log and ends. That needs no socket, and no
lock that may be the cause of the hang. bk moves the stacks from `buildkitd.log` to `buildkitd.stacks`, so that the log
still ends with the daemon's own messages.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bkrules.cell.task import task_of
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.cell_log import note
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.spec import hookimpl
from bkrules.system.waiting import readable

TOOLS = "/opt/bk/bin/"
PATIENCE = 2.0
"""The limit in seconds for all stacks."""


@hookimpl(tryfirst=True)
def bk_timed_out(cell: RunningCell) -> None:
    """Write the stacks of all daemons, unless a user wants to see them run."""
    if not task_of(cell).is_kept:
        write_stacks(cell.daemons)


def write_stacks(daemons: Daemons) -> None:
    """Write the stacks of all daemons and their children as `NAME.stacks` next to their logs. Ends them."""
    deadline = time.monotonic() + PATIENCE
    for daemon in daemons.running:
        log = daemons.logs / f"{daemon.name}.log"
        if not log.exists():
            continue
        size = log.stat().st_size
        # From the last process to the first: children of rootlesskit before rootlesskit, which ends with them.
        for pid in sorted(_writers(log), reverse=True):
            _quit(pid, deadline)
        with log.open("r+b") as file:
            file.seek(size)
            stacks = file.read()
            file.truncate(size)
        (daemons.logs / f"{daemon.name}.stacks").write_bytes(stacks)
        note(daemons.logs, f"{daemon.name} was asked for its stacks: {len(stacks)} bytes in {daemon.name}.stacks")


def _writers(log: Path) -> Iterable[int]:
    """Return the processes of tools whose standard error is this log."""
    own = os.stat(log)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            is_tool = os.readlink(f"/proc/{name}/exe").startswith(TOOLS)
            if is_tool and os.path.samestat(os.stat(f"/proc/{name}/fd/2"), own):
                yield int(name)


def _quit(pid: int, deadline: float) -> None:
    """Let a process write its stacks. Return when it has ended, or after the limit."""
    with suppress(ProcessLookupError):  # it has ended with another
        descriptor = os.pidfd_open(pid)
        try:
            for number in (signal.SIGQUIT, signal.SIGCONT):
                signal.pidfd_send_signal(descriptor, number)
            readable([descriptor], deadline - time.monotonic())
        finally:
            os.close(descriptor)
