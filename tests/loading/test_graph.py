from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from bkrules.errors import LoadError
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label, parse_pattern
from bkrules.plugin.installed import Plugins

Close = Callable[..., TargetGraph]


@pytest.fixture
def graph_of(make_workspace: Callable[[Mapping[str, str]], Workspace]) -> Close:
    def run(build_file: str, *patterns: str, files: Mapping[str, str] | None = None) -> TargetGraph:
        workspace = make_workspace({"p/BUILD.py": build_file, **(files or {})})
        wanted = workspace.match([parse_pattern(text, "p") for text in patterns or (":a",)])
        return close(workspace, wanted, Plugins({}, {}))

    return run


def names(graph: TargetGraph) -> list[str]:
    return [target.label.name for target in graph.targets]


def test_dependencies_come_first_in_the_order_of_their_naming(graph_of: Close) -> None:
    graph = graph_of(
        "thing(name = 'a', dep = ':d', deps = [':c', ':b'])\n"
        "thing(name = 'b')\n"
        "thing(name = 'c', by_name = {'x': ':e'})\n"
        "thing(name = 'd')\n"
        "thing(name = 'e')\n"
        "thing(name = 'unused')\n"
    )
    assert names(graph) == ["d", "e", "c", "b", "a"]
    assert graph.wanted == (Label("p", "a"),)
    assert graph.edges[Label("p", "a")] == (Label("p", "d"), Label("p", "c"), Label("p", "b"))
    assert graph.edges[Label("p", "b")] == ()


@pytest.mark.parametrize("deps", ["':b', ':c'", "':c', ':b'"])
def test_a_diamond_has_each_target_once(deps: str, graph_of: Close) -> None:
    graph = graph_of(
        f"thing(name = 'a', deps = [{deps}])\n"
        "thing(name = 'b', deps = [':c', ':d'])\n"
        "thing(name = 'c', deps = [':d'])\n"
        "thing(name = 'd')\n"
    )
    assert names(graph) == ["d", "c", "b", "a"]


def test_a_target_named_twice_by_another_is_no_cycle(graph_of: Close) -> None:
    assert names(graph_of("thing(name = 'a', dep = ':b', deps = [':b', ':b'])\nthing(name = 'b')")) == ["b", "a"]


def test_several_wanted_targets_share_what_is_below(graph_of: Close) -> None:
    graph = graph_of("thing(name = 'b', dep = ':a')\nthing(name = 'c', dep = ':a')\nthing(name = 'a')", ":all")
    assert names(graph) == ["a", "b", "c"]
    assert [label.name for label in graph.wanted] == ["a", "b", "c"]


def test_files_are_not_in_the_graph(graph_of: Close) -> None:
    graph = graph_of(
        "thing(name = 'a', deps = ['file.txt', '//q:q'])", files={"p/file.txt": "", "q/BUILD.py": "thing(name = 'q')"}
    )
    assert names(graph) == ["q", "a"]


def test_an_implicit_dependency_is_taken_when_it_exists(graph_of: Close) -> None:
    graph = graph_of("assisted(name = 'a')\nthing(name = 'helper')")
    assert names(graph) == ["helper", "a"]
    assert graph.edges[Label("p", "a")] == (Label("p", "helper"),)


def test_an_implicit_dependency_is_left_out_when_it_does_not_exist(graph_of: Close) -> None:
    assert names(graph_of("assisted(name = 'a')")) == ["a"]


def test_a_cycle_is_shown_edge_by_edge(graph_of: Close) -> None:
    with pytest.raises(LoadError) as caught:
        graph_of(
            "thing(name = 'a', dep = ':b')\nthing(name = 'b',\n  deps = ['//q:c'])\n",
            files={"q/BUILD.py": "\n\nthing(name = 'c', by_name = {'x': '//p:b'})\n"},
        )
    assert caught.value.reason == "cycle"
    assert caught.value.where.splitlines() == [
        "p/BUILD.py:4, attribute 'deps': //p:b -> //q:c",
        "q/BUILD.py:4, attribute 'by_name': //q:c -> //p:b",
    ]


def test_a_target_that_depends_on_itself(graph_of: Close) -> None:
    with pytest.raises(LoadError) as caught:
        graph_of("thing(name = 'a',\n  dep = ':a')")
    assert caught.value.reason == "cycle"
    assert caught.value.where == "p/BUILD.py:3, attribute 'dep': //p:a -> //p:a"


def test_a_cycle_through_an_implicit_dependency_has_its_lines_too(graph_of: Close) -> None:
    with pytest.raises(LoadError) as caught:
        graph_of("assisted(name = 'a')\nthing(name = 'helper', dep = ':a')")
    edges = caught.value.where.splitlines()
    assert edges[0].startswith("p/BUILD.py:2")
    assert edges[0].endswith(": //p:a -> //p:helper")
    assert edges[1] == "p/BUILD.py:3, attribute 'dep': //p:helper -> //p:a"


def test_an_unknown_label_deep_in_the_graph_is_refused_at_its_line(graph_of: Close) -> None:
    with pytest.raises(LoadError) as caught:
        graph_of("thing(name = 'a', dep = ':b')\nthing(name = 'b',\n  deps = [':a1'])")
    assert caught.value.reason == "unknown-label"
    assert caught.value.where == "p/BUILD.py:4, attribute 'deps'"


def test_a_deep_graph_needs_no_deep_stack(graph_of: Close) -> None:
    chain = "[thing(name = 'n' + str(n), deps = [':n' + str(n + 1)] if n < 3000 else []) for n in range(3001)]"
    graph = graph_of(chain, ":n0")
    assert len(graph.targets) == 3001
    assert names(graph)[0] == "n3000"


class Asked:
    """A set of labels that cannot be copied, only asked."""

    def __init__(self, *labels: Label) -> None:
        self.labels = labels

    def __contains__(self, label: object) -> bool:
        return label in self.labels


def test_what_is_known_is_neither_returned_nor_copied(
    make_workspace: Callable[[Mapping[str, str]], Workspace],
) -> None:
    """A query asks for the targets one after another: a copy for each would make its time grow with the square of their number."""
    workspace = make_workspace(
        {"p/BUILD.py": "thing(name = 'a', dep = ':b')\nthing(name = 'b', dep = ':c')\nthing(name = 'c')"}
    )
    wanted = workspace.match([parse_pattern(":a", "p")])

    graph = close(workspace, wanted, Plugins({}, {}), known=Asked(Label("p", "b")))

    assert names(graph) == ["a"]
