"""`bk run-action`: runs one action of a remote cache on this machine, for a launcher of jobs."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.build_arguments import property_of
from bkrules.commands.parser import add_cache, command, positive
from bkrules.commands.remote_arguments import add_remote, check_upload, remote_of
from bkrules.errors import UsageError
from bkrules.model.digest import Digest
from bkrules.model.resources import LIMITS, Limits

if TYPE_CHECKING:
    from bkrules.build.run_action import Worker
    from bkrules.commands.parser import Commands

_LIMITS = {
    "memory": "memory of a command, in MiB",
    "pids": "processes and threads of a command",
    "disk": "outputs of a command, in MiB",
    "timeout": "time of a command, in seconds",
}


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    parser = command(
        commands, "run-action", _run_action, "run one action of a remote cache, and store its result there"
    )
    parser.add_argument("digest", metavar="HASH/SIZE", help="as `bk cache push --actions` prints it")
    add_machine(parser)
    add_cache(parser)
    add_remote(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a machine which runs actions."""
    parser.add_argument(
        "--property",
        action="append",
        default=[],
        type=property_of,
        metavar="NAME=VALUE",
        help="a property of this machine, in addition to OSFamily, ISA and bk:privileged; an action may need it",
    )
    for field in fields(Limits):
        default = getattr(LIMITS, field.name)
        text = f"the limit of the {_LIMITS[field.name]} (default: {default})"
        parser.add_argument(f"--{field.name}", type=positive, default=default, metavar="N", help=text)


def machine_of(arguments: argparse.Namespace) -> Worker:
    """Return the machine that the options describe."""
    from bkrules.build.run_action import Worker

    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    return Worker(os.path.abspath(arguments.disk_cache), limits, tuple(arguments.property))


def _run_action(arguments: argparse.Namespace) -> int:
    """Run the action. Raises UsageError, RemoteFailed, MachineLacks and ActionFailed."""
    from bkrules.build.run_action import run_action

    options = remote_of(arguments)
    if options is None:
        hint = "for example bk run-action HASH/SIZE --remote_cache=grpc://cache.example.com:9092"
        raise UsageError("usage", "bk run-action needs --remote_cache, which has the action and its inputs", hint=hint)
    check_upload(options, "bk run-action sends the result")
    key = _digest(arguments.digest)
    done = run_action(key, options, machine_of(arguments))
    what = "cached" if done.cached else f"ran in {done.seconds:.2f}s"
    print(f"{key.hash} {what}")
    return errors.SUCCESS


def _digest(text: str) -> Digest:
    match = re.fullmatch(r"([0-9a-f]{64})/(0|[1-9]\d{0,17})", text)
    if match is None:
        what = f"bk run-action: the digest must be HASH/SIZE, a SHA-256 and a number of bytes, but was {text!r}"
        raise UsageError("usage", what, hint="`bk cache push --actions` prints digests")
    return Digest(match[1], int(match[2]))
