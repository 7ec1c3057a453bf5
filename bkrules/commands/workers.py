"""`bk workers`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.commands.arguments import command

if TYPE_CHECKING:
    from bkrules.commands.arguments import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    workers = command(
        commands, "workers", _workers, "print the installed workers, their settings, and what they lack here"
    )
    workers.add_argument("--json", action="store_true", help="print JSON")


def _workers(arguments: argparse.Namespace) -> int:
    from bkrules.plugin.host import probe
    from bkrules.plugin.manager import load

    plugins = load()
    for error in (*(one.error for one in plugins.broken), *plugins.conflicts.values()):
        print(f"warning: {error}", file=sys.stderr)
    host = probe()
    documents: list[dict[str, Any]] = []
    for name, kind in sorted(plugins.workers.items()):
        worker = kind.from_settings({})
        documents.append(
            {
                "worker": name,
                "distribution": plugins.distributions[name],
                "settings": kind.describe_settings(),
                "lacks": [str(lack) for lack in (*host.lacks(), *worker.preflight(host))],
            }
        )
    if arguments.json:
        print(json.dumps(documents, indent=1))
        return errors.SUCCESS
    for document in documents:
        print(f"{document['worker']}  ({document['distribution']})")
        for setting, description in document["settings"].items():
            print(f"  {setting} = {description['default']!r}: {description['help']}")
        for lack in document["lacks"]:
            print(f"  cannot run here: {lack}")
    return errors.SUCCESS
