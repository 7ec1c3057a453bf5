"""Packages: the targets of one build file."""

from __future__ import annotations

from dataclasses import dataclass, field

from bkrules.loading.modules import Named
from bkrules.loading.sources import Record
from bkrules.model.rule import Target


@dataclass
class Package:
    """The targets of one build file, by name.

    `workspace` is the name that a WORKSPACE.py declares, and `modules` are those that it names. A package that `uses_plugins`
    depends on the installed plugins, not on files alone.
    """

    name: str
    file: str
    targets: dict[str, Target] = field(default_factory=dict)
    workspace: str = ""
    modules: dict[str, Named] = field(default_factory=dict)
    uses_plugins: bool = False
    record: Record = field(default_factory=Record, compare=False, repr=False)
