"""The targets of a workspace as a graph for queries, with the source files that labels name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from bkrules.errors import UsageError
from bkrules.loading.graph import close
from bkrules.loading.plugins import load_plugins
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label, parse_pattern
from bkrules.model.rule import Target
from bkrules.plugin.installed import Plugins

SOURCE_FILE = "source file"


class WorkspaceGraph:
    """A `Graph` of the workspace. `package` is the package of `:name`.

    Without `implicit`, dependencies that no attribute names are left out; without `files`, source files are.
    """

    def __init__(self, workspace: Workspace, package: str, *, implicit: bool = True, files: bool = True) -> None:
        self.workspace = workspace
        self.package = package
        self.implicit = implicit
        self.files = files
        self._edges: dict[Label, tuple[Label, ...]] = {}

    @cached_property
    def _plugins(self) -> Plugins:
        return load_plugins(self.workspace.root)

    def match(self, pattern: str) -> Iterable[Label]:
        """Return the targets, or the source file, that the pattern names. Raises UsageError or LoadError."""
        parsed = parse_pattern(pattern, self.package)
        if parsed.negative:
            raise UsageError("bad-pattern", f"{pattern!r} is not a pattern of a query", hint="to leave it out:  A - B")
        if parsed.name is not None and self.files:
            label = Label(parsed.package, parsed.name)
            if self.workspace.target(label) is None and self.workspace.is_file(label):
                return [label]
        return [target.label for target in self.workspace.match([parsed])]

    def dependencies(self, label: Label) -> Iterable[Label]:
        """Return the labels that a target names or needs. Raises LoadError for an unknown label, and for a cycle below
        the target.
        """
        target = self.workspace.target(label)
        if target is None:
            return []
        if label not in self._edges:
            self._edges.update(close(self.workspace, [target], self._plugins, known=self._edges).edges)
        labels = [self.workspace.actual(other) for _, other in target.labels()]
        named = [other for other in labels if self.files or self.workspace.target(other)]
        return dict.fromkeys([*named, *(self._edges[label] if self.implicit else ())])

    def kind(self, label: Label) -> str:
        """Return `image rule` and the like, or `source file`."""
        target = self.workspace.target(label)
        return f"{target.rule.name} rule" if target else SOURCE_FILE

    def attribute(self, label: Label, name: str) -> Any:
        """Return an attribute's value or a setting of a worker; None when the target has neither."""
        target = self.workspace.target(label)
        return {**target.attributes, **target.extra}.get(name) if target else None

    def targets(self, labels: Iterable[Label]) -> list[Target]:
        """Return the targets among the labels, in their order."""
        return [target for label in labels if (target := self.workspace.target(label)) is not None]
