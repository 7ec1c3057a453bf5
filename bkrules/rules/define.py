"""The parts of a plugin's rule.

    COUNT = Rule("count", "Counts words.", {"srcs": Attr("labels", "Files.", required=True)}, analyze)

`analyze` declares actions by its `Context`, and returns providers, which other targets see. bk calls a `Runner` of a plugin
when no cache has an action's result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bkrules.analysis.context import Context
from bkrules.errors import ActionFailed
from bkrules.model.action import Text
from bkrules.model.providers import BinaryInfo, FilesInfo
from bkrules.model.rule import Attr, Rule

__all__ = ["ActionFailed", "ActionRun", "Attr", "BinaryInfo", "Context", "FilesInfo", "Rule", "Runner", "Text"]


@dataclass(frozen=True)
class ActionRun:
    """One run of a plugin's action.

    Attributes:
        label: The label of its target.
        arguments: As declared.
        inputs: The declared files by their names, to be read and not written; of a folder, each file.
        folder: The folder for the declared outputs, by their names. Other files in it are dropped.
    """

    label: str
    arguments: tuple[str, ...]
    inputs: Mapping[str, Path]
    folder: Path


Runner = Callable[[ActionRun], None]
"""Makes the outputs of an action, in a thread of the build. Raises ActionFailed when it cannot."""
