"""`host_binary`: a tool of this machine, whose digest is in the key of each action that uses it."""

from __future__ import annotations

import os

from bkrules.analysis.context import Context
from bkrules.model.action import HostFile
from bkrules.model.label import root_of
from bkrules.model.providers import BinaryInfo
from bkrules.model.rule import Attr, Rule

MACHINE = "{machine}"


def _analyze(context: Context) -> tuple[object, ...]:
    root = context.workspace.place(root_of(context.label.package))
    files = [path.replace(MACHINE, os.uname().machine) for path in context.attribute("files")]
    binary, *more = (
        HostFile(os.path.join(root, path) if "/" in path else path)
        for path in (context.attribute("binary") or os.path.basename(context.label.name), *files)
    )
    return (BinaryInfo(binary, tuple(more)),)


HOST_BINARY = Rule(
    "host_binary",
    "A binary found on PATH. Its digest, not its path, is part of every key that depends on it.",
    {
        "binary": Attr(
            "string",
            "The command's name, or the path of a file, which is relative to WORKSPACE.py; the target's own name by default.",
        ),
        "files": Attr(
            "strings",
            f"Further files of this machine, absolute, that decide what the binary does. {MACHINE} stands for the machine's "
            "architecture, as `uname -m` prints it.",
            default=(),
        ),
    },
    _analyze,
)
