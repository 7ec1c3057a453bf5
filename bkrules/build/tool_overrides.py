"""Tool overrides: a binary of this machine, or of a target, in place of a tool, for the workers of one build.

The keys of cells have the digest of the binary, as of every tool, and not its path. A value of an axis that gives the
tool takes precedence, since the names of its cells say so. Images are converted by the declared tools.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace

from bkrules.analysis.updaters import TOOLS
from bkrules.build.declared_images import convert_as_declared
from bkrules.errors import UsageError, did_you_mean
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label, parse_label
from bkrules.model.rule import Location, Target, check_attributes
from bkrules.plugin.installed import Plugins
from bkrules.rules import RULES
from bkrules.rules.worker import tools_of

OPTION = "--override_tool"
_MATRIX, _WORKER, _BINARY = "test_matrix", "worker", "host_binary"


def override_tools(
    graph: TargetGraph, workspace: Workspace, plugins: Plugins, tools: Mapping[str, str], keep: Collection[Label]
) -> TargetGraph:
    """Return the graph with binaries in place of `tools`, by their names; workers keep those that are labels in `keep`.

    Raises UsageError for a tool that no worker runs, when there are workers.
    """
    if not tools:
        return graph
    labels = {name: _replacement(workspace, name, value) for name, value in tools.items()}
    workers = [target for target in graph.targets if target.rule.name == _WORKER]
    matrices = [target for target in graph.targets if target.rule.name == _MATRIX]
    convert_as_declared(graph, workspace, plugins, {})
    known: set[str] = set()
    for worker in workers:
        given = worker.attributes["tools"]
        own = {name for name in tools_of(worker, plugins) if given.get(name) not in keep}
        known |= own
        changed = {**given, **{name: label for name, label in labels.items() if name in own}}
        workspace.put(replace(worker, attributes={**worker.attributes, "tools": changed}))
    for matrix in matrices:
        names = {label: _name(workspace, label) for label in matrix.attributes["tools"]}
        of_tests = tuple(labels.get(name, label) for label, name in names.items())
        known.update(names.values())
        workspace.put(replace(matrix, attributes={**matrix.attributes, "tools": of_tests}))
    for name, path in tools.items():
        if (workers or matrices) and name not in known:
            what = f"{OPTION}={name}={path}: no worker of the targets asked for runs {name!r}"
            raise UsageError("unused-override", what, hint=did_you_mean(name, known, "their tools"))
        if matrices and all(_is_given(matrix, name) for matrix in matrices):
            what = f"{OPTION}={name}={path}: in {matrices[0].label}, all values of an axis give another {name!r}"
            raise UsageError("unused-override", what, hint=f"leave a value without {name!r} in its key 'tools'")
    wanted = (workspace.target(label) for label in graph.wanted)
    return close(workspace, filter(None, wanted), plugins)


def _replacement(workspace: Workspace, name: str, value: str) -> Label:
    """Return the label of a binary: of the target that the value names, or of a host_binary for its path. Raises UsageError."""
    if not value.startswith(("//", "@")):
        return _binary(workspace, name, value)
    label = parse_label(value)
    if workspace.target(label) is None:
        what = f"{OPTION}={name}={value}: there is no such target"
        raise UsageError("unknown-target", what, hint=workspace.unknown(label))
    return label


def _binary(workspace: Workspace, name: str, path: str) -> Label:
    """Add a host_binary to the workspace. Return its label, whose last part is the name of the tool."""
    label = Label("", f"override_tool/{name}")
    where = Location(OPTION, 1)
    attributes, _ = check_attributes(RULES[_BINARY], label, {"name": label.name, "binary": path}, where)
    workspace.put(Target(label, RULES[_BINARY], attributes, {}, where))
    return label


def _name(workspace: Workspace, label: Label) -> str:
    """Return the name of a tool of tests, which go_binary can give its file."""
    target = workspace.target(label)
    return (target and target.attributes.get("out")) or os.path.basename(label.name)


def _is_given(matrix: Target, name: str) -> bool:
    """Return whether every value of an axis of the matrix gives that tool."""
    for values in matrix.attributes["axes"].values():
        choices = list(values.values()) if isinstance(values, dict) else []
        tables = [value.get(TOOLS) for value in choices if isinstance(value, dict)]
        if choices and len(tables) == len(choices) and all(isinstance(one, dict) and name in one for one in tables):
            return True
    return False
