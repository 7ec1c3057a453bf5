"""Run one action of the CAS on this machine: what a launcher of jobs needs to be an engine."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bkrules.build import run_cell
from bkrules.build.cancel import Cancel
from bkrules.build.run_cell import RemoteCell
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.maintenance import in_use
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.cache.results import write_result
from bkrules.errors import TESTS_FAILED, ActionFailed, MachineLacks, RemoteFailed
from bkrules.execution.context import RunContext
from bkrules.execution.elsewhere import MOST_LOG
from bkrules.execution.portable import WORD, Portable, Reader
from bkrules.execution.portable_cell import ISA, OUT, PRIVILEGED
from bkrules.model import reapi
from bkrules.model.action import Action, FileNode, Form, Output, to_message
from bkrules.model.digest import Digest
from bkrules.model.label import Label
from bkrules.model.resources import Limits
from bkrules.runners.genrule import CommandRun, command_run
from bkrules.sandbox import outputs
from bkrules.sandbox.outputs import BadOutput, Room, TooLarge

if TYPE_CHECKING:
    from bkrules.build.spare import Spares

MOST_TEXT = 16 << 10
"""The limit in bytes of an output that is part of a result, and in characters of bk's word about it."""
FILES = "src/"
"""The folder of inputs that are no programs: only there does a command see whether a file is executable."""


@dataclass(frozen=True)
class Worker:
    """The abilities of a machine: its disk cache, the limits of a command, and its properties.

    One that runs several actions keeps `digests` of blobs, so that it reads the inputs that they share once, and may keep
    `spares` for cells.
    """

    disk_cache: str
    limits: Limits
    properties: tuple[tuple[str, str], ...] = ()
    spares: Spares | None = None
    digests: FileDigests = field(default_factory=lambda: FileDigests(""))

    @property
    def offered(self) -> dict[str, set[str]]:
        """The values of each property of this machine."""
        machine = os.uname()
        offered = {
            "OSFamily": {machine.sysname, machine.sysname.lower()},
            "ISA": {ISA.get(machine.machine, machine.machine)},
            PRIVILEGED: {"true" if os.geteuid() == 0 else "false"},
        }
        for name, value in self.properties:
            offered.setdefault(name, set()).add(value)
        return offered


@dataclass(frozen=True)
class Done:
    """An action whose result is in the action cache: whether it was there before, and the seconds that it took."""

    cached: bool
    seconds: float


@dataclass(frozen=True)
class Ran:
    """The run of a command or a cell: how it failed, if it did, with the reason of the error and the end of its output.

    `code` is the exit code of the command. The outputs of `result` are in the CAS; a command that failed has none.
    """

    code: int = 0
    problem: str = ""
    reason: str = ""
    log: str = ""
    what: str = "the command"
    result: ActionResult = field(default_factory=lambda: ActionResult({}, 0.0, OUT))

    def message(self, cas: Cas) -> tuple[bytes, list[Digest]]:
        """Return the ActionResult for an engine, and the digests of the blobs that it names.

        An engine stores no result whose exit code is not 0, so a command that lacks an output has the exit code 1, and a
        cell whose result no cache may have that of failed tests. The output of what failed is its stdout, bk's word
        about it in `stderr_raw`. A long output is a blob: a worker tells its scheduler of several results in one message, and
        gRPC limits that.
        """
        data, blobs = write_result(self.result, cas.put)
        blobs += [file.digest for file in self.result.files()]
        if self.problem:
            output = self.log.encode()[-MOST_LOG:]
            message = reapi.decode("ActionResult", data) | {"exit_code": self.code or 1}
            if len(output) <= MOST_TEXT:
                message["stdout_raw"] = output
            else:
                blobs.append(cas.put(output))
                message["stdout_digest"] = to_message(blobs[-1])
            message["stderr_raw"] = f"{WORD}{self.what} {self.problem[:MOST_TEXT]}\n".encode()
            data = reapi.encode("ActionResult", message)
        return data, blobs


def run_action(key: Digest, options: RemoteOptions, worker: Worker) -> Done:
    """Run an action of the CAS, and store its result in the action cache.

    Raises RemoteFailed when the remote cache lacks something or fails, MachineLacks when this machine cannot run the
    action, and ActionFailed when the action fails.
    """
    with in_use(worker.disk_cache):
        cas, remote = caches(options, worker)
        cache = ActionCache(f"{worker.disk_cache}/ac", cas, remote)
        reader = Reader(cas, remote)
        action = reader.read(key)
        check_properties(action, worker.offered)
        cell = _cell(reader, action)
        name, above = (cell.key.digest, "") if cell else (key, OUT)
        declared = cell.action.declared if cell else dict.fromkeys(action.outputs, Form.FILE)
        stored = cache.ask(name, whole=False, declared=declared, above=above)
        if stored is not None and action.cached:
            return Done(True, stored.seconds)
        ran = _performed(action, cell, reader, cas, worker)
        if ran.problem:
            sys.stderr.write(ran.log)
            what = ran.what if cell else f"the action {key.hash}: {ran.what}"
            raise ActionFailed(ran.reason, f"{what} {ran.problem}", log=ran.log)
        if action.cached:
            cache.put(name, replace(ran.result, above=above))
            remote.flush()
        if action.cached and not remote.sent:
            raise RemoteFailed("remote-cache", f"the action ran, but its result is not stored: {remote.fault}")
        return Done(False, ran.result.seconds)


