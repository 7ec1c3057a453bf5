from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.errors import LoadError, UsageError
from bkrules.loading import graph
from bkrules.loading.workspace import Workspace, check_labels
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.query.evaluate import evaluate
from bkrules.query.parser import parse
from bkrules.query.targets import WorkspaceGraph
from bkrules.rules import RULES

MakeWorkspace = Callable[[Mapping[str, str]], Workspace]

FILES = {
    "WORKSPACE.py": "from bkrules import host_binary\n"
    "[host_binary(name = name) for name in ['buildctl', 'registry', 'buildkitd', 'runc', 'other']]\n",
    "p/BUILD.py": "from bkrules import image, worker\n"
    "image(name = 'a', files = {'etc/motd': 'motd'}, tags = ['slow'])\n"
    "image(name = 'b', base = ':a')\n"
    "worker(name = 'w', plugin = 'oci', snapshotter = 'native', tools = {'runc': '//:other'})\n",
    "p/motd": "hello\n",
    "p/unused": "",
}


def found(workspace: Workspace, query: str, *, package: str = "", implicit: bool = True, files: bool = True) -> str:
    graph = WorkspaceGraph(workspace, package, implicit=implicit, files=files)
    return " ".join(map(str, evaluate(parse(query), graph)))


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("//p:all", "//p:a //p:b //p:w"),
        (":b", "//p:b"),
        ("...", "//p:a //p:b //p:w"),
        ("deps(:b)", "//p:a //p:b //p:motd"),
        ("kind('source file', deps(:b))", "//p:motd"),
        ("rdeps(//..., :motd)", "//p:a //p:b //p:motd"),
        ("rdeps(//..., :unused)", ""),
        (":unused", "//p:unused"),
        ("labels(files, :a)", "//p:motd"),
        ("attr(snapshotter, native, //...)", "//p:w"),
        ("tag(slow, deps(:b))", "//p:a"),
        ("deps(:w)", "//:buildctl //:buildkitd //:other //:registry //p:w"),
        ("labels(tools, :w)", "//:other"),
    ],
)
def test_queries_of_a_workspace(query: str, labels: str, make_workspace: MakeWorkspace) -> None:
    assert found(make_workspace(FILES), query, package="p") == labels


def test_what_no_attribute_names_can_be_left_out(make_workspace: MakeWorkspace) -> None:
    assert found(make_workspace(FILES), "deps(//p:w)", implicit=False) == "//:other //p:w"


def test_files_can_be_left_out(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace(FILES)
    assert found(workspace, "deps(//p:b) + labels(files, //p:a)", files=False) == "//p:a //p:b"
    with pytest.raises(UsageError) as caught:
        found(workspace, "//p:motd", files=False)
    assert caught.value.reason == "unknown-target"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("//p:c", "unknown-target"),
        ("//q/...", "no-targets"),
        ("//p:a - //p:c", "unknown-target"),
        ("'//a b'", "bad-pattern"),
        ("''", "bad-pattern"),
        ("//p:..", "bad-pattern"),
    ],
)
def test_a_pattern_of_nothing_is_an_error(query: str, reason: str, make_workspace: MakeWorkspace) -> None:
    with pytest.raises(UsageError) as caught:
        found(make_workspace(FILES), query)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("build_file", "reason"),
    [
        ("image(name = 'a', base = ':b')\nimage(name = 'b', base = ':a')", "cycle"),
        ("image(name = 'a', base = ':b')\nimage(name = 'b', base = ':none')", "unknown-label"),
    ],
)
def test_a_broken_graph_is_an_error_of_loading_once_it_is_walked(
    build_file: str, reason: str, make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace({"p/BUILD.py": f"from bkrules import image\n{build_file}"})
    assert found(workspace, "//p:a") == "//p:a"
    with pytest.raises(LoadError) as caught:
        found(workspace, "deps(//p:a)")
    assert caught.value.reason == reason


def test_each_target_is_closed_once(make_workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the worst order, where each root stands on top of what is known."""
    images = [f"image(name = 'n{number}', base = ':n{number - 1}')\n" for number in range(1, 10)]
    workspace = make_workspace({"p/BUILD.py": f"from bkrules import image\nimage(name = 'n0')\n{''.join(images)}"})
    checked: list[Label] = []

    def check(space: Workspace, target: Target) -> list[Target]:
        checked.append(target.label)
        return check_labels(space, target)

    monkeypatch.setattr(graph, "check_labels", check)
    assert len(found(workspace, "deps(//p:all)").split()) == 10
    assert sorted(checked) == [Label("p", f"n{number}") for number in range(10)]


PIECES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        ["deps(", "rdeps(//...,", "kind('rule',", "labels(mirror,", "somepath(", ")", ",", "+", "-", "^", "("]
    ),
    st.sampled_from(["//...", "//targets:oci", "//targets:mirror", ":all", "//:cc", "@bk_tools//box:main.go", "''"]),
    st.sampled_from(["set(", "let v =", "in", "$v", "1", "//" + "a" * 300, "'//a b'"]),
)


@given(st.lists(PIECES, max_size=8).map(" ".join))
def test_garbage_is_an_error_of_usage(repository: Path, text: str) -> None:
    with contextlib.suppress(UsageError):
        found(Workspace(str(repository), RULES), text)
