"""A reproduction on this machine: its cell as an action that runs here, and how its inputs differ from those that were recorded.

All that bk takes from a machine in a cell comes from this one: the interpreter, libraries, commands, the code of bk and of
plugins, the registry behind the mirror. The differences have names, so that another outcome has an explanation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bkrules.analysis.cell_inputs import helper_inputs, inputs_of_machine
from bkrules.analysis.extra_workers import workers_of
from bkrules.analysis.host_inputs import HELPERS, Machine, find
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cell.jail import ISOLATION as JAIL
from bkrules.errors import MachineLacks, did_you_mean
from bkrules.execution.portable_cell import with_images
from bkrules.model.action import (
    Action,
    Artifact,
    Cell,
    FileNode,
    HostFile,
    Node,
    Source,
    Text,
)
from bkrules.model.label import LabelError, parse_label
from bkrules.model.parameters import TestCell
from bkrules.model.wire import text_of
from bkrules.plugin import ask
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import SettingsError, Worker
from bkrules.repro.archive import Archive
from bkrules.repro.facts import facts
from bkrules.repro.inputs import PACKAGES, TOOL, is_of_here
from bkrules.repro.manifest import bad
from bkrules.repro.outcome import plain
from bkrules.repro.own_test import own_test
from bkrules.repro.reproduction import Reproduction
from bkrules.rules.cells import SHARED
from bkrules.system.files import text_or_nothing

_IN_CELL = "cell"
_KIB = 1024
_MOST_PACKAGES = 1 << 20


@dataclass(frozen=True)
class Difference:
    """An input that is another one here than it was: its name, and both values in short."""

    name: str
    recorded: str
    here: str


@dataclass(frozen=True)
class CellHere:
    """A recorded cell as an action of this machine, and what differs."""

    action: Action
    inputs: Mapping[str, Node]
    differences: tuple[Difference, ...]


class Here:
    """This machine for replays. With `trusted`, a cell runs as it was recorded, and not in a jail."""

    def __init__(self, machine: Machine, plugins: Plugins, digests: FileDigests, cas: Cas, *, trusted: bool) -> None:
        self._machine, self._plugins, self._digests, self._cas = machine, plugins, digests, cas
        self._trusted = trusted

    def cell(self, recorded: Reproduction, archive: Archive, variables: Mapping[str, str]) -> CellHere:
        """Return the cell of a reproduction, without its registry and without the bytes of its inputs.

        Raises MachineLacks, ActionFailed, and WorkerFault.
        """
        _check_architecture(recorded)
        workers = {name: self._worker(*each) for name, each in workers_of(recorded.parameters)}
        own = {**self._own(workers), **self._commands(recorded)}
        if recorded.build is not None:
            own |= own_test()
        given = {
            name: FileNode(file.digest, self._cas.path(recorded.content(name)), file.executable)
            for name, file in recorded.files.items()
            if not is_of_here(name) and name not in own
        }
        inputs: dict[str, Node] = {**_folders(given, recorded.parameters), **self._nodes(own)}
        parameters_here = self._parameters(recorded.parameters, workers)
        action = self._action(recorded, parameters_here, variables, inputs, own)
        differences = [*self._differences(recorded, action, own, inputs), *self._packages(recorded, archive)]
        return CellHere(action, inputs, tuple(differences))

    def _packages(self, recorded: Reproduction, archive: Archive) -> Iterator[Difference]:
        """Yield the distributions of the cell's environment that are others here."""
        name = recorded.files[PACKAGES].digest if PACKAGES in recorded.files else None
        if name is not None and archive.has(name):
            text = archive.read(name, _MOST_PACKAGES).decode(errors="replace")
            yield from packages(text, self._machine.packages)

    def _worker(self, plugin: str, settings: Mapping[str, object]) -> Worker:
        kind = self._plugins.workers.get(plugin)
        if kind is None:
            hint = did_you_mean(plugin, self._plugins.workers, "installed")
            raise MachineLacks("no-worker", f"no installed plugin has the worker {plugin!r} of the file", hint=hint)
        try:
            worker = ask.made(kind, settings)
        except SettingsError as error:
            raise bad(f"the worker {plugin!r} of this bk cannot have its settings: {error}") from error
        if not self._trusted and (reason := ask.no_jail(worker)):
            hint = "--trust runs it as it was recorded, with the rights of the machine's root: SECURITY.md"
            raise MachineLacks("no-jail", f"{plugin!r} cannot run in a jail with these settings: {reason}", hint=hint)
        return worker

    def _own(self, workers: Mapping[str, Worker]) -> dict[str, Artifact]:
        """Return the inputs that are this machine's in every cell with these workers."""
        found = inputs_of_machine(self._machine, self._plugins, workers)
        for worker in workers.values():
            found |= helper_inputs(self._machine, ask.host_tools(worker))
        return found

    def _commands(self, recorded: Reproduction) -> dict[str, Artifact]:
        """Return the tools that are commands of the machine. They are looked for by their names alone. Raises MachineLacks."""
        found: dict[str, Artifact] = {}
        for name, command in recorded.manifest.machine.items():
            if name not in recorded.files or "/" in command or is_of_here(name) or name == TOOL:
                raise bad(f"its input {name!r} is no command of a machine")
            path = find(command)
            found[name] = HostFile(path, executable=True)
            libraries = helper_inputs(self._machine, [path])
            found |= {place: file for place, file in libraries.items() if place.startswith(f"{HELPERS}lib/")}
        return found

    def _nodes(self, own: Mapping[str, Artifact]) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for name, item in own.items():
            if isinstance(item, Text):
                nodes[name] = FileNode(item.digest, self._cas.path(self._cas.put(item.read())))
            elif isinstance(item, HostFile):
                path = find(item.path)
                nodes[name] = FileNode(self._digests.of(path), path, item.executable)
        return nodes

    def _parameters(self, recorded: TestCell, workers: Mapping[str, Worker]) -> TestCell:
        available, most = _memory(), max(recorded.limits.memory, recorded.limits.disk)
        if available and most > available:
            what = f"its cell may use {most >> 20} MiB of memory, and this machine has {available >> 20}"
            raise MachineLacks("no-memory", what, hint="replay it on a larger machine")
        isolation = _IN_CELL if recorded.isolation == SHARED else recorded.isolation
        return replace(
            recorded,
            plugins=tuple(self._plugins.in_cells),
            isolation=isolation if self._trusted else JAIL,
            ext4=any(worker.wants_ext4 for worker in workers.values()) and bool(self._machine.host.mke2fs),
        )

    def _action(
        self,
        recorded: Reproduction,
        here: TestCell,
        variables: Mapping[str, str],
        inputs: Mapping[str, Node],
        own: Mapping[str, Artifact],
    ) -> Action:
        manifest = recorded.manifest
        try:
            label = parse_label(manifest.matrix)
        except LabelError as error:
            raise bad(f"the label of its matrix is malformed: {error}") from error
        jail = here.isolation == JAIL
        return Action(
            id=recorded.title,
            label=label,
            mnemonic="TestCell",
            arguments=(text_of(here),),
            inputs=tuple((name, own.get(name, Source(name))) for name in sorted(inputs)),
            outputs=recorded.outputs,
            environment=tuple(sorted({**recorded.environment, **variables}.items())),
            platform=tuple(sorted(self._machine.platform.items())),
            timeout=recorded.timeout,
            cell=Cell(label, manifest.test, manifest.worker, manifest.axes, jail=jail),
        )

    def _differences(
        self, recorded: Reproduction, action: Action, own: Mapping[str, Artifact], inputs: Mapping[str, Node]
    ) -> Iterator[Difference]:
        before = {name: file.digest for name, file in recorded.files.items() if is_of_here(name) or name in own}
        after = {name: node.digest for name, node in inputs.items() if name in own}
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name) and name != PACKAGES:
                yield Difference(name, str(before.get(name, "absent")), str(after.get(name, "absent")))
        platform = dict(action.platform)
        for name in sorted(platform.keys() | recorded.platform.keys()):
            if platform.get(name) != recorded.platform.get(name):
                yield Difference(f"platform/{name}", recorded.platform.get(name, ""), platform.get(name, ""))
        then, now = recorded.parameters, TestCell.parse(action.parameters)
        for name in ("isolation", "plugins", "ext4"):
            if getattr(then, name) != getattr(now, name):
                yield Difference(name, str(getattr(then, name)), str(getattr(now, name)))