def answer(key: Digest, options: RemoteOptions, worker: Worker, cancel: Cancel | None = None) -> bytes:
    """Run an action of the CAS for an engine, which asks the action cache before, and stores the result itself.

    That of a cell is stored here too, under the key of the cell. Return the ActionResult, also of a command that fails;
    its outputs are in the CAS. Raises RemoteFailed when the CAS lacks something or fails, MachineLacks when this machine
    cannot run the action, and Interrupted when `cancel` ends its command.
    """
    cas, remote = caches(options, worker)
    with in_use(worker.disk_cache), closing(remote):
        if cancel is not None:
            cancel.by(remote.end)
        reader = Reader(cas, remote)
        action = reader.read(key)
        check_properties(action, worker.offered)
        cell = _cell(reader, action)
        ran = _performed(action, cell, reader, cas, worker, cancel)
        if cell and not ran.problem:  # the engine knows only the digest of the action
            ActionCache(f"{worker.disk_cache}/ac", cas, remote).put(cell.key.digest, replace(ran.result, above=""))
            remote.flush()
        data, blobs = ran.message(cas)
        if not remote.send({name: cas.path(name) for name in blobs}):
            raise RemoteFailed("remote-cache", f"the action ran, but its outputs are not stored: {remote.fault}")
        return data


def _cell(reader: Reader, action: Portable) -> RemoteCell | None:
    """Return the cell that an action runs; None for a command. Raises RemoteFailed."""
    form = reader.form(action)
    return run_cell.read(action, form) if form else None


def _performed(
    action: Portable,
    cell: RemoteCell | None,
    reader: Reader,
    cas: Cas,
    worker: Worker,
    cancel: Cancel | None = None,
) -> Ran:
    """Fetch the inputs of an action, and run it. Raises RemoteFailed, and MachineLacks when this machine cannot run it."""
    if cell is None:
        for file in action.inputs.values():
            cas.intact(file.digest)  # a damaged one is removed, and fetched again
        reader.fetch(action)
        return _ran(action, cas, worker, cancel)
    run = run_cell.run(cell, reader, cas, worker.disk_cache, cancel, worker.spares)
    result = replace(run.result, above=OUT)
    if run.may_be_kept:
        return Ran(result=result)
    return Ran(TESTS_FAILED, f"{run.status}: {run.reason}", "cell", run.log, f"the cell {cell.action.title}:", result)


def caches(options: RemoteOptions, worker: Worker) -> tuple[Cas, Remote]:
    """Return the disk cache's CAS, and the remote cache, whose fault an error tells."""
    cas = Cas(f"{worker.disk_cache}/cas", worker.digests)
    return cas, Remote(replace(options, upload=True), cas, lambda _fault: None)


def check_properties(action: Portable, offered: Mapping[str, set[str]]) -> None:
    """Raise MachineLacks unless this machine has each property of the action's platform."""
    for name, value in action.platform:
        if value not in offered.get(name, ()):
            has = ", ".join(sorted(offered[name])) if name in offered else "none"
            what = f"the action {action.key.hash} needs a machine with the property {name}={value}, but here {name} is {has}"
            hint = f"where a machine has it, start `bk worker` or `bk run-action` with --property={name}={value}"
            raise MachineLacks("property", what, hint=hint)


def _ran(action: Portable, cas: Cas, worker: Worker, cancel: Cancel | None = None) -> Ran:
    """Run an action whose inputs are on the disk. Raises Interrupted."""
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
        if cancel is not None:
            cancel.by(context.processes.interrupt)
        inputs = _staged(action.inputs, context)
        began = time.monotonic()
        with command_run(whole, inputs, context) as run:
            if run.problem:
                return Ran(run.ended.code, run.problem, run.reason, outputs.tail(run.log))
            try:
                return Ran(result=ActionResult(_stored(whole, run, cas), time.monotonic() - began, OUT))
            except TooLarge as error:
                return Ran(0, f"made outputs larger than {limits.disk} MiB: {error}", "resources")
            except BadOutput as error:
                return Ran(0, f"made a bad output: {error}", "bad-output")


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
    """Return the outputs of a command, in the CAS. Raises BadOutput."""
    assert run.ended.out is not None
    room = Room(action.limits.disk << 20)
    nodes = {}
    for name in action.outputs:
        stored, executable = outputs.store(run.ended.out, name, cas, room)
        nodes[name] = FileNode(stored, cas.path(stored), executable)
    return nodes
