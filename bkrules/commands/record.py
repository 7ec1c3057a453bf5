"""`bk record`: a user's own build, run on a worker, as one file that `bk replay` runs elsewhere."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.analysis.context import Context
from bkrules.analysis.runs import Runs
from bkrules.build.analysis import analyze_targets, open_workspace
from bkrules.build.request import Options
from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.commands.own_files import add_own_files, own_modules, own_tools
from bkrules.commands.parser import add_cache, command, positive
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.commands.repro import SUFFIX, output_path, plain_text, size_text, tell_of
from bkrules.commands.targets import mirror_of, only_target, target_of
from bkrules.errors import UsageError

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.repro.own_build import Recorded

SECONDS = 900
"""The default limit of a build, in seconds."""
_SHOWN = 6


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    record = command(
        commands,
        "record",
        _record,
        "run your own build on a worker, and write it to one file, which `bk replay` runs elsewhere",
    )
    record.usage = "bk record [-o FILE] [--mirror LABEL] [WORKER] -- build OPTION... | docker build OPTION... FOLDER"
    record.add_argument(
        "worker",
        metavar="WORKER",
        nargs="?",
        default="",
        help="the label of a worker, or its name (default: the only one)",
    )
    record.add_argument(
        "--mirror", default="", metavar="LABEL", help="an image_mirror (default: the one in the worker's package)"
    )
    record.add_argument(
        "-o",
        "--output",
        default="",
        metavar="FILE",
        help=f"the file to write (default: the name of the worker, and {SUFFIX})",
    )
    record.add_argument(
        "--self_contained",
        action="store_true",
        help="put tools and large images into the file too, which a replay otherwise builds from the pins of its workspace",
    )
    record.add_argument(
        "--timeout",
        type=positive,
        default=SECONDS,
        metavar="N",
        help="end the build after N seconds (default: %(default)s)",
    )
    add_own_files(record)
    add_cache(record)
    add_remote(record)


def _record(arguments: argparse.Namespace) -> int:
    from bkrules.build.session import NotBuilt
    from bkrules.report.summary import summarize
    from bkrules.repro import own_build, own_command, secrets
    from bkrules.repro.outcome import shown

    if not arguments.after:
        hint = "such as  bk record WORKER -- build --frontend=dockerfile.v0 --local context=. --local dockerfile=."
        raise UsageError("usage", "bk record: there is no command after `--`", hint=hint)
    remote = remote_of(arguments)
    build = own_command.read(arguments.after, secrets.known(os.environ, remote))
    workspace = open_workspace(".")
    worker = target_of(workspace, arguments.worker, "worker") if arguments.worker else only_target(workspace, "worker")
    mirror = mirror_of(workspace, worker, arguments.mirror)
    path = output_path(arguments.output or f"{worker.label.name.replace('/', '-')}{SUFFIX}")
    overrides = WorkerOverrides(tools=own_tools(arguments), modules=own_modules(arguments))
    analysis = analyze_targets(workspace, [worker, mirror], Runs(), overrides)
    own, other = (
        Context(target, workspace, analysis.plugins, analysis.machine, analysis.actions.providers)
        for target in (worker, mirror)
    )
    for one in build.left_out:
        print(f"left out: {one}", file=sys.stderr)
    print(f"runs: buildctl {shlex.join(build.words)}", file=sys.stderr)
    options = Options(os.cpu_count() or 1, os.path.abspath(arguments.disk_cache), remote=remote)
    try:
        recorded = own_build.record(
            *(own, other, analysis, build, options, path),
            timeout=arguments.timeout,
            self_contained=arguments.self_contained,
        )
    except NotBuilt as error:
        print(summarize(error.result, analysis.out), file=sys.stderr)
        return error.exit_code
    for line in recorded.end:
        print(f"build.log | {plain_text(line)}", file=sys.stderr)
    print(f"{path}: {size_text(recorded.written.size)}, {worker.label}: {shown(recorded.written.manifest.result)}")
    _tell(recorded)
    tell_of(recorded.written, path)
    return errors.SUCCESS


def _tell(recorded: Recorded) -> None:
    """Print what the file has, and what the user must know of it."""
    for reference, digest in recorded.images.items():
        print(f"  the mirror served {reference}@{digest}")
    for one in recorded.egress[:_SHOWN]:
        print(f"  the build tried to reach {plain_text(one)}: a cell has no network, so this may be why it ended so")
    for name in recorded.telling[:_SHOWN]:
        print(f"  look at {plain_text(name)} before you send it: it may have a secret (.dockerignore leaves files out)")
    if len(recorded.telling) > _SHOWN:
        print(f"  and at {len(recorded.telling) - _SHOWN} more")
