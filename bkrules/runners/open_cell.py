"""A cell from bk's side: binds and copies of its inputs, its mirror's connection to a registry, and its messages."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bkrules.analysis.host_inputs import COMMANDS, HELPERS, REGISTRY
from bkrules.errors import Interrupted
from bkrules.execution.context import RunContext
from bkrules.mirror.faults import MirrorFaults
from bkrules.mirror.registry import Registry
from bkrules.model.action import Action, DirectoryNode, FileNode, HostFile, Node
from bkrules.model.reference import Reference
from bkrules.model.status import FailureClass, Status
from bkrules.plugin import ask
from bkrules.sandbox.cgroups import Cgroups
from bkrules.sandbox.ipc import send
from bkrules.sandbox.spawner import Started

_GRACE = 30.0
_NOTICE = 0.1


def run_in_cell(
    action: Action, inputs: Mapping[str, Node], context: RunContext, out: str, *, program: str, name: str
) -> dict[str, Any]:
    """Run the program of an action in a new cell. Return the cell's result. `out` gets its logs and outputs."""
    with open_cell(action, inputs, context, out, program=program, name=name) as cell:
        return cell.result(context.timeout(action))


@dataclass
class OpenCell:
    """A running cell."""

    started: Started
    registry: Registry
    context: RunContext
    handles: list[int]
    faults: MirrorFaults | None = None

    def ask(self, message: Mapping[str, Any], *descriptors: int) -> None:
        """Send a request to the cell's first process. Raises OSError when the cell has ended."""
        send(self.started.channel, message, descriptors)

    def message(self, timeout: float) -> dict[str, Any]:
        """Return the cell's next message, or a failure without one. Raises Interrupted."""
        reason = f"the cell ended without a result{self.context.processes.fate()}"
        lost = {"event": "result", "status": Status.FAILED, "class": FailureClass.INFRASTRUCTURE, "reason": reason}
        return self._next(time.monotonic() + timeout + _GRACE) or lost

    def result(self, timeout: float) -> dict[str, Any]:
        """Return the next result of the cell, or a failure without one. Raises Interrupted."""
        result = self.message(timeout)
        if result["status"] == Status.FAILED and self.registry.has_ended(_NOTICE):
            result |= {
                "class": FailureClass.INFRASTRUCTURE,
                "reason": f"the mirror's registry ended; {result['reason']}",
            }
        return {**result, "unlimited": self.context.machine().host.unlimited()}

    def _next(self, deadline: float) -> dict[str, Any] | None:
        while True:
            try:
                message, descriptors = self.started.next(max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                reason = "the cell did not end in time, and was ended"
                return {
                    "event": "result",
                    "status": Status.TIMED_OUT,
                    "class": FailureClass.INFRASTRUCTURE,
                    "reason": reason,
                }
            if message is None and self.context.processes.interrupted:
                raise Interrupted("interrupted", "the cell was ended")
            if message is None or message["event"] != "mirror":
                return message
            self.handles.append(self.context.mirror.add(descriptors[0], self.registry.target, self.faults))


@contextmanager
def open_cell(
    action: Action,
    inputs: Mapping[str, Node],
    context: RunContext,
    out: str,
    *,
    program: str,
    name: str,
    folders: Sequence[str] = (),
) -> Iterator[OpenCell]:
    """Run a cell for as long as the context lasts. It also sees `folders` of the machine, which hide its own."""
    parameters = action.parameters
    machine = context.machine()
    kind = context.plugins.workers[parameters["plugin"]]
    binds = [(path, path) for path in (*machine.binds, *folders)]
    python_path: set[str] = set()
    copies = []
    tools: dict[str, FileNode] = {}
    images: dict[Reference, DirectoryNode] = {}
    declared = dict(action.inputs)
    for path, node in inputs.items():
        top, _, rest = path.partition("/")
        source = declared[path]
        if isinstance(node, DirectoryNode):
            host, _, place = rest.partition("/")
            repository, _, tag = place.rpartition("/")
            images[Reference(host, repository, tag)] = node
        elif top == "tools":
            tools[rest] = node
        elif top == "config":
            copies.append((node.path, f"/etc/bk/{rest}", node.executable))
        elif top in ("src", "updaters"):
            copies.append((node.path, f"/{path}", node.executable))
        elif top == "plugin" and isinstance(source, HostFile):
            place, shown = _on_path(rest, source.path)
            python_path.add(place)
            binds.append((shown, shown))
        elif top == "host" and isinstance(source, HostFile):
            binds.append((node.path, _place(path, source.path)))
    binds.append((context.tool_folder(tools), "/opt/bk/bin"))
    own = context.folder.new_name()
    groups = Cgroups(
        f"{machine.host.cgroup}/{own}", {one: f"{folder}/{own}" for one, folder in machine.host.controllers.items()}
    )
    configuration = inputs[REGISTRY]
    assert isinstance(configuration, FileNode)
    registry = context.registries.get(images, tools["registry"], configuration)
    spec = {
        **parameters,
        "program": program,
        "name": name,
        "worker_class": f"{kind.__module__}:{kind.__qualname__}",
        "python_path": sorted(python_path),
        "modules": ask.modules(ask.made(kind, parameters["settings"])),
        "owners": {one.module: one.title for one in context.plugins.installed if one.module},
        "environment": {**dict(action.environment), "GOMAXPROCS": str(_go_threads(context.jobs))},
        "timeout": context.timeout(action),
        "root": str(context.folder.root),
        "views": str(context.folder.views),
        "out": out,
        "cgroup": groups.path,
        "limited": groups.limited,
        "binds": outermost(binds),
        "copies": copies,
        "links": interpreter_links((*machine.binds, *folders)),
    }
    handles: list[int] = []
    wrong = parameters.get("update", {}).get("mirror")
    faults = MirrorFaults.read(wrong) if wrong else None
    try:
        with context.folder.owned(own, groups.folders):
            with context.processes.cell(spec) as started:
                yield OpenCell(started, registry, context, handles, faults)
            with suppress(OSError):  # the supervisor removes them, unless it had to be killed
                groups.remove()
    finally:
        for handle in handles:
            context.mirror.remove(handle)


def _place(path: str, here: str) -> str:
    """Return the path of a machine's file in a cell: fixed for a command, and unchanged for the interpreter and libraries."""
    name = path.removeprefix(HELPERS)
    return f"{COMMANDS}/{name}" if path.startswith(HELPERS) and "/" not in name else here


def _on_path(path: str, file: str) -> tuple[str, str]:
    """Return the folder on Python's path of a plugin's `file`, and the part of it that a cell sees: the module, or its package.

    `path` is the file's path below that folder. No key covers other files there, so no cell sees them.
    """
    if not file.endswith(f"/{path}"):  # an editable install that maps it from another name
        return os.path.dirname(file), file
    folder = file.removesuffix(f"/{path}")
    return folder, f"{folder}/{path.partition('/')[0]}"


def _go_threads(jobs: int) -> int:
    """Return how many threads of Go each daemon runs at a time: half of the cores of a job, since the test needs some too.

    On two cores it is one, which saves a tenth of the daemons' CPU time at any number of jobs. It changes no result, so
    no key covers it.
    """
    return max(1, (os.cpu_count() or 1) // (2 * jobs))


def outermost(binds: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the binds that no other bind contains, sorted so that folders come before their contents."""
    kept: list[tuple[str, str]] = []
    for source, target in sorted(set(binds), key=lambda pair: pair[1]):
        if not any(target.startswith(f"{above}/") and source == target and first == above for first, above in kept):
            kept.append((source, target))
    return kept


def interpreter_links(binds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the symbolic links between the environment's interpreter and the real one that no bind shows."""
    links = [("/usr/bin/python3", sys.executable)]
    path = sys.executable
    while os.path.islink(path):
        link = os.readlink(path)
        links.append((path, link))
        path = os.path.join(os.path.dirname(path), link)
    return [(path, link) for path, link in links if not any(path.startswith(f"{folder}/") for folder in binds)]
