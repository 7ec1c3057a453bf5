"""`bk go`: the pinned Go of the workspace."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import add_cache, command

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    go = command(commands, "go", _go, "run the workspace's pinned Go, with caches next to the disk cache")
    go.usage = "bk go [--OPTION=VALUE...] ARGUMENT..."
    go.add_argument("--toolchain", default="//:go", metavar="LABEL", help="the go_toolchain (default: %(default)s)")
    add_cache(go)
    add_modules(go)


def _go(arguments: argparse.Namespace) -> int:
    from bkrules.build.analysis import open_workspace, package_of
    from bkrules.build.pinned_go import pinned_go
    from bkrules.build.request import Options
    from bkrules.model.label import parse_pattern

    workspace = open_workspace(".")
    pattern = parse_pattern(arguments.toolchain, package_of(workspace, "."))
    (label,) = (target.label for target in workspace.match([pattern]))
    go = pinned_go(workspace, label, Options(1, os.path.abspath(arguments.disk_cache)))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(go.binary, [go.binary, *arguments.after], go.environment())
