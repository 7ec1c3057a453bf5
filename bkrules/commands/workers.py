"""`bk workers`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.commands.parser import command

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    workers = command(
        commands, "workers", _workers, "print the installed workers, their settings, and what they lack here"
    )
    workers.add_argument("--json", action="store_true", help="print JSON")


def _workers(arguments: argparse.Namespace) -> int:
    from bkrules.analysis import own_hooks
    from bkrules.loading.plugins import load_plugins
    from bkrules.loading.root import root_of
    from bkrules.plugin import ask
    from bkrules.plugin.host import probe
    from bkrules.sandbox.trial import tried

    plugins = load_plugins(root_of("."))
    for error in (*(plugin.error for plugin in plugins.broken), *plugins.conflicts.values()):
        print(f"warning: {error}", file=sys.stderr)
    host = tried(probe())
    documents: list[dict[str, Any]] = []
    for name, kind in sorted(plugins.workers.items()):
        row: dict[str, Any] = {"worker": name, "distribution": plugins.distributions[name], "settings": {}}
        lacks = list(host.lacks())
        try:
            row["settings"] = ask.described(kind)
            lacks = own_hooks.lacks(plugins, ask.default(kind), host)
        except errors.BkError as fault:
            row["error"] = str(fault)
        documents.append({**row, "lacks": list(map(str, lacks))})
    wrong = any("error" in row for row in documents)
    if arguments.json:
        print(json.dumps(documents, indent=1))
        return errors.BUILD_FAILED if wrong else errors.SUCCESS
    for document in documents:
        print(f"{document['worker']}  ({document['distribution']})")
        for setting, description in document["settings"].items():
            print(f"  {setting} = {description['default']!r}: {description['help']}")
        for lack in document["lacks"]:
            print(f"  cannot run here: {lack}")
        if "error" in document:
            print("  " + f"error: {document['error']}".replace("\n", "\n  "))
    return errors.BUILD_FAILED if wrong else errors.SUCCESS
