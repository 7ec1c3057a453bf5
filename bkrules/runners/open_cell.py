"""A cell from bk's side: binds and copies of its inputs, its mirror's connection to a registry, and its messages."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from bkrules.analysis.cell_inputs import PACKAGES
from bkrules.analysis.extra_workers import FOLDER
from bkrules.analysis.host_inputs import COMMANDS, HELPERS, REGISTRY
from bkrules.analysis.test_programs import MIRROR_FOLDER
from bkrules.cell.protocol import CellResult, CellSpec, ExtraSpec, Mirror, Program, Ready, TestRequest, said_to_bk
from bkrules.errors import Interrupted
from bkrules.execution.context import RunContext
from bkrules.mirror.faults import MirrorFaults
from bkrules.mirror.record import Counted
from bkrules.mirror.registry import Registry
from bkrules.model.action import Action, DirectoryNode, FileNode, HostFile, Node
from bkrules.model.parameters import (
    UNCHANGED,
    CellParameters,
    EstargzImage,
    ExtraWorker,
    Session,
    TestCell,
    parameters_of,
)
from bkrules.model.reference import Reference
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire
from bkrules.plugin import ask
from bkrules.plugin.worker import Worker
from bkrules.runners.pulled import keep, pulled
from bkrules.sandbox.cgroups import Cgroups
from bkrules.sandbox.ipc import send
from bkrules.sandbox.started import Started

EXTRA = "/opt/bk/extra"
"""The folder in a cell with the binaries and the configuration of each extra worker, by its id."""
PACKAGES_ROOT = "/opt/bk/packages"
"""The folder in a cell with the files of packages. The paths of a package are links to them: a link is cheaper than a mount."""
PATIENCE_OF_USERS = 86400.0
"""The limit in seconds for a test that a user debugs."""
_GRACE = 30.0
_NOTICE = 0.1


def run_in_cell(
    action: Action, inputs: Mapping[str, Node], context: RunContext, out: str, program: Program
) -> CellResult:
    """Run the program of an action in a new cell. Return the cell's result. `out` gets its logs and outputs."""
    with open_cell(action, inputs, context, out, program) as cell:
        result = cell.result(context.timeout(action))
        requests = cell.new_requests()
    if program == Program.TEST:
        keep(requests, out)
    return replace(result, pulled=pulled(requests))


@dataclass
class OpenCell:
    """A running cell."""

    started: Started
    registry: Registry
    context: RunContext
    handles: list[int]
    faults: MirrorFaults | None = None
    _returned: dict[int, int] = field(default_factory=dict)

    def new_requests(self) -> list[Counted]:
        """Return the requests to the cell's mirrors since the last call, in the order of their answers."""
        requests: list[Counted] = []
        for handle in self.handles:
            record = self.context.for_cells().mirror.record(handle)
            requests += record[self._returned.get(handle, 0) :]
            self._returned[handle] = len(record)
        return requests

    def ask(self, message: Wire, *descriptors: int) -> None:
        """Send a request to the cell's first process. Raises OSError when the cell has ended."""
        send(self.started.channel, message, descriptors)

    def message(self, timeout: float) -> Ready | CellResult:
        """Return the cell's next message, or a failure without one. Raises Interrupted."""
        deadline = time.monotonic() + timeout + _GRACE
        try:
            while isinstance(message := self._next(deadline), Mirror):
                continue
        except TimeoutError:
            reason = "the cell did not end in time, and was ended"
            return CellResult(Status.TIMED_OUT, FailureClass.INFRASTRUCTURE, reason)
        except ValueError as error:
            return _lost(f"its supervisor sent a message that bk cannot read: {error}")
        return message or _lost(f"the cell ended without a result{self.context.processes.fate()}")

    def result(self, timeout: float) -> CellResult:
        """Return the next result of the cell, or a failure without one. Raises Interrupted."""
        result = self.message(timeout)
        if isinstance(result, Ready):
            result = _lost("its supervisor sent 'ready' in the place of a result")
        if result.status == Status.FAILED and self.registry.has_ended(_NOTICE):
            reason = f"the mirror's registry ended; {result.reason}"
            result = replace(result, failure=FailureClass.INFRASTRUCTURE, reason=reason)
        for crowded in filter(None, map(self.context.for_cells().mirror.crowded, self.handles)):
            reason = f"{crowded}; {result.reason}" if result.reason else crowded
            status = Status.FAILED if result.status == Status.PASSED else result.status
            result = replace(result, status=status, failure=FailureClass.RESOURCES, reason=reason)
        unmet = self.faults is not None and not any(map(self.context.for_cells().mirror.reached, self.handles))
        return replace(result, unlimited=self.context.machine().host.unlimited(), unmet=unmet)

    def _next(self, deadline: float) -> Mirror | Ready | CellResult | None:
        """Return the next message; None at the end. A mirror is joined. Raises TimeoutError, ValueError and Interrupted."""
        document, descriptors = self.started.next(max(0.001, deadline - time.monotonic()))
        if document is None and self.context.processes.interrupted:
            raise Interrupted("interrupted", "the cell was ended")
        if document is None:
            return None
        message = said_to_bk(document)
        if isinstance(message, Mirror):
            if len(descriptors) != 1:
                raise ValueError("it comes without the socket of the mirror")
            self.handles.append(self.context.for_cells().mirror.add(descriptors[0], self.registry.target, self.faults))
        return message


