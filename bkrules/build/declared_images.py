"""Images that the declared tools convert, whatever replaces these tools for the workers of a build: they are inputs of tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bkrules.loading.graph import TargetGraph
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins
from bkrules.rules.worker import tools_of

_CONVERTED, _WORKER = "estargz_image", "worker"
_DECLARED = "=declared"


def declared(label: Label) -> Label:
    """Return the label of a target as build files declare it, when another one replaces it."""
    return label if label.name.endswith(_DECLARED) else Label(label.package, label.name + _DECLARED)


def keep_declared(target: Target) -> Target:
    """Return a target as build files declare it, under the label `declared`."""
    label = declared(target.label)
    return replace(target, label=label, attributes={**target.attributes, "name": label.name})


def convert_as_declared(
    graph: TargetGraph, workspace: Workspace, plugins: Plugins, binaries: Mapping[Label, Label]
) -> None:
    """Give each converted image of the graph a worker with the declared tools; `binaries` are the labels of replaced ones."""
    for image in graph.targets:
        current = workspace.target(image.label)
        if current is None or image.rule.name != _CONVERTED:
            continue
        worker = workspace.target(current.attributes["worker"])
        if worker is None or worker.rule.name != _WORKER:
            continue  # the analysis of the image reports it
        given = worker.attributes["tools"]
        named = {name: given.get(name, Label("", name)) for name in tools_of(worker, plugins)}
        actual = {name: workspace.actual(label) for name, label in named.items()}
        tools = {**given, **{name: binaries[label] for name, label in actual.items() if label in binaries}}
        kept = keep_declared(replace(worker, attributes={**worker.attributes, "tools": tools}))
        workspace.put(kept)
        workspace.put(replace(current, attributes={**current.attributes, "worker": kept.label}))
