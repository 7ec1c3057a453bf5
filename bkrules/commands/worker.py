"""`bk worker`: runs the actions of a scheduler on this machine."""

from __future__ import annotations

import argparse
import os
import re
import socket
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.parser import add_cache, command, positive
from bkrules.commands.remote_arguments import add_remote, check_upload, grpc_server, remote_of
from bkrules.commands.run_action import add_machine, machine_of
from bkrules.errors import UsageError

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

_EXAMPLE = "grpc://build.example.com:50051"


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    parser = command(
        commands, "worker", _worker, "run the actions of a scheduler on this machine, as BuildGrid's worker"
    )
    parser.add_argument(
        "--scheduler",
        required=True,
        type=_scheduler,
        metavar="URL",
        help="grpc(s)://HOST:PORT, a server of the Remote Workers API; it gets the headers and certificates of --remote_cache",
    )
    parser.add_argument("--jobs", "-j", type=positive, default=1, metavar="N", help="actions at once (default: 1)")
    parser.add_argument(
        "--name",
        type=_name,
        metavar="NAME",
        help="the name of this worker, which no other one of the scheduler has (default: the host and the process)",
    )
    add_machine(parser)
    add_cache(parser)
    add_remote(parser)


def _worker(arguments: argparse.Namespace) -> int:
    """Run actions until SIGTERM. Raises UsageError, MachineLacks and RemoteFailed."""
    from bkrules.build.worker import serve

    cache = remote_of(arguments)
    if cache is None:
        hint = f"for example bk worker --scheduler={_EXAMPLE} --remote_cache=grpc://cache.example.com:9092"
        raise UsageError("usage", "bk worker needs --remote_cache, which has the inputs of actions", hint=hint)
    check_upload(cache, "bk worker sends results")
    scheduler = grpc_server(arguments, cache, arguments.scheduler, "--scheduler")
    name = arguments.name or f"{socket.gethostname()}-{os.getpid()}"
    drained = serve(scheduler, cache, machine_of(arguments), name, arguments.jobs)
    return errors.SUCCESS if drained else errors.INTERRUPTED


def _scheduler(text: str) -> str:
    if not re.fullmatch(r"grpcs?://[^/?#\s]*[^/?#\s@:]/?", text):
        raise argparse.ArgumentTypeError(
            f"must be a URL of grpc or grpcs without a path, as in {_EXAMPLE}, but was {text!r}"
        )
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", text):
        raise argparse.ArgumentTypeError(
            f"must be 1 to 255 printable characters of ASCII without a space, but was {text!r}"
        )
    return text
