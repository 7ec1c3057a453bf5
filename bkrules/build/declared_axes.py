"""Values of axes that give cells the declared tools, whatever replaces these tools for the workers of a build.

The name of such a cell says which tool it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bkrules.analysis.updaters import TOOLS, VALUE
from bkrules.loading.graph import TargetGraph
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.rule import Target

_MATRIX = "test_matrix"


def axes_as_declared(graph: TargetGraph, workspace: Workspace, binaries: Mapping[Label, Label]) -> None:
    """Let values of axes name the declared binaries; `binaries` are their labels by those of replaced ones."""
    for target in graph.targets:
        matrix = workspace.target(target.label)
        if matrix is not None and matrix.rule.name == _MATRIX:
            axes = {
                axis: _values(workspace, matrix, values, binaries) for axis, values in matrix.attributes["axes"].items()
            }
            workspace.put(replace(matrix, attributes={**matrix.attributes, "axes": axes}))


def _values(workspace: Workspace, matrix: Target, values: Any, binaries: Mapping[Label, Label]) -> Any:
    if not isinstance(values, dict):
        return values  # the analysis reports it
    return {choice: _value(workspace, matrix, value, binaries) for choice, value in values.items()}


def _value(workspace: Workspace, matrix: Target, value: Any, binaries: Mapping[Label, Label]) -> Any:
    """Return a value with declared binaries, which tests see as it is in the build file."""
    table = value.get(TOOLS) if isinstance(value, dict) else None
    if not isinstance(table, dict):
        return value
    changed = {name: _label(workspace, matrix, text, binaries) for name, text in table.items()}
    return value if changed == table else {**value, TOOLS: changed, VALUE: value.get(VALUE, value)}


def _label(workspace: Workspace, matrix: Target, text: Any, binaries: Mapping[Label, Label]) -> Any:
    with suppress(LabelError, TypeError, AttributeError):  # the analysis reports it
        label = workspace.actual(parse_label(text, matrix.label.package))
        return str(binaries[label]) if label in binaries else text
    return text