def _check_architecture(recorded: Reproduction) -> None:
    """Raise MachineLacks for a file of a machine whose binaries do not run here."""
    theirs, ours = recorded.manifest.facts.get("architecture", ""), facts()["architecture"]
    if theirs not in ("", ours):
        what = f"it was recorded on a machine of the architecture {plain(theirs)}, and this one is {ours}"
        raise MachineLacks("other-architecture", what, hint=f"replay it on a machine that is {plain(theirs)}")


def packages(before: str, after: str) -> Iterator[Difference]:
    """Yield the distributions that differ between two lists of a cell's environment, `name-version digest` a line."""
    then, now = (dict(line.partition(" ")[::2] for line in text.splitlines()) for text in (before, after))
    for name in sorted(then.keys() ^ now.keys()):
        yield Difference(
            f"{PACKAGES}/{name}", "installed" if name in then else "absent", "installed" if name in now else "absent"
        )
    for name in sorted(then.keys() & now.keys()):
        if then[name] != now[name]:
            yield Difference(f"{PACKAGES}/{name}", then[name], now[name])


def _folders(files: Mapping[str, FileNode], recorded: TestCell) -> dict[str, Node]:
    """Return inputs with each image of the mirror as one folder. Raises ActionFailed for a file that belongs to none."""
    try:
        return with_images({name: file for name, file in files.items() if name != TOOL}, recorded.mirror)
    except ValueError as error:
        raise bad(str(error)) from error


def _memory() -> int:
    """Return the memory of this machine in bytes; 0 when it is unknown."""
    words = text_or_nothing("/proc/meminfo").split()
    return int(words[1]) * _KIB if words[:1] == ["MemTotal:"] else 0