def _lost(reason: str) -> CellResult:
    return CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE, reason)


@contextmanager
def open_cell(
    action: Action,
    inputs: Mapping[str, Node],
    context: RunContext,
    out: str,
    program: Program,
    folders: Sequence[tuple[str, str]] = (),
    traced: Sequence[str] = (),
) -> Iterator[OpenCell]:
    """Open a cell for as long as the context lasts. The daemons `traced` run under strace.

    It sees `folders` of the machine too, at the second path of each pair, where they hide its own.
    """
    staged = _staged(action, inputs)
    name = context.folder.new_name()
    host = context.machine().host
    controllers = {controller: f"{folder}/{name}" for controller, folder in host.controllers.items()}
    groups = Cgroups(f"{host.cgroup}/{name}", controllers)
    configuration = inputs[REGISTRY]
    assert isinstance(configuration, FileNode)
    registry = context.for_cells().registries.get(staged.images, staged.tools["registry"], configuration)
    spec = _spec(action, context, program, staged, registry.storage, folders)
    if program == Program.DEBUGGED:
        assert spec.test is not None
        spec = replace(spec, timeout=PATIENCE_OF_USERS, test=replace(spec.test, timeout=PATIENCE_OF_USERS))
    spec = replace(spec, out=out, cgroup=groups.path, limited=groups.limited, traced=tuple(traced))
    parameters = parameters_of(action, CellParameters)
    update = parameters.update if isinstance(parameters, TestCell) else UNCHANGED
    handles: list[int] = []
    faults = MirrorFaults.read(update.mirror) if update.mirror else None
    try:
        with context.folder.owned(name, groups.folders):
            with context.processes.cell(spec) as started:
                yield OpenCell(started, registry, context, handles, faults)
            with suppress(OSError):  # the supervisor removes them, unless it had to be killed
                groups.remove()
    finally:
        for handle in handles:
            context.for_cells().mirror.remove(handle)


def _spec(
    action: Action,
    context: RunContext,
    program: Program,
    staged: _Staged,
    storage: str,
    folders: Sequence[tuple[str, str]],
) -> CellSpec:
    """Return a cell without its places on this machine. `storage` is the folder with the storage of its mirror."""
    parameters = parameters_of(action, CellParameters)
    extra = tuple(_extra(one, context) for one in parameters.extra_workers)
    shown = [*((path, path) for path in context.machine().binds), *folders]
    binds = [*shown, *staged.binds, (context.tool_folder(staged.tools), "/opt/bk/bin")]
    binds += [(context.tool_folder(staged.extra[one.id]), f"{one.folder}/bin") for one in extra]
    if staged.packages:
        binds.append((context.tool_folder(staged.packages), PACKAGES_ROOT))
    request = test_request(action, context) if isinstance(parameters, TestCell) and program != Program.TESTS else None
    if request is not None and request.program is not None and request.program.is_bare:
        binds.append((storage, f"{MIRROR_FOLDER}/data"))
    return CellSpec(
        program=program,
        name=action.title,
        worker=parameters.worker if isinstance(parameters, Session) else parameters.plugin,
        worker_class=_place_of(context.plugins.workers[parameters.plugin]),
        settings=parameters.settings,
        unsupported=parameters.unsupported,
        limits=parameters.limits,
        python_path=tuple(sorted(staged.python_path)),
        modules=tuple(_modules(parameters, context)),
        plugins=parameters.plugins,
        owners=context.plugins.owners,
        environment={**dict(action.environment), "GOMAXPROCS": str(_go_threads(context.jobs))},
        timeout=context.timeout(action),
        root=str(context.folder.root),
        views=str(context.folder.views),
        out="",
        cgroup="",
        limited={},
        binds=outermost(binds),
        copies=tuple(staged.copies),
        links=(
            *interpreter_links(tuple(place for _, place in shown)),
            *_package_links(staged, [f"{place}/" for _, place in folders]),
        ),
        isolation=parameters.isolation if isinstance(parameters, TestCell) else "",
        update=replace(parameters.update, mirror={}) if isinstance(parameters, TestCell) else UNCHANGED,
        test=request,
        commands=parameters.commands if isinstance(parameters, EstargzImage) else (),
        extra_workers=extra,
        mke2fs=(context.machine().host.mke2fs or "mke2fs") if parameters.ext4 else "",
    )


