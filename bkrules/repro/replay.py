"""Replays a reproduction: its inputs come from the file, or from targets of the workspace, and its cell runs once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.analysis.host_inputs import Machine
from bkrules.build.analysis import analyze_targets, open_workspace
from bkrules.build.execute import execute
from bkrules.build.open_context import close_context, open_context
from bkrules.build.request import Options
from bkrules.build.session import NotBuilt
from bkrules.cache.cas import Cas
from bkrules.errors import MachineLacks
from bkrules.execution.context import RunContext
from bkrules.loading.root import root_of
from bkrules.loading.workspace import Workspace
from bkrules.model import digest
from bkrules.model.action import FileNode, Source
from bkrules.model.digest import Digest
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins
from bkrules.report.build_result import BuildResult
from bkrules.repro import outcome, secrets
from bkrules.repro.archive import Archive
from bkrules.repro.here import CellHere, Difference
from bkrules.repro.inputs import TOOL, is_of_here
from bkrules.repro.manifest import Made, Recorded, bad, blob
from bkrules.repro.outcome import plain
from bkrules.repro.reproduction import Reproduction
from bkrules.runners.test_cell import run_test_cell

REGISTRY = "//:registry"
"""The registry of this workspace, which runs outside of the cell."""


@dataclass(frozen=True)
class Sources:
    """Where the inputs of a cell come from: `held` are blobs of the file, `made` outputs of targets, by the names of inputs."""

    held: Mapping[str, Digest]
    made: Mapping[str, Made]

    @property
    def targets(self) -> list[str]:
        """The labels of the targets."""
        return sorted({one.label for one in self.made.values()})


def sources(recorded: Reproduction, archive: Archive, *, trusted: bool) -> Sources:
    """Return where each input comes from. Raises ActionFailed for one that comes from nowhere.

    Without trust, the registry is one that this workspace makes.
    """
    held: dict[str, Digest] = {}
    made: dict[str, Made] = {}
    for name in recorded.files:
        content = recorded.content(name)
        known = recorded.manifest.made.get(name)
        if is_of_here(name) or name in recorded.manifest.machine:
            continue
        if name == TOOL and not trusted:
            made[name] = Made(REGISTRY, os.path.basename(TOOL), blob(content))
        elif archive.has(content):
            held[name] = content
        elif known is not None and known.content.digest == content:
            made[name] = known
        else:
            raise bad(f"it lacks the bytes of the input {name!r}")
    if TOOL not in {*held, *made}:
        raise bad("its cell has no registry")
    return Sources(held, made)


def stage(found: Sources, archive: Archive, here: CellHere, cas: Cas, options: Options) -> CellHere:
    """Return the cell with the bytes of its inputs on the disk: from the file, and from targets, which are built.

    Raises ActionFailed for a forged blob, NotBuilt, and MachineLacks when this workspace makes another tool.
    """
    for content in set(found.held.values()):
        if not cas.intact(content):
            cas.receive(content, archive.chunks(content))
    outputs = _built(found, options) if found.made else {}
    differences = list(here.differences)
    registry = FileNode(digest.EMPTY, "") if TOOL in found.made else None
    for name, one in found.made.items():
        node = outputs[name]
        if name == TOOL:
            registry = replace(node, executable=True)
            if node.digest != one.content.digest:
                differences.append(Difference(name, str(one.content.digest), str(node.digest)))
        elif node.digest != one.content.digest:
            what = f"{plain(one.label)} of this workspace is another one than that of the file"
            hint = "check out the commit of the file, or have it written with --self_contained"
            raise MachineLacks("another-tool", what, hint=hint)
    if registry is None:
        registry = FileNode(found.held[TOOL], cas.path(found.held[TOOL]), True)
    inputs = {**here.inputs, TOOL: registry}
    action = replace(here.action, inputs=tuple(sorted([*here.action.inputs, (TOOL, Source(TOOL))])))
    return CellHere(action, inputs, tuple(differences))


def _built(found: Sources, options: Options) -> dict[str, FileNode]:
    """Build the targets, and return the outputs by the names of inputs. Raises NotBuilt, MachineLacks, LoadError, UsageError."""
    if root_of(".") is None:
        hint = "run it in a workspace that makes it, such as a clone of bk; or --trust a self-contained file"
        raise MachineLacks("no-workspace", f"the replay needs {plain(' '.join(found.targets))}", hint=hint)
    workspace = open_workspace(".")
    targets = {text: _target(workspace, text) for text in found.targets}
    build = execute(analyze_targets(workspace, list(targets.values())), options)
    if build.exit_code:
        raise NotBuilt(build)
    return {name: _output(one, targets[one.label].label, build) for name, one in found.made.items()}


def _target(workspace: Workspace, text: str) -> Target:
    """Return the target of a label. Raises MachineLacks when this workspace has none, and ActionFailed for what is no label."""
    try:
        target = workspace.target(parse_label(text))
    except LabelError as error:
        raise bad(f"an input is made by {text!r}, which is no label") from error
    if target is None:
        what = f"this workspace has no target {plain(text)}, which makes an input of the cell"
        hint = "replay it in a clone of its workspace, or have the file written with --self_contained"
        raise MachineLacks("no-target", what, hint=hint)
    return target


def _output(one: Made, label: Label, build: BuildResult) -> FileNode:
    """Return an output of the target of this label. Raises MachineLacks when it has no such output."""
    for result in build.results:
        if result.action.label == label:
            for path, node in result.outputs.items():
                file = node if isinstance(node, FileNode) else node.files.get(one.output[len(path) + 1 :])
                if f"{one.output}/".startswith(f"{path}/") and file is not None:
                    return file
    what = f"{plain(one.label)} of this workspace does not make {plain(one.output)!r}"
    raise MachineLacks("another-tool", what, hint="check out the commit of the file")


@dataclass(frozen=True)
class Replayed:
    """The outcome of a replay, and the folder with its logs."""

    result: Recorded
    logs: Path


@contextmanager
def opened_context(options: Options, cas: Cas, out: Path, machine: Machine, plugins: Plugins) -> Iterator[RunContext]:
    """Open the context of one cell; its processes end with this context, however that ends."""
    context = open_context(options.disk_cache, cas, out, lambda: machine, plugins, 1, test_timeouts={}, test_attempts=1)
    try:
        context.processes.begin()
        yield context
    finally:
        context.processes.interrupt()
        close_context(context)


def replay(cell: CellHere, context: RunContext, variables: Mapping[str, str]) -> Replayed:
    """Run the cell once, with these values of `--test_env`.

    Raises MachineLacks when it cannot run here, and BkError for a broken plugin.
    """
    run_test_cell(cell.action, cell.inputs, context)
    folder = context.cell_folder(cell.action)
    result = outcome.outcome(outcome.kept(folder), folder)
    # The recorded reason has a mask in the place of each value of --test_env.
    reason = secrets.masked_text(result.reason, secrets.of_variables(variables))
    return Replayed(replace(result, reason=reason), folder)
