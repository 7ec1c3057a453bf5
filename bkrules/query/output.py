"""The output of a query in each format."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bkrules.model.label import Label
from bkrules.model.rule import COMMON, Target, default_value
from bkrules.query.targets import SOURCE_FILE, WorkspaceGraph


def show(labels: Sequence[Label], graph: WorkspaceGraph, output: str) -> str:
    """Return the labels in one of the formats of `FORMATS`. Raises the errors of the graph."""
    return FORMATS[output](labels, graph)


def _labels(labels: Sequence[Label], _graph: WorkspaceGraph) -> str:
    return "".join(f"{label}\n" for label in labels)


def _kinds(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    return "".join(f"{graph.kind(label)} {label}\n" for label in labels)


def _locations(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    return "".join(f"{_place(label, graph)}: {graph.kind(label)} {label}\n" for label in labels)


def _place(label: Label, graph: WorkspaceGraph) -> str:
    target = graph.workspace.target(label)
    return str(target.location) if target else f"{label.path}:1"


def _json(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    documents = []
    for label in labels:
        target = graph.workspace.target(label)
        documents.append(
            {
                "label": str(label),
                "rule": target.rule.name if target else SOURCE_FILE,
                "location": _place(label, graph),
                "attributes": _plain({**target.attributes, **target.extra} if target else {}),
            }
        )
    return json.dumps(documents, indent=1) + "\n"


def _plain(value: Any) -> Any:
    """Return a value as JSON. A value that JSON cannot express becomes its text."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _dot(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    """Return the labels and the direct dependencies between them, for Graphviz."""
    below = _subgraph(labels, graph)
    lines = ["digraph bk {", "  node [shape=box];"]
    for label in sorted(below):
        lines.append(f'  "{label}"')
        lines += [f'  "{label}" -> "{other}"' for other in below[label]]
    return "\n".join([*lines, "}", ""])


def _ranks(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    """Return each label after the number of steps from the nearest one that no other of them depends on."""
    below = _subgraph(labels, graph)
    level = set(below) - {other for others in below.values() for other in others}
    seen: set[Label] = set()
    lines = []
    rank = 0
    while level:
        seen |= level
        lines += [f"{rank} {label}\n" for label in sorted(level)]
        level = {other for label in level for other in below[label]} - seen
        rank += 1
    return "".join(lines)


def _subgraph(labels: Iterable[Label], graph: WorkspaceGraph) -> dict[Label, list[Label]]:
    whole = set(labels)
    return {label: sorted(whole.intersection(graph.dependencies(label))) for label in whole}


def _build_file(labels: Sequence[Label], graph: WorkspaceGraph) -> str:
    """Return the targets as declarations of a build file, with macros and loops expanded."""
    targets = graph.targets(labels)
    if not targets:
        return ""
    names = sorted({target.rule.name for target in targets})
    return "\n".join([f"from bkrules import {', '.join(names)}\n", *map(_call, targets)])


def _call(target: Target) -> str:
    lines = [f"# {target.location}", f"{target.rule.name}("]
    others = {}
    for name, value in {**_given(target), **target.extra}.items():
        if name.isidentifier() and not keyword.iskeyword(name):
            lines.append(f"    {name} = {_literal(value, 1)},")
        else:
            others[name] = value
    if others:
        lines.append(f"    **{_literal(others, 1)},")
    return "\n".join([*lines, ")", ""])


def _given(target: Target) -> dict[str, Any]:
    """Return the attributes that differ from their defaults."""
    schema = {**COMMON, **target.rule.attributes}
    package = target.label.package
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in target.attributes.items()
        if schema[name].required or value != default_value(schema[name], package)
    }


def _literal(value: Any, depth: int) -> str:
    """Return the value as an expression of a build file. Long lists and dictionaries have one line for each item."""
    if isinstance(value, Label | str):
        return _string(str(value))
    if isinstance(value, float):
        return repr(value).replace("inf", "1e999")
    if isinstance(value, dict):
        items, ends = [f"{_literal(key, depth)}: {_literal(item, depth + 1)}" for key, item in value.items()], "{}"
    elif isinstance(value, list):
        items, ends = [_literal(item, depth + 1) for item in value], "[]"
    elif isinstance(value, tuple):
        items, ends = [_literal(item, depth + 1) for item in value], "()"
    else:
        return repr(value)
    line = ends[0] + ", ".join(items) + ("," if ends == "()" and items else "") + ends[1]
    if len(line) <= 100 and "\n" not in line:
        return line
    indent = "    " * depth
    return "\n".join([ends[0], *(f"{indent}    {item}," for item in items), indent + ends[1]])


def _string(value: str) -> str:
    text = repr(value)
    return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text


FORMATS: Mapping[str, Callable[[Sequence[Label], WorkspaceGraph], str]] = {
    "label": _labels,
    "label_kind": _kinds,
    "location": _locations,
    "json": _json,
    "graph": _dot,
    "build": _build_file,
    "minrank": _ranks,
}
