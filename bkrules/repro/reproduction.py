"""A reproduction as it is read: parsed, checked, and before anything of it is used.

The file comes from a stranger. Bytes are believed by their digests, names by the list of what a cell may be given, and all that
bk itself runs outside of the cell is never taken from the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bkrules.analysis.cell_inputs import COVERAGE
from bkrules.analysis.runs import ENVIRONMENT
from bkrules.cache.results import MOST_MESSAGES, MOST_TREE, read_tree
from bkrules.cell.coverage import COVERAGE as COVERAGE_VARIABLE
from bkrules.declarative.own_build import REQUEST, TEST, OwnBuild, archive_of, read_build
from bkrules.mirror.faults import MirrorFaults
from bkrules.model import reapi
from bkrules.model.action import FileNode, from_message, merkle
from bkrules.model.digest import Digest
from bkrules.model.parameters import TestCell
from bkrules.model.reference import parse_reference
from bkrules.repro.archive import Archive
from bkrules.repro.inputs import is_of_here, may_be_given
from bkrules.repro.manifest import Kind, Manifest, bad, read

_MOST_MESSAGE = 4 << 20
_MNEMONIC = "TestCell"
_FIXED = {**ENVIRONMENT, COVERAGE_VARIABLE: f"/out/{COVERAGE}"}
_COUNTED = ("TEST_RUN_NUMBER", "TEST_RANDOM_SEED")
_ID = re.compile(r"(?!\.)[^/\s\0]{1,100}").fullmatch
_LONGEST_TIME = 6 * 3600
_MOST_PIDS = 1 << 20


@dataclass(frozen=True)
class Reproduction:
    """A cell that was recorded: `files` are its inputs, whose bytes may not be on the disk, `timeout` is in seconds.

    `build` is that of a user, which the cell runs.
    """

    manifest: Manifest
    parameters: TestCell
    environment: Mapping[str, str]
    platform: Mapping[str, str]
    outputs: tuple[str, ...]
    timeout: int
    files: Mapping[str, FileNode]
    build: OwnBuild | None = None

    @property
    def title(self) -> str:
        """The name of the cell."""
        manifest = self.manifest
        axes = (f"{axis}={choice}" for axis, choice in manifest.axes)
        return "/".join([manifest.test, f"worker={manifest.worker}", *axes])

    def content(self, name: str) -> Digest:
        """Return the digest of the bytes that the cell reads as this input."""
        shown = self.manifest.contents.get(name)
        return shown.digest if shown else self.files[name].digest


def open_reproduction(archive: Archive, place: Callable[[Digest], str]) -> Reproduction:
    """Return the reproduction in a file; `place` returns the path of a blob in the disk cache. Raises ActionFailed."""
    manifest = read(archive.manifest)
    try:
        return _read(archive, manifest, place)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise bad(f"its action is malformed: {error}") from error


def _read(archive: Archive, manifest: Manifest, place: Callable[[Digest], str]) -> Reproduction:
    action = reapi.decode("Action", archive.read(manifest.action.digest, _MOST_MESSAGE), MOST_MESSAGES)
    data = archive.read(from_message(action["command_digest"]), _MOST_MESSAGE)
    command = reapi.decode("Command", data, MOST_MESSAGES)
    files = read_tree(archive.read(manifest.tree.digest, MOST_TREE), place)
    if merkle(files)[0] != from_message(action["input_root_digest"]):
        raise bad("its inputs are not those of its action")
    if len(command["arguments"]) != 2 or command["arguments"][0] != _MNEMONIC:
        raise bad("its action is not a test in a cell")
    parameters = TestCell.parse(json.loads(command["arguments"][1]))
    _check_parameters(parameters, files)
    for name in files:
        if not is_of_here(name) and not may_be_given(name):
            raise bad(f"it has the input {name!r}, which bk does not give to cells")
    found = Reproduction(
        manifest,
        parameters,
        _environment(command["environment_variables"]),
        {item["name"]: item["value"] for item in (action["platform"] or {}).get("properties", ())},
        tuple(command["output_paths"]),
        min((action["timeout"] or {}).get("seconds", 0) or _LONGEST_TIME, _LONGEST_TIME),
        files,
    )
    return replace(found, build=_build(found, archive)) if manifest.kind == Kind.BUILD else found


def _build(recorded: Reproduction, archive: Archive) -> OwnBuild:
    """Return the build of a user that a cell runs with bk's own test. Raises ActionFailed, and ValueError for a malformed one."""
    request = f"src/{REQUEST}"
    if recorded.parameters.module != TEST or recorded.parameters.program is not None or request not in recorded.files:
        raise bad("its cell does not run a build")
    build = read_build(archive.read(recorded.content(request), _MOST_MESSAGE))
    for name in build.folders:
        if f"src/{archive_of(name)}" not in recorded.files:
            raise bad(f"it lacks the local folder {name!r} of its build")
    return build


def _environment(variables: list[reapi.Message]) -> dict[str, str]:
    """Return the environment of the cell, in which only bk's own variables may be. Raises ActionFailed."""
    found = {item["name"]: item["value"] for item in variables}
    for name, value in found.items():
        if _FIXED.get(name) != value and not (name in _COUNTED and value.isdigit()):
            raise bad(f"its cell has the variable {name!r} with a value that this bk does not give")
    return found


def _check_parameters(parameters: TestCell, files: Mapping[str, FileNode]) -> None:
    """Raise ActionFailed for parameters that could lead bk out of the cell, or that no bk writes."""
    limits = parameters.limits
    if min(limits.memory, limits.pids, limits.disk) <= 0 or limits.pids > _MOST_PIDS:
        raise bad("the limits of its cell are none")
    for one in parameters.extra_workers:
        if not _ID(one.id):
            raise bad(f"it has an extra worker of the name {one.id!r}")
    if parameters.update.mirror:
        MirrorFaults.read(parameters.update.mirror)
    for text in parameters.mirror:
        parse_reference(text)
    if f"src/{parameters.module}" not in files and parameters.program is None:
        raise bad(f"it lacks the file {parameters.module!r} with its test")
