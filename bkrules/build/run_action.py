"""Run one action of the CAS on this machine: what a launcher of jobs needs to be an engine."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import ActionFailed, MachineLacks, RemoteFailed
from bkrules.execution.context import RunContext
from bkrules.execution.portable import OUT, Portable, Reader
from bkrules.model.action import Action, FileNode, Form, Output
from bkrules.model.digest import Digest
from bkrules.model.label import Label
from bkrules.model.resources import Limits
from bkrules.runners.genrule import CommandRun, command_run
from bkrules.sandbox import outputs
from bkrules.sandbox.outputs import BadOutput, Room, TooLarge

FILES = "src/"
"""The folder of inputs that are no programs: only there does a command see whether a file is executable."""
_ISA = {"x86_64": "x86-64", "aarch64": "arm-a64", "riscv64": "risc-v-64", "s390x": "s390x", "ppc64le": "ppc64le"}


@dataclass(frozen=True)
class Worker:
    """The abilities of a machine: its disk cache, the limits of a command, and its properties."""

    disk_cache: str
    limits: Limits
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def offered(self) -> dict[str, set[str]]:
        """The values of each property of this machine."""
        machine = os.uname()
        offered = {
            "OSFamily": {machine.sysname, machine.sysname.lower()},
            "ISA": {_ISA.get(machine.machine, machine.machine)},
        }
        for name, value in self.properties:
            offered.setdefault(name, set()).add(value)
        return offered


@dataclass(frozen=True)
class Done:
    """An action whose result is in the action cache: whether it was there before, and the seconds that it took."""

    cached: bool
    seconds: float


def run_action(key: Digest, options: RemoteOptions, worker: Worker) -> Done:
    """Run an action of the CAS, and store its result in the action cache.

    Raises RemoteFailed when the remote cache lacks something or fails, MachineLacks when this machine cannot run the
    action, and ActionFailed when the action fails.
    """
    with in_use(worker.disk_cache):
        cas = Cas(f"{worker.disk_cache}/cas", FileDigests(""))
        remote = Remote(replace(options, upload=True), cas, lambda _fault: None)  # an error has the fault
        cache = ActionCache(f"{worker.disk_cache}/ac", cas, remote)
        reader = Reader(cas, remote)
        action = reader.read(key)
        check_properties(action, worker.offered)
        stored = cache.ask(key, whole=False, declared=dict.fromkeys(action.outputs, Form.FILE), above=OUT)
        if stored is not None and action.cached:
            return Done(True, stored.seconds)
        reader.fetch(action)
        result = _ran(action, cas, worker)
        if action.cached:
            cache.put(key, result)
            remote.flush()
        if action.cached and not remote.sent:
            raise RemoteFailed("remote-cache", f"the action ran, but its result is not stored: {remote.fault}")
        return Done(False, result.seconds)


def check_properties(action: Portable, offered: Mapping[str, set[str]]) -> None:
    """Raise MachineLacks unless this machine has each property of the action's platform."""
    for name, value in action.platform:
        if value not in offered.get(name, ()):
            has = ", ".join(sorted(offered[name])) if name in offered else "none"
            what = f"the action {action.key.hash} needs a machine with the property {name}={value}, but here {name} is {has}"
            raise MachineLacks("property", what, hint=f"on a machine that has it, give --property={name}={value}")


def _ran(action: Portable, cas: Cas, worker: Worker) -> ActionResult:
    """Run an action whose inputs are on the disk. Return its result, with its outputs in the CAS. Raises ActionFailed."""
    timeout = min(action.timeout, worker.limits.timeout) if action.timeout else worker.limits.timeout
    limits = replace(worker.limits, timeout=timeout)
    whole = Action(
        id=action.key.hash,
        label=Label("", "action"),
        mnemonic="Genrule",
        arguments=action.arguments,
        inputs=tuple((path, Output("", path)) for path in action.inputs),
        outputs=action.outputs,
        environment=action.environment,
        limits=limits,
        made_in=OUT.rstrip("/"),
    )
    with _context(worker, cas) as context:
        inputs = _staged(action.inputs, context)
        began = time.monotonic()
        with command_run(whole, inputs, context) as run:
            if run.problem:
                text = outputs.tail(run.log)
                sys.stderr.write(text)
                raise ActionFailed(run.reason, f"the action {action.key.hash}: the command {run.problem}", log=text)
            return ActionResult(_stored(whole, run, cas), time.monotonic() - began, OUT)


@contextmanager
def _context(worker: Worker, cas: Cas) -> Iterator[RunContext]:
    from bkrules.build.open_context import close_context, open_context
    from bkrules.plugin.installed import Plugins

    def machine() -> NoReturn:
        raise AssertionError("a command needs nothing of this machine")

    context = open_context(
        worker.disk_cache,
        cas,
        Path(worker.disk_cache),
        machine,
        Plugins({}, {}),
        1,
        test_timeouts={},
        test_attempts=None,
    )
    try:
        yield context
    finally:
        close_context(context)


def _staged(inputs: Mapping[str, FileNode], context: RunContext) -> dict[str, FileNode]:
    """Return the inputs as the command sees them: blobs are executable, so a file that is not has a copy."""
    folder = context.folder.new("inputs")
    staged = dict(inputs)
    for number, (path, node) in enumerate(sorted(inputs.items())):
        if path.startswith(FILES) and not node.executable:
            copy = folder / str(number)
            shutil.copyfile(node.path, copy)
            copy.chmod(0o644)
            staged[path] = replace(node, path=str(copy))
    return staged


def _stored(action: Action, run: CommandRun, cas: Cas) -> dict[str, FileNode]:
    """Return the outputs of a command, in the CAS. Raises ActionFailed."""
    assert run.ended.out is not None
    room = Room(action.limits.disk << 20)
    nodes = {}
    for name in action.outputs:
        try:
            stored, executable = outputs.store(run.ended.out, name, cas, room)
        except TooLarge as error:
            raise ActionFailed("resources", f"its outputs are larger than {action.limits.disk} MiB: {error}") from None
        except BadOutput as error:
            raise ActionFailed("bad-output", f"the output {error}") from None
        nodes[name] = FileNode(stored, cas.path(stored), executable)
    return nodes