def _place_of(kind: type[Worker]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _modules(parameters: CellParameters, context: RunContext) -> Iterator[str]:
    """Yield the modules that the workers of a cell run."""
    for plugin, settings in parameters.workers:
        yield from ask.modules(ask.made(context.plugins.workers[plugin], settings))


def _extra(one: ExtraWorker, context: RunContext) -> ExtraSpec:
    """Return an extra worker as its cell is told."""
    return ExtraSpec(
        id=one.id,
        label=one.label,
        worker_class=_place_of(context.plugins.workers[one.plugin]),
        settings=one.settings,
        unsupported=one.unsupported,
        folder=f"{EXTRA}/{one.id}",
    )


def test_request(action: Action, context: RunContext) -> TestRequest:
    """Return the test that a TestCell runs, as its cell is told."""
    parameters = parameters_of(action, TestCell)
    return TestRequest(
        name=action.title,
        worker=parameters.worker,
        axes=parameters.axes,
        timeout=context.timeout(action),
        **parameters.one_test,
    )


_MERGED = ("bin/", "sbin/", "lib/", "lib64/")
"""The folders that are below /usr in a cell."""


@dataclass
class _Staged:
    """The inputs of an action as its cell sees them."""

    binds: list[tuple[str, str]] = field(default_factory=list)
    copies: list[tuple[str, str, bool]] = field(default_factory=list)
    python_path: set[str] = field(default_factory=set)
    tools: dict[str, FileNode] = field(default_factory=dict)
    images: dict[Reference, DirectoryNode] = field(default_factory=dict)
    extra: dict[str, dict[str, FileNode]] = field(default_factory=dict)
    packages: dict[str, FileNode] = field(default_factory=dict)


def _staged(action: Action, inputs: Mapping[str, Node]) -> _Staged:
    staged = _Staged()
    declared = dict(action.inputs)
    for path, node in inputs.items():
        top, _, rest = path.partition("/")
        source = declared[path]
        if isinstance(node, DirectoryNode):
            host, _, place = rest.partition("/")
            repository, _, tag = place.rpartition("/")
            staged.images[Reference(host, repository, tag)] = node
        elif top == "tools":
            staged.tools[rest] = node
        elif top == FOLDER:
            name, kind, place = rest.split("/", 2) if rest.count("/") > 1 else (rest, "", "")
            if kind == "tools":
                staged.extra.setdefault(name, {})[place] = node
            elif kind == "config":
                staged.copies.append((node.path, f"{EXTRA}/{name}/config/{place}", node.executable))
        elif top == "config":
            staged.copies.append((node.path, f"/etc/bk/{rest}", node.executable))
        elif path.startswith(PACKAGES):
            staged.packages[rest] = node
        elif top in ("src", "updaters"):
            staged.copies.append((node.path, f"/{path}", node.executable))
        elif top == "plugin" and isinstance(source, HostFile):
            place, shown = _on_path(rest, source.path)
            staged.python_path.add(place)
            staged.binds.append((shown, shown))
        elif top == "host" and isinstance(source, HostFile):
            staged.binds.append((node.path, _place(path, source.path)))
    return staged


def _package_links(staged: _Staged, hidden: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the links to the files of packages, without libraries that bk takes from this machine, and those below `hidden`."""
    machine = {os.path.basename(target) for _, target in staged.binds}
    for path in staged.packages:
        place = f"/usr/{path}" if path.startswith(_MERGED) else f"/{path}"
        if os.path.basename(path) not in machine and not place.startswith(tuple(hidden)):
            yield f"/{path}", f"{PACKAGES_ROOT}/{path}"


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


def outermost(binds: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the binds that no other bind contains, sorted so that folders come before their contents."""
    outer: list[tuple[str, str]] = []
    for source, target in sorted(set(binds), key=lambda pair: pair[1]):
        if not any(target.startswith(f"{above}/") and source == target and first == above for first, above in outer):
            outer.append((source, target))
    return tuple(outer)


def interpreter_links(binds: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the symbolic links between the environment's interpreter and the real one that no bind shows."""
    links = [("/usr/bin/python3", sys.executable)]
    path = sys.executable
    while os.path.islink(path):
        link = os.readlink(path)
        links.append((path, link))
        path = os.path.join(os.path.dirname(path), link)
    return tuple((path, link) for path, link in links if not any(path.startswith(f"{folder}/") for folder in binds))
