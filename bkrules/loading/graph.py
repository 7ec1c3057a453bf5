"""The target graph: the requested targets and all their dependencies, each target after its dependencies."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from bkrules.errors import LoadError
from bkrules.incremental.dependencies import current
from bkrules.loading.workspace import Workspace, check_labels
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins


@dataclass(frozen=True)
class TargetGraph:
    """`targets` in an order in which dependencies come first; `wanted` are the requested ones."""

    targets: tuple[Target, ...]
    wanted: tuple[Label, ...]
    edges: dict[Label, tuple[Label, ...]]

    @cached_property
    def asked(self) -> frozenset[Label]:
        """The requested labels, as a set."""
        return frozenset(self.wanted)


def close(
    workspace: Workspace, wanted: Iterable[Target], plugins: Plugins, *, known: Container[Label] = ()
) -> TargetGraph:
    """Return the graph below `wanted`, without the targets in `known`. Raises LoadError for an unknown label or a cycle."""
    order: list[Target] = []
    edges: dict[Label, tuple[Label, ...]] = {}
    done: set[Label] = set()
    path: list[Target] = []
    open_labels: set[Label] = set()
    roots = list(wanted)
    stack: list[tuple[Target, bool]] = [(target, False) for target in reversed(roots)]
    while stack:
        target, leave = stack.pop()
        if leave:
            path.pop()
            open_labels.discard(target.label)
            done.add(target.label)
            order.append(target)
            continue
        if target.label in done or target.label in known:
            continue
        if target.label in open_labels:
            raise _cycle(path[[opened.label for opened in path].index(target.label) :])
        path.append(target)
        open_labels.add(target.label)
        stack.append((target, True))
        implicit = (workspace.target(label) for label in target.rule.implicit(target, plugins))
        with current().of_package(target.label.package):
            below = [*check_labels(workspace, target), *filter(None, implicit)]
        edges[target.label] = tuple(other.label for other in below)
        stack += [(other, False) for other in reversed(below)]
    return TargetGraph(tuple(order), tuple(target.label for target in roots), edges)


def _cycle(path: list[Target]) -> LoadError:
    steps = [*path, path[0]]
    lines = []
    for target, other in pairwise(steps):
        attribute = next((name for name, label in target.labels() if label == other.label), "plugin")
        lines.append(f"{target.location.of(attribute)}: {target.label} -> {other.label}")
    return LoadError("cycle", f"{path[0].label}: depends on itself", where="\n".join(lines))
