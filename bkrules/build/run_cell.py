"""Run a cell of another machine on this one, with the inputs that this machine must have itself.

A result is stored under the key of the cell, which has facts of the machine that made it. So this machine refuses a cell
whose key it would not make: with another bk, Python, library or kernel.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import bkrules
from bkrules import __version__
from bkrules.analysis import host_inputs
from bkrules.analysis.cell_inputs import inputs_of_machine
from bkrules.analysis.extra_workers import workers_of
from bkrules.analysis.host_inputs import Machine
from bkrules.build.cancel import Cancel
from bkrules.build.open_context import Prepared, close_context, open_context
from bkrules.build.spare import Spares
from bkrules.cache.action_cache import ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.errors import MachineLacks, did_you_mean
from bkrules.execution import made_outputs
from bkrules.execution.context import RunContext
from bkrules.execution.layout import RESULT
from bkrules.execution.portable import Portable, Reader, unreadable
from bkrules.execution.portable_cell import CELL, CellForm, with_images
from bkrules.model.action import Action, Artifact, FileNode, HostFile, Key, Source, Text
from bkrules.model.digest import Digest
from bkrules.model.status import GOOD, Status
from bkrules.plugin import ask, manager
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import SettingsError, Worker
from bkrules.runners.preflight import check_machine
from bkrules.runners.test_cell import run_test_cell
from bkrules.sandbox import outputs
from bkrules.system import kernel

_SETUID = ("newuidmap", "newgidmap")
"""Commands that act as root for a daemon without rights. An input root has no bit for that."""
_CODE = "bkrules/"
_SHOWN = 5
_SAME = "use machines with the same bk, plugins, Python, libraries and kernel, or run the cell where it was keyed"


@dataclass(frozen=True)
class RemoteCell:
    """A cell of another machine: the action that an engine has, what that says of the cell, and the cell's key.

    `action` is the cell without inputs; `files` are those that its run reads, which may not be on the disk.
    """

    portable: Portable
    form: CellForm
    key: Key
    action: Action
    files: Mapping[str, FileNode]


@dataclass(frozen=True)
class CellRun:
    """The run of a cell. A cache may have its result when it `may_be_kept`; else that has the logs. They are in the CAS."""

    status: Status
    reason: str
    result: ActionResult
    may_be_kept: bool
    log: str


def read(action: Portable, form: CellForm) -> RemoteCell:
    """Return the cell that a portable action runs. Raises RemoteFailed."""
    files = {name: file for name, file in action.inputs.items() if name != CELL}
    try:
        with_images(files, form.parameters.mirror)
        return RemoteCell(action, form, form.key(files), form.action({}), files)
    except ValueError as error:
        raise unreadable(action, error) from error


def run(
    cell: RemoteCell,
    reader: Reader,
    cas: Cas,
    cache: str,
    cancel: Cancel | None = None,
    spares: Spares | None = None,
) -> CellRun:
    """Run a cell; `cache` is the disk cache. Its inputs are fetched once this machine is known to be able to run it.

    Raises MachineLacks, RemoteFailed, ActionFailed, and BkError for a broken plugin.
    """
    _check_versions(cell)
    known = f"{cache}/machine"
    digests = FileDigests(f"{known}/digests")
    machine = host_inputs.load(known, _kernel_key(cell.form.platform))
    plugins = manager.load()
    own = _own(cell, machine, plugins, digests)
    digests.save()
    hosts = {name: host_inputs.find(item.path) for name, item in own.items() if isinstance(item, HostFile)}
    prepared = spares.take(hosts.values()) if spares else None
    with _context(cache, cas, machine, plugins, prepared) as context:
        if cancel is not None:
            cancel.by(context.processes.interrupt)
        action = cell.form.action(own)
        check_machine(action, context)
        for file in cell.files.values():
            cas.intact(file.digest)  # a damaged one is removed, and fetched again
        reader.fetch(cell.portable)
        places = _staged(cell, context, digests)
        nodes = with_images({**cell.files, **places}, cell.form.parameters.mirror)
        nodes |= {name: FileNode(cell.form.machine[name].digest, path) for name, path in hosts.items()}
        commands = {name: HostFile(place) for name, place in cell.form.places.items()}
        others: dict[str, Artifact] = {name: Source(name) for name in nodes}
        began = time.monotonic()
        outcome = run_test_cell(cell.form.action({**others, **own, **commands}), nodes, context)
        if not (outcome.may_be_kept or outcome.status in GOOD):
            outcome = replace(outcome, outputs=_logs(context.cell_folder(cell.action)))
        made = made_outputs.store(cell.action, outcome, cas)
        log = outputs.tail(Path(outcome.outputs["test.log"])) if "test.log" in outcome.outputs else ""
        result = ActionResult(made, time.monotonic() - began)
        return CellRun(outcome.status, outcome.reason, result, outcome.may_be_kept, log)


def _logs(folder: Path) -> dict[str, str]:
    """Return the logs of a cell and its result by their names. A failure may lack other outputs."""
    return {path.name: str(path) for path in (folder / RESULT, *sorted(folder.glob("*.log"))) if path.is_file()}


def _check_versions(cell: RemoteCell) -> None:
    """Raise MachineLacks unless this bk and this Python have the versions of those that made the key."""
    form = cell.form
    for name, theirs, ours in (("bk", form.bk, __version__), ("Python", form.python, platform.python_version())):
        if theirs != ours:
            what = f"the cell {cell.action.title} has a key of {name} {theirs}, but this machine has {name} {ours}"
            raise MachineLacks("other-version", what, hint=f"install {name} {theirs} here")


def _kernel_key(properties: Mapping[str, str]) -> str:
    """Return the value of `--kernel_key` by which a platform was made."""
    release = properties.get("kernel-release")
    if release is None:
        return kernel.NONE
    return kernel.SERIES if kernel.series(release) == release else kernel.RELEASE


def _own(cell: RemoteCell, machine: Machine, plugins: Plugins, digests: FileDigests) -> dict[str, Artifact]:
    """Return the inputs that this machine has itself. Raises MachineLacks when one is another one than in the cell's key."""
    form = cell.form
    workers = {place: _worker(cell, plugins, *each) for place, each in workers_of(form.parameters)}
    own = inputs_of_machine(machine, plugins, workers)
    package = os.path.dirname(bkrules.__file__)
    for name in form.machine.keys() - own.keys():
        path = f"{package}/{name.removeprefix(_CODE)}"
        if name.startswith(_CODE) and os.path.normpath(path) == path and os.path.isfile(path):
            own[name] = HostFile(path)
    theirs = {name: leaf.digest for name, leaf in form.machine.items()}
    theirs |= {
        name: cell.files[name].digest for name, item in own.items() if isinstance(item, Text) and name in cell.files
    }
    ours = {name: _digest(item, digests) for name, item in own.items()}
    differing = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
    facts = machine.platform
    for name in sorted(form.platform.keys() | facts.keys()):
        if form.platform.get(name) != facts.get(name):
            differing.append(f"{name} ({facts.get(name, 'none')} here, {form.platform.get(name, 'none')} there)")
    if form.parameters.ext4 and not machine.host.mke2fs:
        differing.append("mke2fs is missing")
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        what = f"the cell {cell.action.title} has a key of another machine, and these differ here: "
        raise MachineLacks("other-machine", f"{what}{', '.join(differing[:_SHOWN])}{more}", hint=_SAME)
    return own


