from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.model.label import Label, parse_pattern
from bkrules.query.evaluate import evaluate, text_of
from bkrules.query.parser import parse


@dataclass(frozen=True)
class Fake:
    """A graph from a table: each name with the names that it depends on."""

    edges: Mapping[str, Iterable[str]]
    kinds: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def match(self, pattern: str) -> Iterable[Label]:
        parsed = parse_pattern(pattern)
        return [label for name in self.edges if parsed.matches(label := Label("", name))]

    def dependencies(self, label: Label) -> Iterable[Label]:
        return [Label("", name) for name in self.edges[label.name]]

    def kind(self, label: Label) -> str:
        return self.kinds[label.name]

    def attribute(self, label: Label, name: str) -> Any:
        return self.attributes.get(label.name, {}).get(name)


def names(query: str, graph: Fake) -> list[str]:
    return [label.name for label in evaluate(parse(query), graph)]


DIAMOND = Fake({"a": "bc", "b": "d", "c": "d", "d": "e", "e": "", "x": "d"})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("//...", "abcdex"),
        ("a", "a"),
        ("set(b a)", "ab"),
        ("set()", ""),
        ("deps(b)", "bde"),
        ("deps(a, 0)", "a"),
        ("deps(a, 1)", "abc"),
        ("deps(a, 2)", "abcd"),
        ("deps(b + c)", "bcde"),
        ("rdeps(//..., d)", "abcdx"),
        ("rdeps(//..., d, 0)", "d"),
        ("rdeps(//..., d, 1)", "bcdx"),
        ("rdeps(a, d)", "abcd"),
        ("rdeps(b, d)", "bd"),
        ("rdeps(a, x)", ""),
        ("somepath(x, e)", "xde"),
        ("somepath(a, e)", "abde"),
        ("somepath(e, a)", ""),
        ("somepath(a, a)", "a"),
        ("somepath(x + a, b + c)", "ab"),
        ("somepath(x, e) - e", "dx"),
        ("allpaths(a, d)", "abcd"),
        ("allpaths(b, e)", "bde"),
        ("allpaths(e, a)", ""),
        ("a + b - a + a", "ab"),
        ("a - a + a", "a"),
        ("a - (a + b)", ""),
        ("a + b ^ b", "b"),
        ("a + (b ^ c)", "a"),
        ("let v = deps(b) in $v - b", "de"),
        ("let v = a in let v = $v + b in $v", "ab"),
        ("(let v = a in $v) + b", "ab"),
        ("filter('//:[ab]$', //...)", "ab"),
        ("filter(b, //...)", "b"),
    ],
)
def test_the_value_of_a_query(query: str, found: str) -> None:
    assert names(query, DIAMOND) == list(found)


