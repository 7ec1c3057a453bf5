"""Module overrides: a folder with the sources of a Go module in place of a pinned release, for one build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bkrules.build.declared_axes import axes_as_declared
from bkrules.build.declared_images import convert_as_declared, declared, keep_declared
from bkrules.errors import UsageError, did_you_mean
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins
from bkrules.rules import go_tree
from bkrules.rules.go_tree import TREES, ModuleTree, module_of, read_tree, required
from bkrules.system.files import read_text

OPTION = go_tree.OPTION
_BINARY = "go_binary"


def override_modules(
    graph: TargetGraph, workspace: Workspace, plugins: Plugins, modules: Mapping[str, str]
) -> TargetGraph:
    """Return the graph with folders in place of `modules`, by their paths, in every go_binary that uses one.

    Raises UsageError for a folder without the module, and for a module that no go_binary uses, when there are some.
    """
    if not modules:
        return graph
    trees = [read_tree(module, path) for module, path in sorted(modules.items())]
    uses: dict[Label, list[str]] = {}
    known: set[str] = set()
    binaries = [target for target in graph.targets if target.rule.name == _BINARY]
    for binary in binaries:
        own = set(_modules(workspace, binary))
        known |= own
        found = tuple(tree for tree in trees if not own.isdisjoint(tree.modules))
        if found:
            out = binary.attributes["out"] or binary.label.name
            workspace.put(keep_declared(replace(binary, attributes={**binary.attributes, "out": out})))
            uses[binary.label] = [tree.module for tree in found]
            workspace.put(replace(binary, extra={TREES: found}))
    kept = {label: declared(label) for label in uses}
    convert_as_declared(graph, workspace, plugins, kept)
    axes_as_declared(graph, workspace, kept)
    changed = close(workspace, filter(None, map(workspace.target, graph.wanted)), plugins)
    used = {module for target in changed.targets for module in uses.get(target.label, ())}
    for tree in trees:
        if binaries and tree.module not in used:
            what = f"{OPTION}={tree.module}={tree.folder.path}: no go_binary of the targets asked for uses that module"
            raise UsageError("unused-override", what, hint=_hint(tree, known))
    return changed


def _hint(tree: ModuleTree, known: set[str]) -> str:
    near: Sequence[str] = [name for name in known if name.rpartition("/")[2] == tree.module.rpartition("/")[2]]
    return did_you_mean(tree.module, near or known, "modules that they use")


def _modules(workspace: Workspace, binary: Target) -> Iterator[str]:
    """Yield the modules of a binary: its own, and those that its go.mod requires."""
    module, mod = binary.attributes["module"], binary.attributes["mod"]
    text = read_text(workspace.place(mod.path)) if workspace.is_file(mod) else ""
    yield module or module_of(text)
    yield from required(text)
