"""`host_binary`: a tool of this machine, whose digest is in the key of each action that uses it."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.action import HostFile
from bkrules.model.providers import BinaryInfo
from bkrules.model.rule import Attr, Rule


def _analyze(context: Context) -> tuple[object, ...]:
    binary = context.attribute("binary") or context.label.name
    return (BinaryInfo(HostFile(binary), tuple(HostFile(path) for path in context.attribute("files"))),)


HOST_BINARY = Rule(
    "host_binary",
    "A binary found on PATH. Its digest, not its path, is part of every key that depends on it.",
    {
        "binary": Attr("string", "The command's name; the target's own by default."),
        "files": Attr(
            "strings", "Further files of this machine, absolute, that decide what the binary does.", default=()
        ),
    },
    _analyze,
)
