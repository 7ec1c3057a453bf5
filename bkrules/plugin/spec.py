"""The hooks of bk, as pluggy knows them.

A plugin implements some of them, as functions of its module, or, those that run in a cell, as methods of a worker, which are
then called in the cells of that worker alone. Implementations name the arguments that they need. pluggy calls the last
registered plugin first; bk's own implementations are registered before all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from bkrules.plugin.worker import Worker

if TYPE_CHECKING:
    from bkrules.plugin.cell import ProgramResult, RunningCell
    from bkrules.plugin.daemon import Daemon, DaemonSpec
    from bkrules.plugin.worker import Backend

GROUP = "bk"
API = 1
"""The version of the hooks. A module that needs a higher one declares it: `BK_API = 2`."""
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[[type[Worker]], None]


@hookspec
def bk_register_workers(register: Register) -> None:
    """Tell bk which workers a plugin has.

    Called once in each process of bk that needs a worker, for every installed distribution with an entry point in the
    group `bk`, in the order of the distributions' names. Call `register` once for each worker class. The return value is
    not used. A plugin that raises, ends the process, takes longer than 30 s, leaves a process running or registers what
    is no worker has no workers in this run; a build that needs one of them fails, with an error that names the plugin.
    A name that two plugins register is unusable in the same way.
    """


@hookspec
def bk_cell_starting(cell: RunningCell) -> None:
    """Prepare a cell before any daemon starts.

    Called once in each cell, in its first process: its root, network and limits are there. Files written below the cell's
    folders are gone with the cell. An exception, or more than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_daemon_starting(cell: RunningCell, spec: DaemonSpec) -> None:
    """Change how a daemon starts: append to `spec.arguments`, add to `spec.environment`.

    Called in the cell's first process before each start of each daemon, restarts included, where `spec` is as the worker
    wrote it. An exception, or more than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_daemon_ready(cell: RunningCell, daemon: Daemon) -> None:
    """Look at a daemon that is ready now.

    Called in the cell's first process after each start of each daemon, before its starter continues. An exception, or more
    than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_backend_ready(cell: RunningCell, backend: Backend) -> None:
    """Use the backend before the test does, for instance to fill its cache.

    Called once in each cell, in its first process, when the worker's `start` has yielded. The time counts as start of the
    worker. An exception, or more than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec(firstresult=True)
def bk_run_program(cell: RunningCell, backend: Backend) -> ProgramResult | None:
    """Run the program of the cell, and return its result; None leaves it to the next plugin.

    Called in the cell's first process, once for each test; not for sessions. bk's own implementation, which comes last,
    runs pytest on the cell's test, or an action's commands. A wrapper (`@hookimpl(wrapper=True)`) surrounds it, and may
    return another result than it got. An exception, anything else than a `ProgramResult`, or 20 s more than the cell's
    timeout, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_timed_out(cell: RunningCell) -> None:
    """Find out what a cell does when its time is over.

    Called in the cell's first process while the test stands still (SIGSTOP). Files written to `cell.daemons.logs` are kept.
    bk's own implementation comes first; it writes the stacks of all daemons, which ends them. An exception, or more than
    10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_daemon_stopping(cell: RunningCell, daemon: Daemon, signal: int) -> None:
    """Look at a daemon that is about to be sent the signal that ends it.

    Called in the cell's first process when a test stops or restarts a daemon, and when bk ends the daemons of a cell in
    order. The end of an ordinary cell is no stop: the kernel ends its daemons with it. An exception, or more than 10 s, is
    an infrastructure failure that names the plugin.
    """


@hookspec
def bk_daemon_stopped(cell: RunningCell, daemon: Daemon, status: str) -> None:
    """Look at the remains of a daemon that has ended.

    Called in the cell's first process after each stop, and after a test for each daemon that ended by itself meanwhile.
    `status` is `exit status 0`, `killed by SIGTERM`, or `it is running` when it did not end in time. An exception, or more
    than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_state(cell: RunningCell, backend: Backend) -> Mapping[str, list[str]] | None:
    """Return the state of a shared worker that a test could change, as lines by name.

    Called in the first process of a cell with `isolation = "worker"`, before its first test and after each. Where two
    answers differ, the worker is tainted: no other test runs on it, and bk keeps no result of the test. The answers of all
    plugins are joined; a name that two of them use is an error. An exception, a wrong type, or more than 10 s, is an
    infrastructure failure that names the plugin.
    """


@hookspec
def bk_collect_logs(cell: RunningCell, folder: Path, result: ProgramResult) -> None:
    """Copy files of a cell that are worth keeping into its folder of logs.

    Called in the cell's first process after each test; `result` is the test's. The folder comes to `bk-out`, and into the
    cache with a result that is kept. An exception, or more than 10 s, is an infrastructure failure that names the plugin.
    """


@hookspec
def bk_cell_stopping(cell: RunningCell, result: ProgramResult) -> None:
    """Undo what `bk_cell_starting` did outside of the cell's reach, or check how the cell ends.

    Called once in each cell, in its first process, when its program has ended and its daemons still run. Resources of the
    cell need not be released: they end with the cell. An exception, or more than 10 s, is an infrastructure failure that
    names the plugin.
    """


HOOKS = tuple(name for name in vars() if name.startswith("bk_"))
CELL_HOOKS = frozenset(
    f"bk_{name}"
    for name in (
        *("cell_starting", "daemon_starting", "daemon_ready", "backend_ready", "run_program", "timed_out"),
        *("daemon_stopping", "daemon_stopped", "state", "collect_logs", "cell_stopping"),
    )
)
"""The hooks that run in the first process of a cell. A plugin with one of them acts in every cell: its files are in their keys."""
