"""The manifest of a reproduction: what the file says besides the action of the cell, in JSON.

The action itself is in the file as the Remote Execution API has it: an Action, its Command, and the Tree of its input root.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar

from bkrules.errors import ActionFailed
from bkrules.model.digest import Digest
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire


class Kind(StrEnum):
    """The content of a file: a cell of a matrix, or a user's own build."""

    CELL = "cell"
    BUILD = "build"


SCHEMAS = {Kind.CELL: 1, Kind.BUILD: 2}
"""The version of the format of each kind. It rises when an older bk would misread a file."""
MOST = 4 << 20
"""The limit in bytes of a manifest."""
_HASH = re.compile("[0-9a-f]{64}").fullmatch


@dataclass(frozen=True)
class Blob(Wire):
    """Some bytes by their digest: `hash` is lower-case hexadecimal, `size` is in bytes."""

    hash: Annotated[str, _HASH]
    size: Annotated[int, lambda size: size >= 0]

    @property
    def digest(self) -> Digest:
        """The digest."""
        return Digest(self.hash, self.size)


def blob(name: Digest) -> Blob:
    """Return a digest as a manifest has it."""
    return Blob(name.hash, name.size)


@dataclass(frozen=True)
class Made(Wire):
    """An input that is not in the file: an output of a target, whose bytes have this digest."""

    label: str
    output: str
    content: Blob


@dataclass(frozen=True, kw_only=True)
class Recorded(Wire):
    """How the cell ended. `place` is the `file:line` of the failure in the workspace, if any; `logs` are files by their names."""

    NAMES: ClassVar = {"failure": "class"}

    status: Status
    failure: FailureClass = FailureClass.NONE
    reason: str = ""
    place: str = ""
    seconds: float = 0.0
    logs: Mapping[str, Blob] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest(Wire):
    """A reproduction of a cell, or of a user's own build, which ran as a cell. The build has no options `left_out`, each with
    the reason.

    `bk` is the version that wrote it; `commit` that of the workspace, with uncommitted changes if it `changed`. `matrix`,
    `test`, `worker` and `axes` name the cell, `plugin` the distribution of its worker. `action` and `tree` are blobs of
    the file.

    `contents` has the bytes that a test reads where the key covers another digest: that of a part of a test module. `made` are
    inputs that targets of the workspace make, `machine` inputs that are commands of the machine, by their names.
    `facts` describe the machine. `variables` are the names of `--test_env`, whose values are not in the file.
    """

    schema: int
    bk: str
    matrix: str
    test: str
    worker: str
    axes: tuple[tuple[str, str], ...]
    plugin: str
    action: Blob
    tree: Blob
    result: Recorded
    contents: Mapping[str, Blob] = field(default_factory=dict)
    made: Mapping[str, Made] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    commit: str = ""
    changed: bool = False
    kind: Kind = Kind.CELL
    left_out: tuple[str, ...] = ()


def bad(problem: str) -> ActionFailed:
    """Return the error of a file that is no reproduction, or a damaged or a forged one."""
    return ActionFailed("bad-reproduction", problem, hint="a file of `bk repro` or `bk record` is needed")


def read(data: bytes) -> Manifest:
    """Return the manifest in untrusted bytes. Raises ActionFailed."""
    try:
        document = json.loads(data)
        schema = document.get("schema") if isinstance(document, dict) else None
        if isinstance(schema, int) and schema not in SCHEMAS.values():
            what = f"its format is {schema}, and this bk reads formats up to {max(SCHEMAS.values())}"
            raise ActionFailed("bad-reproduction", what, hint="use the bk that wrote it, or a newer one")
        manifest = Manifest.parse(document)
    except (ValueError, RecursionError) as error:
        raise bad(f"its manifest is malformed: {error}") from error
    if manifest.schema != SCHEMAS[manifest.kind]:
        raise bad(f"its format is {manifest.schema}, which no {manifest.kind} has")
    return manifest


def write(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    return json.dumps(manifest.to(), indent=1, sort_keys=True).encode() + b"\n"
