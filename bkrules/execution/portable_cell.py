"""Portable cells: a cell as an action that another machine can run, with the same bk.

The key of a cell covers other bytes than its run reads: of a test's module it has a part, of a binary of Go what one test
reaches, and it has files that each machine must have itself, such as the interpreter. So a cell has two forms. Caches know it
by the key. An engine gets an action with the bytes that the run reads, and with the file `CELL`, which says the rest: a
runner computes the key from that action, and stores the result under it.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Self

from bkrules import __version__
from bkrules.analysis.host_inputs import HELPERS
from bkrules.cache.cas import Cas
from bkrules.model.action import (
    Action,
    Artifact,
    Cell,
    DirectoryNode,
    FileNode,
    HostFile,
    HostFolder,
    Key,
    Node,
    Source,
    key_of,
)
from bkrules.model.digest import Digest
from bkrules.model.label import parse_label
from bkrules.model.parameters import TestCell
from bkrules.model.reference import parse_reference
from bkrules.model.resources import LIMITS
from bkrules.model.wire import Wire, text_of

CELL = "bk/cell"
"""The file of the input root that describes the cell. It is the first argument of the command, too."""
OUT = "out/"
"""The folder of the input root in which a portable action makes its outputs."""
PRIVILEGED = "bk:privileged"
"""The property of a machine where bk is root, as each cell needs."""
ISA = {"x86_64": "x86-64", "aarch64": "arm-a64", "riscv64": "risc-v-64", "s390x": "s390x", "ppc64le": "ppc64le"}
"""The values of REAPI's property `ISA`, by the kernel's names."""
MNEMONIC = "TestCell"
_OF_MACHINE = ("bkrules/", "host/", "plugin/")
"""The folders of inputs that each machine must have itself, except its commands."""
_MIRROR = "mirror/"
_RUNS = 3
"""The most runs of a cell, with those after a failure, for the time in which an engine has to end it."""
_HASH = re.compile("[0-9a-f]{64}").fullmatch


def _is_place(path: str) -> bool:
    return path.startswith("/") and os.path.normpath(path) == path and "\0" not in path


@dataclass(frozen=True)
class Leaf(Wire):
    """A file as a key has it: the digest of its bytes, and whether it is executable."""

    hash: Annotated[str, _HASH]
    size: Annotated[int, lambda size: size >= 0]
    executable: bool = False

    @classmethod
    def of(cls, node: FileNode) -> Self:
        """Return the leaf of a file."""
        return cls(node.digest.hash, node.digest.size, node.executable)

    @property
    def digest(self) -> Digest:
        """The digest."""
        return Digest(self.hash, self.size)


@dataclass(frozen=True, kw_only=True)
class CellForm(Wire):
    """A cell without its files. `bk` and `python` are the versions of the machine that made its key.

    `machine` are the inputs that a machine must have itself; `covered` is what the key has in the place of files; `places` are
    the absolute paths of the commands and libraries among the files. `outputs` are all outputs, of which `folders` are folders,
    and `optional` need not be made. `timeout` is in seconds.
    """

    bk: str
    python: str
    label: str
    test: str
    worker: str
    axes: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    platform: Mapping[str, str]
    outputs: tuple[str, ...]
    folders: tuple[str, ...]
    optional: tuple[str, ...]
    timeout: int
    machine: Mapping[str, Leaf]
    covered: Mapping[str, Leaf]
    places: Mapping[str, Annotated[str, _is_place]]
    flaky: bool = False
    jail: bool = False
    size: str = "medium"

    @property
    def parameters(self) -> TestCell:
        """The parameters of the cell. Raises ValueError."""
        return TestCell.parse(json.loads(self.arguments[-1]) if self.arguments else None)

    def action(self, inputs: Mapping[str, Artifact]) -> Action:
        """Return the cell as its key has it, with these inputs. Raises ValueError."""
        label = parse_label(self.label)
        return Action(
            id=f"{label} {MNEMONIC} {self.test}",
            label=label,
            mnemonic=MNEMONIC,
            arguments=self.arguments,
            inputs=tuple(sorted(inputs.items(), key=lambda item: item[0])),
            outputs=self.outputs,
            environment=tuple(sorted(self.environment.items())),
            platform=tuple(sorted(self.platform.items())),
            timeout=self.timeout,
            cell=Cell(label, self.test, self.worker, self.axes, flaky=self.flaky, jail=self.jail, size=self.size),
            folders=self.folders,
            optional=self.optional,
        )

    def key(self, files: Mapping[str, FileNode]) -> Key:
        """Return the key of the cell, whose run reads these files. Raises ValueError."""
        known = {**self.machine, **self.covered}
        leaves: dict[str, Node] = {name: FileNode(leaf.digest, "", leaf.executable) for name, leaf in known.items()}
        return key_of(self.action({}), {**files, **leaves})


def is_portable(action: Action) -> bool:
    """Return whether an action can run elsewhere: a command, or a test in a cell."""
    if action.made_in:
        return True
    runs = action.mnemonic == MNEMONIC and not (action.fault or (action.cell and action.cell.skip))
    return runs and not any(isinstance(item, HostFolder) for _, item in action.inputs)


def portable(
    action: Action, covered: Mapping[str, Node], read: Mapping[str, Node], cas: Cas
) -> tuple[Action, dict[str, Node]]:
    """Return the form of a cell, or of a command, that an engine runs, and its inputs.

    `covered` are the inputs as the key has them, and `read` those with the bytes that the run reads.
    """
    if action.made_in:
        return action, dict(read)
    assert action.cell is not None
    cell, machine, differing, places = action.cell, {}, {}, {}
    inputs: dict[str, Node] = {}
    for name, item in action.inputs:
        node = covered[name]
        is_command = name.startswith(HELPERS)
        if isinstance(item, HostFile) and isinstance(node, FileNode):
            if name.startswith(_OF_MACHINE) and not is_command:
                machine[name] = Leaf.of(node)
                continue
            if is_command:
                places[name] = item.path if item.path.startswith("/") else node.path
        inputs[name] = read[name]
        if isinstance(node, FileNode) and node.digest != read[name].digest:
            differing[name] = Leaf.of(node)
    form = CellForm(
        bk=__version__,
        python=platform.python_version(),
        label=str(action.label),
        test=cell.test,
        worker=cell.worker,
        axes=cell.axes,
        arguments=action.arguments,
        environment=dict(action.environment),
        platform=dict(action.platform),
        outputs=action.outputs,
        folders=action.folders,
        optional=action.optional,
        timeout=action.timeout,
        machine=machine,
        covered=differing,
        places=places,
        flaky=cell.flaky,
        jail=cell.jail,
        size=cell.size,
    )
    document = cas.put(text_of(form).encode())
    inputs[CELL] = FileNode(document, cas.path(document))
    kernel = os.uname()
    properties = {"ISA": ISA.get(kernel.machine, kernel.machine), "OSFamily": "linux", PRIVILEGED: "true"}
    whole = Action(
        id=action.id,
        label=action.label,
        mnemonic=MNEMONIC,
        arguments=(CELL,),
        inputs=tuple((name, Source(name)) for name in sorted(inputs)),
        outputs=action.outputs,
        platform=tuple(sorted(properties.items())),
        folders=action.folders,
        optional=action.optional,
        limits=replace(LIMITS, timeout=max(LIMITS.timeout, _RUNS * action.timeout)),
        made_in=OUT.rstrip("/"),
    )
    return whole, inputs


def read_form(data: bytes) -> CellForm:
    """Return the form in untrusted bytes. Raises ValueError."""
    try:
        form = CellForm.parse(json.loads(data))
        form.action({})
        return form
    except RecursionError as error:
        raise ValueError("it is too deep") from error


def with_images(files: Mapping[str, FileNode], mirror: tuple[str, ...]) -> dict[str, Node]:
    """Return inputs with each image of the mirror as one folder. Raises ValueError for a file that belongs to none."""
    references = map(parse_reference, mirror)
    places = [f"{_MIRROR}{each.host}/{each.repository}/{each.tag}/" for each in references]
    found: dict[str, Node] = {}
    images: dict[str, dict[str, FileNode]] = {place: {} for place in places}
    for name, file in files.items():
        place = next((place for place in places if name.startswith(place)), None)
        if place is not None:
            images[place][name.removeprefix(place)] = file
        elif name.startswith(_MIRROR):
            raise ValueError(f"{name!r} belongs to no image of its mirror")
        else:
            found[name] = file
    return {**found, **{place[:-1]: DirectoryNode(image) for place, image in images.items()}}
