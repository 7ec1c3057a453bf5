"""`bk run` and `bk shell`: a worker, or the sandbox of a cell, for as long as a user needs it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.analysis.context import Context
from bkrules.analysis.runs import Runs
from bkrules.build.analysis import Analysis, analyze_targets, open_workspace
from bkrules.build.request import Options
from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.cell.protocol import CellResult, Command
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.cells import one_cell
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.own_files import add_own_files, own_modules, own_tools
from bkrules.commands.parser import add_cache, command, nothing, positive
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.commands.targets import mirror_of, target_of
from bkrules.errors import UsageError
from bkrules.model.action import Action
from bkrules.model.status import Status
from bkrules.report.summary import summarize

if TYPE_CHECKING:
    from bkrules.build.session import Session
    from bkrules.commands.parser import Commands

KEPT_SECONDS = 600
"""How long the sandbox of a failed test stays, in seconds."""


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    run = command(commands, "run", _run, "boot a worker with a mirror, and run a command with BUILDKIT_HOST")
    run.usage = "bk run [--mirror LABEL] WORKER [-- COMMAND...]"
    run.add_argument("worker", metavar="WORKER", help="the label of a worker, or its name; without a COMMAND, a shell")
    run.add_argument(
        "--mirror", default="", metavar="LABEL", help="an image_mirror (default: the one in the worker's package)"
    )
    add_own_files(run)
    shell = command(commands, "shell", _shell, "boot the sandbox of a cell, and run a shell or a command in it")
    shell.usage = "bk shell [--at_failure] CELL [-- COMMAND...]"
    shell.add_argument(
        "cell",
        metavar="CELL",
        help="test_x/worker=oci, its beginning, a pattern as of --test_filter, or //pkg:matrix[CELL]",
    )
    shell.add_argument(
        "--at_failure",
        action="store_true",
        help="run the test first; when it fails, the shell is in its sandbox, with its daemons and files",
    )
    shell.add_argument(
        "--at_failure_timeout",
        type=positive,
        metavar="N",
        help=f"end the shell and the sandbox after N seconds (default: {KEPT_SECONDS})",
    )
    shell.add_argument(
        "--strace",
        action="append",
        default=[],
        metavar="DAEMON",
        help="run a daemon, such as buildkitd, and all that it starts under strace, and keep its output next to the cell's logs",
    )
    add_cells(shell)
    add_overrides(shell)
    for parser in (run, shell):
        add_cache(parser)
        add_remote(parser)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(os.cpu_count() or 1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from bkrules.analysis.session import declare_session

    workspace = open_workspace(".")
    worker = target_of(workspace, arguments.worker, "worker")
    mirror = mirror_of(workspace, worker, arguments.mirror)
    overrides = WorkerOverrides(tools=own_tools(arguments), modules=own_modules(arguments))
    analysis = analyze_targets(workspace, [worker, mirror], Runs(), overrides)
    own, other = (
        Context(target, workspace, analysis.plugins, analysis.machine, analysis.actions.providers)
        for target in (worker, mirror)
    )
    shell = os.environ.get("SHELL", "/bin/sh")
    return _with_session(
        analysis, declare_session(own, other), _options(arguments), arguments.after or [shell], _beside
    )


def _shell(arguments: argparse.Namespace) -> int:
    if arguments.at_failure_timeout and not arguments.at_failure:
        raise UsageError("usage", "--at_failure_timeout is for --at_failure", hint="give both, or none")
    analysis, action = one_cell(arguments.cell, runs_of(arguments), overrides_of(arguments))
    assert action.cell is not None
    if action.cell.skip:
        raise nothing(f"{action.title} has no sandbox: {action.cell.skip}", "choose a cell that is not skipped")
    if action.mnemonic == "CompareBuilds":
        raise nothing(f"{action.title} has no sandbox: it compares what other cells built", "choose one of these cells")
    shell = [shutil.which("bash", path="/usr/bin") or "/bin/sh"]
    words = arguments.after or shell
    if not arguments.at_failure:
        return _with_session(analysis, action, _options(arguments), words, _inside, traced=arguments.strace)
    from bkrules.build.session import NothingFailed

    seconds = arguments.at_failure_timeout or KEPT_SECONDS
    try:
        use = partial(_after_failure, seconds=seconds)
        traced = arguments.strace
        return _with_session(analysis, action, _options(arguments), words, use, at_failure=True, traced=traced)
    except NothingFailed as found:
        if found.result.status == Status.SKIPPED:
            raise nothing(f"{action.title} was skipped: {found.result.reason}", "choose another cell") from found
        print(f"bk: {action.title} passed, so there is no failure to look at", file=sys.stderr)
        return errors.SUCCESS


def _with_session(analysis: Analysis, action: Action, options: Options, words: list[str], use: Any, **more: Any) -> int:
    """Boot the cell, run a command with it, and end it. Return the command's exit code. Reports daemons that ended meanwhile.

    `more` goes to `session`.
    """
    from bkrules.build.session import NotBuilt, session

    if sys.stderr.isatty():
        print(f"bk: {action.title} boots", file=sys.stderr)
    try:
        with session(analysis, action, options, machine=use is not _beside, **more) as opened:
            code, last = use(opened, words)
            if last.status != Status.PASSED or last.reason:
                print(f"bk: {last.reason}", file=sys.stderr)
            return code or (errors.SUCCESS if last.status == Status.PASSED else errors.BUILD_FAILED)
    except NotBuilt as error:
        print(summarize(error.result, analysis.out), file=sys.stderr)
        return error.exit_code


def _beside(opened: Session, words: list[str]) -> tuple[int, CellResult]:
    """Run a command on the machine, in the user's folder, with the cell's buildkitd as its BUILDKIT_HOST."""
    # Through the cell's first process, since the cell has another root.
    path = opened.ready.address.removeprefix("unix://")
    environment = {
        **os.environ,
        **opened.ready.environment,
        "BUILDKIT_HOST": f"unix:///proc/{opened.ready.pid}/root{path}",
        "PATH": f"{opened.buildctl}:{os.environ.get('PATH', os.defpath)}",
    }
    command = [sys.executable, "-I", "-m", "bkrules.sandbox.dependent", *words]
    with subprocess.Popen(command, env=environment) as process:
        # Ctrl-C goes to the command too, which handles it.
        before = signal.signal(signal.SIGINT, lambda *_: None), signal.signal(signal.SIGTERM, _ending(process))
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])
    return code if code >= 0 else 128 - code, opened.end()


def _ending(process: subprocess.Popen[bytes]) -> Any:
    return lambda *_: process.terminate()


def _after_failure(opened: Session, words: list[str], *, seconds: int) -> tuple[int, CellResult]:
    """Report the failure, and run a command in the cell, which ends after that many seconds."""
    name, reason = opened.name, opened.ready.reason
    print(
        f"bk: {name} failed: {reason}\n"
        f"bk: this is its sandbox: its daemons and fixtures still run; its logs are in /out, its report is /out/test.log\n"
        f"bk: it ends with this command, or after {seconds} s (--at_failure_timeout)",
        file=sys.stderr,
    )
    return _inside(opened, words, seconds)


def _inside(opened: Session, words: list[str], seconds: float = 0.0) -> tuple[int, CellResult]:
    """Run a command in the cell: on its own terminal when bk has one, otherwise on bk's own stdin and stdout.

    It is killed after `seconds`; 0 means never.
    """
    from bkrules.build.session import FOREVER

    command = Command(tuple(words), "/src", {}, seconds=seconds)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        opened.cell.ask(command, 0, 1, 2)
    else:
        from bkrules.commands.terminal import attach

        attach(opened.cell, replace(command, environment={"PS1": f"({opened.name}) \\w # "}))
    last = opened.cell.result(FOREVER)
    return errors.BUILD_FAILED if last.exit_code is None else last.exit_code, last