THINGS = Fake(
    {"a": "bf", "b": "", "f": ""},
    {"a": "image rule", "b": "estargz_image rule", "f": "source file"},
    {
        "a": {
            "name": "a",
            "tags": ("slow", "net"),
            "base": Label("", "b"),
            "files": {"x": Label("", "f"), "y": Label("", "gone")},
            "size": 3,
            "proxy": True,
            "title": None,
        },
        "b": {"name": "b", "tags": (), "deps": (Label("", "b"),), "proxy": False},
    },
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind('image rule', //...)", "ab"),
        ("kind('^image rule$', //...)", "a"),
        ("kind('source file', deps(a))", "f"),
        ("tag(slow, //...)", "a"),
        ("tag('^ne', //...)", "a"),
        ("tag('slow, net', //...)", ""),
        ("attr(tags, 'slow, net', //...)", "a"),
        (r"attr(tags, '\[\]', //...)", "b"),
        ("attr(name, '', //...)", "ab"),
        ("attr(title, '', //...)", ""),
        ("attr(colour, '', //...)", ""),
        ("attr(size, '^3$', //...)", "a"),
        ("attr(proxy, 1, //...)", "a"),
        ("attr(proxy, 0, //...)", "b"),
        ("attr(base, '^//:b$', //...)", "a"),
        ("labels(base, //...)", "b"),
        ("labels(files, a)", "f"),
        ("labels(name, //...)", ""),
        ("labels(none, //...)", ""),
    ],
)
def test_what_targets_are_asked(query: str, found: str) -> None:
    assert names(query, THINGS) == list(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "1"),
        (3, "3"),
        ("a", "a"),
        (Label("p", "a"), "//p:a"),
        (("a", Label("p", "a")), "[a, //p:a]"),
        ({"a": 1, "b": [False]}, "{a=1, b=[0]}"),
        ((), "[]"),
    ],
)
def test_an_attribute_is_text_as_in_bazel(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_deep_graph_needs_no_deep_stack() -> None:
    graph = Fake({f"n{number}": [f"n{number + 1}"] if number < 5000 else [] for number in range(5001)})
    assert len(names("deps(n0)", graph)) == 5001
    assert len(names("somepath(n0, n5000)", graph)) == 5001


def test_a_cycle_ends() -> None:
    graph = Fake({"a": "b", "b": "a"})
    assert names("deps(a)", graph) == names("rdeps(a, b)", graph) == ["a", "b"]


@st.composite
def graphs(draw: st.DrawFn) -> Fake:
    """Random graphs without cycles."""
    size = draw(st.integers(1, 7))
    pairs = [(one, other) for one in range(size) for other in range(one + 1, size)]
    edges = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    return Fake({f"n{one}": [f"n{other}" for first, other in sorted(edges) if first == one] for one in range(size)})


def closure(graph: Fake, start: Iterable[str]) -> set[str]:
    """What is reached from `start`, in the most naive way."""
    found = set(start)
    while more := {other for one in found for other in graph.edges[one]} - found:
        found |= more
    return found


def chosen(draw: st.DataObject, graph: Fake) -> tuple[set[str], str]:
    some = draw.draw(st.sets(st.sampled_from(sorted(graph.edges))))
    return some, f"set({' '.join(sorted(some))})"


@given(graphs(), st.data())
def test_deps_is_the_closure(graph: Fake, data: st.DataObject) -> None:
    some, text = chosen(data, graph)
    assert set(names(f"deps({text})", graph)) == closure(graph, some)
    steps = some
    for depth in range(4):
        assert set(names(f"deps({text}, {depth})", graph)) == steps
        steps = steps | {other for one in steps for other in graph.edges[one]}


@given(graphs(), st.data())
def test_rdeps_are_those_that_reach(graph: Fake, data: st.DataObject) -> None:
    some, text = chosen(data, graph)
    universe, around = chosen(data, graph)
    whole = closure(graph, universe)
    assert set(names(f"rdeps({around}, {text})", graph)) == {one for one in whole if closure(graph, [one]) & some}
    steps = some & whole
    for depth in range(4):
        assert set(names(f"rdeps({around}, {text}, {depth})", graph)) == steps
        steps = steps | {one for one in whole if set(graph.edges[one]) & steps}


@given(graphs(), st.data())
def test_paths(graph: Fake, data: st.DataObject) -> None:
    some, start = chosen(data, graph)
    others, end = chosen(data, graph)
    between = {one for one in closure(graph, some) if closure(graph, [one]) & others}
    path = names(f"somepath({start}, {end})", graph)

    assert set(names(f"allpaths({start}, {end})", graph)) == between
    assert bool(path) == bool(between)
    assert all(other in graph.edges[one] for one, other in pairwise(path))
    if path:
        assert path[0] in some
        assert path[-1] in others
    assert set(names(f"somepath({start}, {end}) + set()", graph)) == set(path)


LAWS = [
    ("{a} + {b}", "{b} + {a}"),
    ("{a} ^ {b}", "{b} ^ {a}"),
    ("{a} + ({b} + {c})", "{a} + {b} + {c}"),
    ("{a} ^ ({b} ^ {c})", "{a} ^ {b} ^ {c}"),
    ("{a} - {b} - {c}", "{a} - ({b} + {c})"),
    ("{a} ^ {b}", "{a} - ({a} - {b})"),
    ("{a} ^ ({b} + {c})", "({a} ^ {b}) + ({a} ^ {c})"),
    ("{a} - ({b} ^ {c})", "({a} - {b}) + ({a} - {c})"),
    ("{a} - {a}", "set()"),
    ("{a} + {a}", "{a}"),
    ("{a} - {b} + {c}", "({a} - {b}) + {c}"),
    ("{a} + {b} ^ {c}", "({a} + {b}) ^ {c}"),
    ("{a} union {b} except {c} intersect {a}", "{a} + {b} - {c} ^ {a}"),
    ("let v = {a} in $v ^ {b} + $v", "({a} ^ {b}) + {a}"),
    ("deps({a} + {b})", "deps({a}) + deps({b})"),
    ("rdeps(//..., {a} + {b})", "rdeps(//..., {a}) + rdeps(//..., {b})"),
]


@pytest.mark.parametrize(("left", "right"), LAWS)
@given(graph=graphs(), data=st.data())
def test_laws(left: str, right: str, graph: Fake, data: st.DataObject) -> None:
    sets = {name: chosen(data, graph)[1] for name in "abc"}
    assert names(left.format(**sets), graph) == names(right.format(**sets), graph)


@given(graphs(), st.data())
def test_operators_are_those_of_sets(graph: Fake, data: st.DataObject) -> None:
    (one, first), (other, second) = chosen(data, graph), chosen(data, graph)
    assert names(f"{first} + {second}", graph) == sorted(one | other)
    assert names(f"{first} - {second}", graph) == sorted(one - other)
    assert names(f"{first} ^ {second}", graph) == sorted(one & other)