def _digest(item: Artifact, digests: FileDigests) -> Digest:
    if isinstance(item, Text):
        return item.digest
    assert isinstance(item, HostFile)
    return digests.of(host_inputs.find(item.path))


def _worker(cell: RemoteCell, plugins: Plugins, name: str, settings: Mapping[str, object]) -> Worker:
    """Return a worker of the cell. Raises MachineLacks."""
    kind = plugins.workers.get(name)
    if kind is None:
        what = f"the cell {cell.action.title} needs the worker {name!r}, which no installed plugin has"
        raise MachineLacks("no-worker", what, hint=did_you_mean(name, plugins.workers, "installed"))
    try:
        return ask.made(kind, settings)
    except SettingsError as error:
        what = f"the worker {name!r} of this machine cannot have the settings of the cell {cell.action.title}: {error}"
        raise MachineLacks("other-worker", what, hint=_SAME) from error


def _staged(cell: RemoteCell, context: RunContext, digests: FileDigests) -> dict[str, FileNode]:
    """Return the commands and libraries of the other machine: those that this one has at the same place, and else copies.

    Two of one path are one file, so that the cell has one bind there.
    """
    folder = context.folder.new("commands")
    folder.chmod(0o700)  # a client's file with the setuid bit is for its cell alone
    at: dict[str, str] = {}
    found = {}
    for name, place in cell.form.places.items():
        file = cell.files[name]
        is_setuid = os.path.basename(place) in _SETUID
        if place not in at and not is_setuid and os.path.isfile(place) and digests.of(place) == file.digest:
            at[place] = os.path.realpath(place)
        if place not in at:
            at[place] = str(folder / str(len(at)))
            shutil.copyfile(file.path, at[place])
            os.chmod(at[place], 0o4755 if is_setuid else 0o755)
        found[name] = FileNode(file.digest, at[place])
    return found


@contextmanager
def _context(
    cache: str, cas: Cas, machine: Machine, plugins: Plugins, prepared: Prepared | None
) -> Iterator[RunContext]:
    """Open the context of one cell; its processes end with this context, however that ends."""
    context = open_context(
        cache,
        cas,
        Path(cache),
        lambda: machine,
        plugins,
        1,
        test_timeouts={},
        test_attempts=None,
        prepared=prepared,
    )
    try:
        context.out = context.folder.new("cells")
        context.processes.begin()
        yield context
    finally:
        context.processes.interrupt()
        close_context(context)
