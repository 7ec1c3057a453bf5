"""The revisions among which a bisection looks: the releases of a tool that build files declare."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.errors import UsageError, did_you_mean
from bkrules.loading.workspace import Workspace
from bkrules.model.rule import Target
from bkrules.model.semver import Version, version_of


class Revisions(Protocol):
    """A row of revisions, from the good one to the bad one. `names` are for the user."""

    @property
    def names(self) -> list[str]:
        """The names of the revisions."""

    def overrides(self, place: int) -> WorkerOverrides:
        """Return the overrides by which a build has a revision. The one before may be gone then."""


@dataclass(frozen=True)
class Releases:
    """Releases, each with the target that builds it."""

    tool: str
    targets: tuple[tuple[Version, Target], ...]
    base: WorkerOverrides

    @property
    def names(self) -> list[str]:
        """The versions."""
        return [version.text for version, _ in self.targets]

    def overrides(self, place: int) -> WorkerOverrides:
        """Return the overrides with the target of a release in place of the tool."""
        tools = {**dict(self.base.tools), self.tool: str(self.targets[place][1].label)}
        return replace(self.base, tools=tuple(sorted(tools.items())))


def releases(workspace: Workspace, tool: str, good: str, bad: str, base: WorkerOverrides) -> Releases:
    """Return the declared releases of a tool from `good` to `bad`. Raises UsageError."""
    known: dict[Version, Target] = {}
    for target in workspace.every():
        values = target.attributes
        version = version_of(values.get("version") or "") if target.rule.name == "go_binary" else None
        if (
            version
            and values["module"]
            and not values["test"]
            and not values["coverpkg"]
            and command_of(target) == tool
        ):
            known.setdefault(version, target)
    for option, text in (("good", good), ("bad", bad)):
        if version_of(text) not in known:
            hint = did_you_mean(text, [version.text for version in sorted(known)], f"declared releases of {tool}")
            what = f"--{option}={text}: no go_binary builds {tool} {text}"
            raise UsageError("unknown-release", what, hint=f"{hint}\ndeclare more with go_releases, and run `bk pin`")
    row = sorted(known)
    first, last = (row.index(version) for version in map(version_of, (good, bad)) if version is not None)
    if first >= last:
        what = f"--good={good} is not older than --bad={bad}"
        raise UsageError("wrong-order", what, hint="bisect looks for the first release that is bad")
    return Releases(tool, tuple((version, known[version]) for version in row[first : last + 1]), base)


def module_of_tool(targets: Iterable[Target], tool: str) -> str:
    """Return the module of which a go_binary builds a tool; empty when none of the targets does."""
    found = (one for one in targets if one.rule.name == "go_binary" and command_of(one) == tool)
    return next((str(one.attributes["module"]) for one in found if one.attributes["module"]), "")


def command_of(target: Target) -> str:
    """Return the name of the file that a go_binary builds."""
    return str(target.attributes["out"] or os.path.basename(target.label.name))
