"""The parameters of actions, one type for each mnemonic that bk itself runs.

They are the last argument of the action, as canonical JSON (`wire.text_of`), so a key covers all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bkrules.model.wire import Message, Wire

if TYPE_CHECKING:
    from bkrules.model.action import Action


@dataclass(frozen=True)
class PytestSettings(Wire):
    """The settings of pytest that decide which tests exist: settings as `-o` takes them, words, folders on Python's path."""

    options: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


DEFAULTS = PytestSettings()


@dataclass(frozen=True)
class AxisValue(Wire):
    """The value of a cell on one axis: the name of the choice, and the value for the test."""

    choice: str
    value: object


@dataclass(frozen=True)
class WorkerUpdate(Wire):
    """Changes of a worker by axis values, without its configuration files.

    `flags` and variables of `environment` are additions, by the name of a daemon. `functions` are `path::name`, called
    in the cell. `mirror` are the faults of the cell's mirror, as `MirrorFaults` reads them.
    """

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    mirror: Mapping[str, object] = field(default_factory=dict)


UNCHANGED = WorkerUpdate()


@dataclass(frozen=True)
class CellLimits(Wire):
    """Limits of a cell: bytes of memory, processes, bytes of its root."""

    memory: int
    pids: int
    disk: int


@dataclass(frozen=True, kw_only=True)
class ExtraWorker(Wire):
    """A worker that a test may start next to the first one. `id` is its name in cells, `unsupported` what it lacks."""

    id: str
    label: str
    plugin: str
    settings: Mapping[str, object]
    unsupported: tuple[str, ...]


def variable_of(worker: str) -> str:
    """Return the part for an extra worker, by its id, in the names of variables of a program."""
    return re.sub("[^A-Z0-9]", "_", worker.upper())


@dataclass(frozen=True, kw_only=True)
class CellParameters(Wire):
    """The parameters of every action that runs in a cell: a plugin's worker with its settings, and the images of the mirror.

    `plugins` are the modules of plugins that act in every cell. `unsupported` are the features that the worker lacks.
    `extra_workers` are those that a test may start. `ext4`: the cell's root is an ext4 in memory, not a tmpfs.
    """

    plugin: str
    settings: Mapping[str, object]
    mirror: tuple[str, ...]
    plugins: tuple[str, ...]
    unsupported: tuple[str, ...]
    limits: CellLimits
    extra_workers: tuple[ExtraWorker, ...] = ()
    ext4: bool = False

    @property
    def workers(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield the plugin's worker and the settings of each worker of the cell."""
        yield self.plugin, self.settings
        for one in self.extra_workers:
            yield one.plugin, one.settings


@dataclass(frozen=True, kw_only=True)
class Session(CellParameters):
    """A worker without a test. `worker` is its id."""

    worker: str
    axes: Mapping[str, AxisValue]


@dataclass(frozen=True)
class TestProgram(Wire):
    """A test that is a program: its command line in the cell, and the variables that bk sets for it alone.

    `is_go`: it is a test binary of Go, which prints its stacks at SIGQUIT. `is_bare`: it starts daemons itself, so the cell
    starts none, and has the storage of the mirror as a folder.
    """

    __test__ = False  # not a test, despite its name

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    is_go: bool = False
    is_bare: bool = False


@dataclass(frozen=True, kw_only=True)
class OneTest(Wire):
    """One test of a module, as pytest calls it, or a program."""

    module: str
    test: str
    pytest: PytestSettings = DEFAULTS
    program: TestProgram | None = None

    @property
    def one_test(self) -> Mapping[str, Any]:
        """These fields alone, by their names."""
        return {field.name: getattr(self, field.name) for field in fields(OneTest)}


@dataclass(frozen=True, kw_only=True)
class TestCell(Session, OneTest):
    """A test on a worker. `update` are the changes of the worker by axis values."""

    __test__ = False  # not a test, despite its name

    isolation: str
    update: WorkerUpdate = UNCHANGED


@dataclass(frozen=True, kw_only=True)
class EstargzImage(CellParameters):
    """Commands that run in a cell; `buildctl` is the worker's."""

    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class CollectTests(PytestSettings):
    """The module whose tests pytest lists, and pytest's settings."""

    module: str


@dataclass(frozen=True)
class CompareBuilds(Wire):
    """The results of one build in several cells, in the order of the inputs, and the differences that are expected.

    `cells` are their names, `points` the worker and the axes of each.
    """

    cells: tuple[str, ...]
    points: tuple[Mapping[str, str], ...]
    expected: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class FetchDeb(Wire):
    """A Debian package of a version, whose .deb has this SHA-256. The outputs of the action are files of it."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class ListGoTests(Wire):
    """The test binary whose tests are listed, and patterns for those of which the subtests are listed too.

    `revision` is that of the runner: it rises when the runner finds other tests, so that no older cached list is used.
    """

    binary: str
    subtests: tuple[str, ...]
    revision: int = 2


@dataclass(frozen=True)
class FetchFile(Wire):
    """A file of the web, whose bytes have this SHA-256."""

    urls: tuple[str, ...]
    sha256: str
    executable: bool


@dataclass(frozen=True)
class FetchWheel(Wire):
    """A wheel of the Python package index, whose bytes have this SHA-256."""

    requirement: str
    sha256: str


@dataclass(frozen=True)
class Image(Wire):
    """An image, by the paths of what its layer has.

    `files` are in the order of the inputs, `noise` has sizes in bytes, `directories` and `modes` have octal digits, `devices`
    `c 1 3`, `owners` `UID:GID`. `whiteouts` and `opaque` are what the base has and the image has not.
    """

    architecture: str
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    files: tuple[str, ...]
    noise: Mapping[str, int]
    symlinks: Mapping[str, str]
    hardlinks: Mapping[str, str]
    directories: Mapping[str, str]
    devices: Mapping[str, str]
    whiteouts: tuple[str, ...]
    opaque: tuple[str, ...]
    modes: Mapping[str, str]
    owners: Mapping[str, str]
    xattrs: Mapping[str, Mapping[str, str]]
    entrypoint: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PullImage(Wire):
    """An image of a registry: its digest, and which platform of an index."""

    digest: str
    platform: str


KINDS: Mapping[str, type[Wire]] = {
    kind.__name__: kind
    for kind in (
        *(CollectTests, CompareBuilds, EstargzImage, FetchDeb, FetchFile, FetchWheel),
        *(Image, ListGoTests, PullImage, Session, TestCell),
    )
}
"""The parameters of each mnemonic. Actions of other mnemonics are commands, whose arguments are words."""


def parameters_of(action: Action, kind: type[Message]) -> Message:
    """Return the parameters of an action whose mnemonic has some. Raises ValueError for malformed arguments."""
    found = KINDS[action.mnemonic].parse(action.parameters)
    assert isinstance(found, kind), f"{action.mnemonic} has no parameters of {kind.__name__}"
    return found
