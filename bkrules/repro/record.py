"""Records a cell and its outcome in a file: its action, its inputs, its logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bkrules import __version__
from bkrules.build.analysis import Analysis
from bkrules.build.execute import Execution, execute
from bkrules.build.request import Options
from bkrules.build.session import NotBuilt, built_inputs
from bkrules.cache import atomic
from bkrules.cache.maintenance import in_use
from bkrules.cache.results import write_tree
from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution import timeline
from bkrules.execution.layout import ATTEMPT, KEY, RESULT, TIMELINE
from bkrules.execution.result import Result
from bkrules.model.action import (
    Action,
    Artifact,
    DirectoryNode,
    FileNode,
    HostFile,
    Node,
    Output,
    Text,
    merkle,
    messages_of,
)
from bkrules.model.digest import Digest
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.selected import Selected
from bkrules.model.status import Status
from bkrules.report.artifacts import action_folder
from bkrules.repro import archive, outcome, secrets
from bkrules.repro.archive import Content
from bkrules.repro.facts import facts
from bkrules.repro.inputs import is_of_here
from bkrules.repro.manifest import SCHEMAS, Kind, Made, Manifest, Recorded, blob
from bkrules.repro.manifest import write as write_manifest
from bkrules.repro.secrets import Secrets
from bkrules.system.files import open_regular, read_regular

LARGE = 4 << 20
"""The size in bytes from which an output of a target is named, and is not in the file."""
MOST_OF_LOG = 4 << 20
"""The limit in bytes of a log in the file, which has its end."""
_PATIENCE = 20.0


@dataclass(frozen=True)
class Written:
    """A written file: its size in bytes, and its manifest."""

    size: int
    manifest: Manifest

    @property
    def targets(self) -> list[str]:
        """The labels of the targets that a replay builds."""
        return sorted({made.label for made in self.manifest.made.values()})


def record(analysis: Analysis, action: Action, options: Options, path: Path, *, self_contained: bool) -> Written:
    """Write the reproduction of a cell to `path`. The cell runs, unless it ran with these inputs already.

    The outcome of a flaky cell is that of its last attempt that failed.

    Raises NotBuilt when its inputs cannot be built, MachineLacks when it cannot run here, and ActionFailed when the file would
    contain a secret.
    """
    built = built_inputs(analysis, action, options)
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    execution.executor.results.update({result.action.id: result for result in built.results})
    folder = action_folder(action, analysis.out)
    with in_use(options.disk_cache):
        inputs = execution.executor.stage(action)
        result = _kept(execution, action, folder) or _run(analysis, action, options, folder)
        if result.status == Status.PASSED and (failed := _failed_attempt(folder)) is not None:
            folder, result = failed, outcome.outcome(outcome.kept(failed), failed)
        return Recording(execution, action, inputs, folder, self_contained).write(result, path)


def _kept(execution: Execution, action: Action, folder: Path) -> Recorded | None:
    """Return the outcome of the last run, when that had the same key."""
    try:
        known = json.loads(read_regular(folder / KEY))["key"]
        result = outcome.kept(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return outcome.outcome(result, folder) if known == execution.executor.key(action).digest.hash else None


def _failed_attempt(folder: Path) -> Path | None:
    """Return the folder of the last attempt before the one that passed; None when the first passed."""
    found = [place for place in folder.glob(f"{ATTEMPT}*") if (place / RESULT).is_file()]
    return max(found, key=lambda place: int(place.name.removeprefix(ATTEMPT)), default=None)


def _run(analysis: Analysis, action: Action, options: Options, folder: Path) -> Recorded:
    """Return the outcome of a run, or of the cache. Raises NotBuilt, MachineLacks and ActionFailed."""
    assert action.cell is not None
    only = replace(analysis, selected=Selected(frozenset([action.id]), {action.cell.matrix: 1}))
    build = execute(only, options)
    result: Result | None = next((one for one in build.results if one.action.id == action.id), None)
    if result is None or result.status == Status.NOT_RUN:
        raise NotBuilt(build)
    try:
        return outcome.outcome(outcome.kept(folder), folder)
    except (OSError, ValueError) as error:
        kind = MachineLacks if result.status == Status.SKIPPED else ActionFailed
        raise kind("no-outcome", f"{action.title} has not run: {result.reason}", hint=result.hint) from error


@dataclass
class Recording:
    """The parts of one file. `folder` has the logs of the cell; `kind` and `left_out` are those of the manifest."""

    execution: Execution
    action: Action
    inputs: Mapping[str, Node]
    folder: Path
    self_contained: bool
    kind: Kind = Kind.CELL
    left_out: tuple[str, ...] = ()
    declared: dict[str, Artifact] = field(init=False)
    contents: dict[Digest, Content] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    shown: dict[str, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.declared = dict(self.action.inputs)

    def write(self, result: Recorded, path: Path) -> Written:
        """Write the file. Raises ActionFailed."""
        variables = dict(self.execution.analysis.runs.environment)
        known = secrets.known({**os.environ, **variables}, self.execution.options.remote)
        masks = {**known, **secrets.of_variables(variables)}
        action = replace(
            self.action, environment=tuple(pair for pair in self.action.environment if pair[0] not in variables)
        )
        files = dict(_files(self.inputs))
        for name, file in files.items():
            self._add_input(name, file)
        command, message = messages_of(action, merkle(self.inputs)[0])
        self._add(archive.of_bytes(command))
        logs = {name: secrets.masked(data, masks) for name, data in _logs(self.folder)}
        assert action.cell is not None
        analysis = self.execution.analysis
        commit, changed = _revision(analysis.workspace.root)
        manifest = Manifest(
            schema=SCHEMAS[self.kind],
            kind=self.kind,
            left_out=self.left_out,
            bk=__version__,
            matrix=str(action.cell.matrix),
            test=action.cell.test,
            worker=action.cell.worker,
            axes=action.cell.axes,
            plugin=analysis.plugins.distributions.get(parameters_of(action, TestCell).plugin, ""),
            action=blob(self._add(archive.of_bytes(message))),
            tree=blob(self._add(archive.of_bytes(write_tree(DirectoryNode(files))[0]))),
            result=replace(
                result,
                reason=secrets.masked_text(result.reason, masks),
                logs={name: blob(self._add(archive.of_bytes(data))) for name, data in logs.items()},
            ),
            contents={name: blob(content) for name, content in self.shown.items()},
            made=self.made,
            machine={
                name: os.path.basename(item.path)
                for name, item in self.action.inputs
                if isinstance(item, HostFile) and not is_of_here(name)
            },
            facts=facts(),
            variables=tuple(sorted(variables)),
            commit=commit,
            changed=changed,
        )
        data = write_manifest(manifest)
        self._check(data, files, known)
        return Written(_place(path, data, self.contents), manifest)

    def _add(self, content: Content) -> Digest:
        self.contents[content.name] = content
        return content.name

    def _add_input(self, name: str, file: FileNode) -> None:
        """Add an input, or the name of the target that makes it. Files of this machine are only known by their digests."""
        item = self.declared.get(name)
        if isinstance(item, HostFile) or (is_of_here(name) and not isinstance(item, Text)):
            return
        content = _content(file, self.execution.cas.root)
        if content.name != file.digest:
            self.shown[name] = content.name
        producer = self._producer(name)
        if producer is not None and content.name.size >= LARGE and not self.self_contained:
            self.made[name] = Made(*producer, blob(content.name))
        else:
            self._add(content)

    def _producer(self, name: str) -> tuple[str, str] | None:
        """Return the target that makes an input, and which of its outputs that is; None for another input."""
        for path, item in self.action.inputs:
            if isinstance(item, Output) and f"{name}/".startswith(f"{path}/"):
                label = self.execution.analysis.actions.actions[item.producer].label
                return str(label), item.path + name[len(path) :]
        return None

    def _check(self, manifest: bytes, files: Mapping[str, FileNode], known: Secrets) -> None:
        """Raise ActionFailed when the file would contain a secret."""
        places = {self.shown.get(name, file.digest): f"the input {name}" for name, file in files.items()}
        parts = [("its manifest", archive.of_bytes(manifest))]
        parts += [(places.get(name, "its action"), content) for name, content in self.contents.items()]
        for place, content in parts:
            if name := secrets.found_in(content.chunks(), known):
                raise ActionFailed(
                    "secret",
                    f"{self.action.title}: {place} contains the value of {name}, so bk wrote no file",
                    hint=f"remove it there, or unset {name} when it is no secret",
                )


def _files(inputs: Mapping[str, Node]) -> Iterator[tuple[str, FileNode]]:
    """Yield the files of the input root by their paths."""
    for name, node in inputs.items():
        if isinstance(node, FileNode):
            yield name, node
        else:
            yield from ((f"{name}/{path}", file) for path, file in node.files.items())


def _content(file: FileNode, cas: str) -> Content:
    """Return the bytes that an action reads. The key may cover a part of them, and a blob of the CAS has its own name."""
    if not file.path.startswith(f"{cas}/"):
        return Content(file.digest, file.path)
    return Content(Digest(os.path.basename(file.path), os.stat(file.path).st_size), file.path)


def _logs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the logs of a cell by their names. A long one is cut at its begin."""
    for pattern in ("*.log", "*.stacks"):
        for path in timeline.kept(folder, pattern):
            if path.name != TIMELINE:  # the others have its lines
                with open_regular(path) as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - MOST_OF_LOG))
                    yield path.name, file.read(MOST_OF_LOG)


def _revision(root: str) -> tuple[str, bool]:
    """Return the commit of the workspace, and whether there are uncommitted changes; empty outside of a Git repository."""
    answers = []
    for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            command = ["git", "-C", root, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            return "", False
        if done.returncode:
            return "", False
        answers.append(done.stdout.strip())
    return answers[0], bool(answers[1])


def _place(path: Path, manifest: bytes, contents: Mapping[Digest, Content]) -> int:
    """Write the file by rename. Return its size in bytes. Raises ActionFailed when an input changes meanwhile, and OSError."""
    scratch = Path(atomic.temporary(str(path)))
    try:
        with open(scratch, "xb") as file:
            archive.write(file, manifest, contents)
        scratch.replace(path)
    except ValueError as error:
        raise ActionFailed("changed-input", f"an input has changed: {error}", hint="run it again") from error
    finally:
        scratch.unlink(missing_ok=True)
    return path.stat().st_size
