"""The evaluator of queries: an expression becomes a set of labels, on any graph that answers four questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from bkrules.model.label import Label
from bkrules.query.functions import regex
from bkrules.query.nodes import Call, Chain, Expression, Let, Set, Variable, Word

Labels = frozenset[Label]
Neighbours = Callable[[Label], Iterable[Label]]


class Graph(Protocol):
    """The questions that a query asks about targets."""

    def match(self, pattern: str) -> Iterable[Label]:
        """Return the targets that the pattern names. Raises UsageError when there are none."""

    def dependencies(self, label: Label) -> Iterable[Label]:
        """Return the labels that a target depends on directly."""

    def kind(self, label: Label) -> str:
        """Return `image rule` and the like, or `source file`."""

    def attribute(self, label: Label, name: str) -> Any:
        """Return the value of an attribute, with `Label`s in it; None when the target has none of that name."""


def evaluate(expression: Expression, graph: Graph) -> tuple[Label, ...]:
    """Return the labels that the expression names: sorted, except for `somepath`, whose labels are in the order of the path.

    Raises the errors of the graph.
    """
    evaluator = _Evaluator(graph)
    if isinstance(expression, Call) and expression.name == "somepath":
        start, end = (evaluator.value(item, {}) for item in expression.arguments)
        return evaluator.path(start, end)
    return tuple(sorted(evaluator.value(expression, {})))


class _Evaluator:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.functions: dict[str, Callable[..., Iterable[Label]]] = {
            "allpaths": self.allpaths,
            "attr": lambda name, pattern, among: self.where(
                among, pattern, lambda one: self.texts(self.graph.attribute(one, name))
            ),
            "deps": lambda among, depth=None: reach(among, self.graph.dependencies, depth),
            "filter": lambda pattern, among: self.where(among, pattern, lambda one: [str(one)]),
            "kind": lambda pattern, among: self.where(among, pattern, lambda one: [self.graph.kind(one)]),
            "labels": self.labels,
            "rdeps": self.rdeps,
            "somepath": self.path,
            "tag": lambda pattern, among: self.where(
                among, pattern, lambda one: self.graph.attribute(one, "tags") or ()
            ),
        }

    def value(self, expression: Expression | str | int, scope: Mapping[str, Labels]) -> Any:
        match expression:
            case str() | int():
                return expression
            case Word():
                return frozenset(self.graph.match(expression.text))
            case Variable():
                return scope[expression.name]
            case Set():
                return frozenset().union(*(self.value(item, scope) for item in expression.items))
            case Let():
                return self.value(expression.body, {**scope, expression.name: self.value(expression.value, scope)})
            case Chain():
                return self.chain(expression, scope)
            case Call():
                arguments = [self.value(item, scope) for item in expression.arguments]
                return frozenset(self.functions[expression.name](*arguments))

    def chain(self, expression: Chain, scope: Mapping[str, Labels]) -> Labels:
        found: Labels = self.value(expression.first, scope)
        for sign, item in expression.rest:
            other: Labels = self.value(item, scope)
            found = found | other if sign == "+" else found - other if sign == "-" else found & other
        return found

    def where(self, among: Labels, pattern: str, texts: Callable[[Label], Iterable[str]]) -> Iterator[Label]:
        search = regex(pattern).search
        return (one for one in among if any(search(text) for text in texts(one)))

    def texts(self, value: Any) -> list[str]:
        return [] if value is None else [text_of(value)]

    def labels(self, name: str, among: Labels) -> Labels:
        found: set[Label] = set()
        for one in among:
            named = set(_labels_in(self.graph.attribute(one, name)))
            if named:
                found |= named.intersection(self.graph.dependencies(one))
        return frozenset(found)

    def rdeps(self, universe: Labels, among: Labels, depth: int | None = None) -> Labels:
        whole = reach(universe, self.graph.dependencies)
        return reach(among & whole, self.reverse(whole), depth)

    def allpaths(self, start: Labels, end: Labels) -> Labels:
        return self.rdeps(start, end)

    def reverse(self, whole: Labels) -> Neighbours:
        users: dict[Label, list[Label]] = {one: [] for one in whole}
        for one in whole:
            for other in self.graph.dependencies(one):
                users[other].append(one)
        return users.__getitem__

    def path(self, start: Labels, end: Labels) -> tuple[Label, ...]:
        """Return a shortest path from one of `start` to one of `end`, always the same one. Empty when there is none."""
        came_from: dict[Label, Label | None] = dict.fromkeys(sorted(start))
        level = list(came_from)
        while level:
            for one in level:
                if one in end:
                    return _way(one, came_from)
            following = []
            for one in level:
                for other in sorted(self.graph.dependencies(one)):
                    if other not in came_from:
                        came_from[other] = one
                        following.append(other)
            level = following
        return ()


def reach(start: Iterable[Label], neighbours: Neighbours, depth: int | None = None) -> Labels:
    """Return all labels that are reached from `start` in at most `depth` steps, including `start`."""
    found = set(start)
    level = sorted(found)
    while level and (depth is None or depth > 0):
        following = {other for one in level for other in neighbours(one)} - found
        found |= following
        level = sorted(following)
        depth = None if depth is None else depth - 1
    return frozenset(found)


def text_of(value: Any) -> str:
    """Return an attribute's value as `attr` compares it, in Bazel's form: `[a, b]`, `{k=v}`, and 1 or 0 for a boolean."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text_of(key)}={text_of(item)}" for key, item in value.items()) + "}"
    return str(value)


def _labels_in(value: Any) -> Iterator[Label]:
    if isinstance(value, Label):
        yield value
    elif isinstance(value, tuple):
        yield from (item for item in value if isinstance(item, Label))
    elif isinstance(value, dict):
        yield from (item for item in value.values() if isinstance(item, Label))


def _way(end: Label, came_from: Mapping[Label, Label | None]) -> tuple[Label, ...]:
    steps: list[Label] = []
    step: Label | None = end
    while step is not None:
        steps.append(step)
        step = came_from[step]
    return tuple(reversed(steps))
