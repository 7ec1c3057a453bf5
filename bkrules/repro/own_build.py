"""A user's own build as a cell: its declaration, its run, and its file.

It is the cell of a test that is bk's, `declarative/own_build_cell.py`, so a file with it is replayed like that of any cell.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.analysis.cell_inputs import Limits, sandbox_inputs
from bkrules.analysis.context import Context
from bkrules.build.analysis import Analysis
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.build.session import built_inputs, closing
from bkrules.cache.maintenance import in_use
from bkrules.cell.jail import ISOLATION as JAIL
from bkrules.declarative.own_build import LOG, REQUEST, TEST, OwnBuild, archive_of
from bkrules.errors import ActionFailed
from bkrules.images.documents import read_index
from bkrules.images.json_object import MANIFEST_LIMIT
from bkrules.model.action import Action, Artifact, Cell, DirectoryNode, Node, Text
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.providers import MirrorInfo, WorkerInfo
from bkrules.model.reference import parse_reference
from bkrules.model.wire import text_of
from bkrules.plugin import ask
from bkrules.repro import outcome, secrets
from bkrules.repro.local_folder import MOST
from bkrules.repro.manifest import Kind
from bkrules.repro.own_command import OwnCommand
from bkrules.repro.own_test import own_name, own_test
from bkrules.repro.record import Recording, Written
from bkrules.repro.secrets import Secrets
from bkrules.rules.cells import OUTPUTS
from bkrules.runners.pulled import LOG as MIRROR_LOG
from bkrules.runners.test_cell import run_test_cell
from bkrules.system.files import open_regular, read_regular

NAME = "own_build"
"""The name of the cell."""
_CELL = "cell"
_REQUESTED = re.compile(r'msg="\w+ /v2/(\S{1,255})/manifests/(\S{1,128}) (\d+) ').search
_UNRESOLVED = re.compile(r"failed to resolve source metadata for (\S+): .*(?:not found|no such host)").search
_TAIL = 8 << 10
_LINES = 12


@dataclass(frozen=True)
class Recorded:
    """A recorded build: its file, the digests of the images that it pulled, its last lines, and what it tried to reach."""

    written: Written
    images: Mapping[str, str]
    end: tuple[str, ...]
    egress: tuple[str, ...]
    telling: tuple[str, ...]


def declare(
    worker: Context, mirror: Context, command: OwnCommand, archives: Mapping[str, bytes], timeout: int
) -> Action:
    """Return the action of a build whose local folders have these archives, and which may take `timeout` seconds.

    It runs in a jail, as a replay does, unless the worker cannot. Raises LoadError when a target is something else.
    """
    info = worker.provider("worker", worker.label, WorkerInfo, "a worker")
    images = mirror.provider("mirror", mirror.label, MirrorInfo, "an image_mirror").images
    parts = sandbox_inputs(worker, info, images, Limits())
    request = OwnBuild(command.words, tuple(archives))
    isolation = _CELL if ask.no_jail(info.worker) else JAIL
    parameters = TestCell(
        **vars(parts.parameters), worker=info.id, axes={}, isolation=isolation, module=TEST, test=own_name()
    )
    files: dict[str, Artifact] = {f"src/{archive_of(name)}": Text(data) for name, data in archives.items()}
    return worker.declare(
        "TestCell",
        parameters,
        {**parts.inputs, **own_test(), **files, f"src/{REQUEST}": Text(text_of(request).encode())},
        OUTPUTS,
        environment=parts.environment,
        platform=parts.platform,
        timeout=timeout,
        cell=Cell(worker.label, NAME, info.id, (), jail=isolation == JAIL),
    )


def record(
    worker: Context,
    mirror: Context,
    analysis: Analysis,
    command: OwnCommand,
    options: Options,
    path: Path,
    *,
    timeout: int,
    self_contained: bool,
) -> Recorded:
    """Run a build, and write it with its outcome to `path`.

    Raises NotBuilt when its inputs cannot be built, MachineLacks when it cannot run here, UsageError for a local folder that
    no file can carry, and ActionFailed when the file would contain a secret, or when the mirror lacks an image of the build.
    """
    archives, telling = _packed(command, secrets.known(os.environ, options.remote))
    action = declare(worker, mirror, command, archives, timeout)
    built = built_inputs(analysis, action, options)
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    execution.executor.results.update({result.action.id: result for result in built.results})
    with in_use(options.disk_cache), closing(execution):
        execution.prepare(tests=True)
        assert execution.context is not None
        logs = execution.context.cell_folder(action)
        inputs = execution.executor.stage(action)
        run_test_cell(action, inputs, execution.context)
        result = outcome.kept(logs)
        asked = _asked(logs)
        _check_images(mirror, asked, result.reason)
        pulled = _pulled(action, asked)
        action, inputs = _with_images(action, inputs, pulled)
        images = {text: _digest(inputs, text) for text in pulled}
        recording = Recording(execution, action, inputs, logs, self_contained, Kind.BUILD, command.left_out)
        written = recording.write(outcome.outcome(result, logs), path)
    egress = dict.fromkeys(item.what for item in result.egress)
    return Recorded(written, images, _end(logs), tuple(egress), tuple(dict.fromkeys(telling)))


def _packed(command: OwnCommand, known: Secrets) -> tuple[dict[str, bytes], list[str]]:
    """Return the archives of the local folders by name, and the paths of files that look like secrets."""
    archives: dict[str, bytes] = {}
    telling: list[str] = []
    room = MOST
    for folder in command.folders:
        packed = folder.pack(known, room)
        archives[folder.name] = packed.data
        telling += [str(folder.path / name) for name in packed.telling]
        room -= folder.size
    return archives, telling


def _asked(folder: Path) -> dict[tuple[str, str], int]:
    """Return the manifests for which the build asked the mirror, by repository and tag or digest, with the last status."""
    found: dict[tuple[str, str], int] = {}
    with suppress(FileNotFoundError):
        for line in read_regular(folder / MIRROR_LOG).decode(errors="replace").splitlines():
            if match := _REQUESTED(line):
                found[match[1], match[2]] = int(match[3])
    return found


def _check_images(mirror: Context, asked: Mapping[tuple[str, str], int], reason: str) -> None:
    """Raise ActionFailed when the mirror lacks an image: then the build has failed for a reason that is not the user's."""
    missing = sorted(f"{repository}{_joint(tag)}{tag}" for (repository, tag), status in asked.items() if status == 404)
    if elsewhere := _UNRESOLVED(reason):  # an image of a host of which the mirror has none
        missing = [elsewhere[1]]
    if missing:
        what = (
            f"the build needs {', '.join(missing)}, which the mirror {mirror.label} does not have, so bk wrote no file"
        )
        hint = f"add it to the images of {mirror.label}, by its digest (docs/images.md), or name another with --mirror"
        raise ActionFailed("no-image", what, hint=hint)


