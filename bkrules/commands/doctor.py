"""`bk doctor`: what this machine lacks, and how to fix it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import add_cache, command
from bkrules.errors import MachineLacks, UsageError

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.plugin.host import Lack

ROOM = 8 << 30
"""The bytes that the tools of a workspace and their build caches take: 7.4 GiB in this workspace after its own tests."""


@dataclass(frozen=True)
class Finding:
    """A finding: the checked part of the machine, its fault, if any, and the command that fixes it, if there is one."""

    what: str
    problem: str = ""
    remedy: str = ""
    command: str = ""


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    doctor = command(commands, "doctor", _doctor, "print what this machine lacks for cells, workers and tools")
    doctor.add_argument("--fix", action="store_true", help="run the commands that fix it; each is printed first")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    add_cache(doctor)
    add_modules(doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    cache = os.path.abspath(arguments.disk_cache)
    findings = list(_look(cache))
    if arguments.fix:
        for mend in dict.fromkeys(finding.command for finding in findings if finding.command):
            print(f"$ {mend}", file=sys.stderr, flush=True)
            subprocess.run(["sh", "-c", mend], stdout=2, check=False)  # remaining faults are found again
        findings = list(_look(cache))
    if arguments.json:
        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.what}: {finding.problem or 'ok'}")
            if finding.remedy:
                print(f"  {finding.remedy}")
    return errors.MACHINE_LACKS if any(finding.problem for finding in findings) else errors.SUCCESS


def _look(cache: str) -> Iterator[Finding]:
    from bkrules.analysis import own_hooks
    from bkrules.loading.plugins import load_plugins
    from bkrules.loading.root import root_of
    from bkrules.plugin import ask
    from bkrules.plugin.host import probe
    from bkrules.sandbox.trial import tried

    host = tried(probe())
    yield from _findings("cells", host.lacks())
    missing = " and ".join(host.unlimited())
    if missing:
        remedy = f"give bk a cgroup with the controllers {missing}"
        yield Finding("limits of cells", f"no limit of {missing}: results of cells are not kept", remedy)
    else:
        yield Finding("limits of cells")
    plugins = load_plugins(root_of("."))
    for name, kind in sorted(plugins.workers.items()):
        try:
            needs = [lack for lack in own_hooks.lacks(plugins, ask.default(kind), host) if lack not in host.lacks()]
            yield from _findings(f"worker {name}", needs)
        except errors.BkError as fault:
            yield Finding(f"worker {name}", fault.message, fault.hint)
    yield from _commands()
    yield _disk_cache(cache)


def _findings(what: str, lacks: Sequence[Lack]) -> Iterator[Finding]:
    for lack in lacks:
        yield Finding(what, f"{lack.what}: {lack.why}", lack.remedy, lack.command)
    if not lacks:
        yield Finding(what)


def _commands() -> Iterator[Finding]:
    """Yield the host_binary targets of the workspace, and of the modules that it names; none outside of a workspace."""
    from bkrules.analysis.host_inputs import find
    from bkrules.build.analysis import open_workspace
    from bkrules.plugin.host import command_of

    try:
        workspace = open_workspace(".")
        targets = [*workspace.every(), *workspace.of_modules()]
    except UsageError:
        return
    for target in targets:
        if target.rule.name != "host_binary":
            continue
        try:
            find(target.attributes["binary"] or target.label.name)
        except MachineLacks as lack:
            yield Finding(str(target.label), lack.message, lack.hint, command_of(lack.hint))
        else:
            yield Finding(str(target.label))


def _disk_cache(cache: str) -> Finding:
    what = f"disk cache {cache}"
    above = cache
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if not os.access(above, os.W_OK):
        return Finding(
            what, f"{above} cannot be written", "make it writable, or choose another place with --disk_cache"
        )
    room = shutil.disk_usage(above).free
    if room < ROOM:
        return Finding(
            what, f"{room >> 20} MiB are free of {ROOM >> 20} that tools may take", "bk cache gc --max_size 2G"
        )
    return Finding(what)
