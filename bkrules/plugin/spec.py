"""The hooks of bk, as pluggy knows them.

A plugin implements some of them, as functions of its module, or, those that run in a cell, as methods of a worker, which are
then called in the cells of that worker alone. Implementations name the arguments that they need. pluggy calls the last
registered plugin first. In a cell bk's own implementations are registered before all others; outside, bk calls them apart
from those of plugins, which a wrapper of a plugin then surrounds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from bkrules.plugin.worker import Worker

if TYPE_CHECKING:
    from bkrules.plugin.cell import Action, Build, Cell, ProgramResult, Result, RunningCell, Test
    from bkrules.plugin.daemon import Daemon, DaemonSpec
    from bkrules.plugin.host import Host, Lack
    from bkrules.plugin.worker import Backend, Mirror

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
def bk_register_rules(register: Callable[..., None]) -> None:
    """Add rules for build files: `register(RULE, {MNEMONIC: RUNNER})`.

    Called and bounded as `bk_register_workers` is. A build file imports the rule from the plugin's module:
    `from bk_notes import note`. `bkrules.rules.define` has what a rule is made of. A runner is a function of one
    `ActionRun`; bk calls it in a thread of the build when no cache has the action's result. The files of the plugin, and all
    that they import, are in the keys of the rule's actions. A plugin that raises has no rules in this run. A runner that
    raises, or takes longer than the action's timeout, fails its action with an error that names the plugin.
    """


@hookspec
def bk_register_axis_keys(register: Callable[..., None]) -> None:
    """Add keys to the values of axes: `register(NAME, EXPAND)`.

    Called and bounded as `bk_register_workers` is. In `axes = {"gc": {"off": {"gc_policy": "none"}}}` the key `gc_policy`
    stands for the result of `EXPAND("none")` in analysis: a dictionary with keys that bk has itself. The result is in
    the keys of the cells. A ValueError that EXPAND raises is an error of the build file; another exception, or more than 30 s,
    is one that names the plugin. A plugin that raises has no axis keys in this run.
    """


@hookspec
def bk_register_commands(register: Callable[..., None]) -> None:
    """Add commands: `register(NAME, HELP, RUN, CONFIGURE)`.

    Called and bounded as `bk_register_workers` is, when a command line names no command of bk's own, and for `bk --help`.
    `CONFIGURE(parser)` adds arguments to an `argparse` parser, `RUN(arguments)` returns the exit code; Ctrl-C ends it, and
    nothing bounds it. An exception in it is an error that names the plugin, with exit code 1. A name that bk or another plugin
    has is an error.
    """


@hookspec
def bk_register_reporters(register: Callable[..., None]) -> None:
    """Add reports of matrices: `register(FILE, REPORT)`.

    Called and bounded as `bk_register_workers` is. At the end of a build bk calls `REPORT(document)` for each matrix, with
    what its `report.json` says, and writes the text that it returns to FILE next to that. An exception, a wrong type, or
    more than 30 s, is printed at the end, with exit code 1.
    """


@hookspec
def bk_configure(worker: Worker, mirror: Mirror, files: dict[str, dict[str, Any]]) -> None:
    """Change the configuration files of a worker's daemons: `files` are TOML documents by name.

    Called in analysis, for each worker of each matrix, and again for each cell whose axis values change files. The worker's
    `configuration` has filled in `files`, and axis values are merged after all plugins. The files are in the keys of the
    cells. Depend on nothing but the arguments and `host.read`. An exception, or more than 30 s, is an error of the build
    that names the plugin.
    """


@hookspec
def bk_cache_key(worker: Worker) -> Mapping[str, str] | None:
    """Return what else can change the results of a worker's cells, by name.

    Called in analysis, for each worker of each matrix. bk joins the answers of all plugins in the keys of the cells; a name
    that two of them use is an error. An exception, a wrong type, or more than 30 s, is an error of the build that names the
    plugin.
    """


@hookspec
def bk_preflight(worker: Worker, host: Host) -> Sequence[Lack] | None:
    """Return what this machine lacks for a worker's cells.

    Called before each cell that is to run, in a thread of the build, and by `bk workers` and `bk doctor`. Cells of a worker
    that lacks something are skipped with exit code 36. An exception, a wrong type, or more than 30 s, is an error of the
    cell that names the plugin.
    """


@hookspec(firstresult=True)
def bk_skip_cell(cell: Cell, worker: Worker, test: Test, unsupported: Collection[str]) -> str | None:
    """Return why a cell is skipped, in one line; None leaves it to the next plugin.

    Called in analysis, once for each cell. `cell.test`, `cell.worker` and `cell.axes` say which one it is, `test.mark(NAME)`
    returns a mark of its test, and `unsupported` has the features that the worker lacks. Marks come first. An exception, a
    wrong type, or more than 30 s, is an error of the build that names the plugin.
    """


@hookspec(firstresult=True)
def bk_classify_failure(cell: Cell, result: ProgramResult, logs: Path) -> str | None:
    """Return the class of a failure; None leaves it to the next plugin.

    Called after each failed attempt of a cell, in a thread of the build; `logs` is the folder with the logs. A cell of the
    class `infrastructure` runs once more, and so does one of the class `test` that is declared as flaky. bk never keeps a
    failure, so the answer is in no key. An exception, a class that bk does not know, or more than 30 s, fails the cell with
    an error that names the plugin.
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


@hookspec
def bk_build_started(targets: Sequence[str], actions: int) -> None:
    """Hear that a build begins.

    Called once in each build, in bk's own process and main thread, when all targets are analysed; with the labels of those
    that were asked for, and the number of actions. An exception, or more than 30 s, is printed at the end, with exit code 1,
    and the plugin hears nothing more of this build. A build with a listener keeps no answer for the null build, so that
    the next build is heard too.
    """


@hookspec
def bk_action_started(action: Action) -> None:
    """Hear that an action runs, since no cache has its result.

    Called in the main thread, once for each action that runs; `action.title`, `action.mnemonic` and `action.label` name it,
    `action.cell` is None or the cell. An exception, or more than 30 s, is as for `bk_build_started`.
    """


@hookspec
def bk_action_finished(result: Result) -> None:
    """Hear what became of an action.

    Called in the main thread, once for each action of the build, cached ones and those that did not run included:
    `result.action`, `result.status`, `result.cached`, `result.seconds`, `result.failure`, `result.reason`. An exception, or
    more than 30 s, is as for `bk_build_started`.
    """


@hookspec
def bk_build_finished(build: Build) -> None:
    """Hear that a build is over, and its reports and outputs written.

    Called once in each build, interrupted ones included, in the main thread: `build.results`, `build.seconds`,
    `build.exit_code`. An exception, or more than 30 s, is as for `bk_build_started`.
    """


@hookspec
def bk_summary(build: Build) -> str | None:
    """Return a text to print when a build is over, after bk's own summary.

    Called once in each build, in the main thread. An exception, a wrong type, or more than 30 s, is as for
    `bk_build_started`: bk then prints its own summary alone.
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
LISTENERS = ("bk_build_started", "bk_action_started", "bk_action_finished", "bk_build_finished", "bk_summary")
"""The hooks that hear of each build."""