def _joint(tag: str) -> str:
    return "@" if tag.startswith("sha256:") else ":"


def _pulled(action: Action, asked: Mapping[tuple[str, str], int]) -> list[str]:
    """Return the references of the images for which the build asked. One that it named by a digest may be any of its repository."""
    tags: dict[str, set[str]] = {}
    for repository, tag in asked:
        tags.setdefault(repository, set()).add(tag)
    found = []
    for text in parameters_of(action, TestCell).mirror:
        one = parse_reference(text)
        named = {tag for tag in tags.get(one.repository, ()) if not tag.startswith("sha256:")}
        if one.tag in named or (one.repository in tags and not named):
            found.append(text)
    return found


def _with_images(action: Action, inputs: Mapping[str, Node], pulled: list[str]) -> tuple[Action, dict[str, Node]]:
    """Return the action and its inputs with these images of the mirror alone."""
    kept = {_place(text) for text in pulled}

    def is_kept(name: str) -> bool:
        return not name.startswith("mirror/") or name in kept

    parameters = replace(parameters_of(action, TestCell), mirror=tuple(pulled))
    declared = tuple((name, item) for name, item in action.inputs if is_kept(name))
    less = {name: node for name, node in inputs.items() if is_kept(name)}
    return replace(action, inputs=declared, arguments=(text_of(parameters),)), less


def _place(reference: str) -> str:
    one = parse_reference(reference)
    return f"mirror/{one.host}/{one.repository}/{one.tag}"


def _digest(inputs: Mapping[str, Node], reference: str) -> str:
    node = inputs[_place(reference)]
    assert isinstance(node, DirectoryNode)
    index = read_index(read_regular(node.files["index.json"].path, MANIFEST_LIMIT), reference)
    return str(index.entries[0].digest)


def _end(folder: Path) -> tuple[str, ...]:
    """Return the last lines of the build."""
    with suppress(OSError), open_regular(folder / LOG) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return tuple(file.read(_TAIL).decode(errors="replace").splitlines()[-_LINES:])
    return ()
