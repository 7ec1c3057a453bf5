from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bkrules import cli
from bkrules.loading.loader import load
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Attr, Location, Rule, Target, check_attributes
from bkrules.query.output import FORMATS, _build_file, _call, show
from bkrules.query.targets import WorkspaceGraph
from bkrules.rules import RULES

MakeWorkspace = Callable[[Mapping[str, str]], Workspace]

FILES = {
    "p/BUILD.py": "from bkrules import image, worker\n"
    "def both(name, **more):\n"
    "  image(name = name, **more)\n"
    "  image(name = name + '_two', base = ':' + name)\n"
    "both('a', files = {'etc/motd': 'motd'}, tags = ['slow'], noise = {'x': 3})\n"
    "worker(name = 'w', plugin = 'oci', proxy = True)\n",
    "p/motd": "hello\n",
}


@pytest.fixture
def graph(make_workspace: MakeWorkspace) -> WorkspaceGraph:
    return WorkspaceGraph(make_workspace(FILES), "p")


ALL = [Label("p", "a"), Label("p", "a_two"), Label("p", "motd")]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("label", "//p:a\n//p:a_two\n//p:motd\n"),
        ("label_kind", "image rule //p:a\nimage rule //p:a_two\nsource file //p:motd\n"),
        (
            "location",
            "p/BUILD.py:3: image rule //p:a\np/BUILD.py:4: image rule //p:a_two\np/motd:1: source file //p:motd\n",
        ),
        ("minrank", "0 //p:a_two\n1 //p:a\n2 //p:motd\n"),
        (
            "graph",
            'digraph bk {\n  node [shape=box];\n  "//p:a"\n  "//p:a" -> "//p:motd"\n'
            '  "//p:a_two"\n  "//p:a_two" -> "//p:a"\n  "//p:motd"\n}\n',
        ),
        (
            "build",
            "from bkrules import image\n\n"
            '# p/BUILD.py:3\nimage(\n    name = "a",\n    tags = ["slow"],\n    files = {"etc/motd": "//p:motd"},\n'
            '    noise = {"x": 3},\n)\n\n'
            '# p/BUILD.py:4\nimage(\n    name = "a_two",\n    base = "//p:a",\n)\n',
        ),
    ],
)
def test_the_formats(output: str, text: str, graph: WorkspaceGraph) -> None:
    assert show(ALL, graph, output) == text


def test_json_has_all_attributes(graph: WorkspaceGraph) -> None:
    first, worker, file = json.loads(show([ALL[0], Label("p", "w"), ALL[2]], graph, "json"))
    assert (first["label"], first["rule"], first["location"]) == ("//p:a", "image", "p/BUILD.py:3")
    assert first["attributes"]["files"] == {"etc/motd": "//p:motd"}
    assert first["attributes"]["base"] is None
    assert first["attributes"]["tags"] == ["slow"]
    assert worker["attributes"]["proxy"] is True
    assert file == {"label": "//p:motd", "rule": "source file", "location": "p/motd:1", "attributes": {}}


@pytest.mark.parametrize("output", FORMATS)
def test_an_empty_answer(output: str, graph: WorkspaceGraph) -> None:
    empty = {"json": "[]\n", "graph": "digraph bk {\n  node [shape=box];\n}\n"}
    assert show([], graph, output) == empty.get(output, "")


def test_the_rank_is_that_of_the_nearest_root(make_workspace: MakeWorkspace) -> None:
    text = "from bkrules import image, estargz_image, image_mirror\nimage(name = 'a')\nimage(name = 'b', base = ':a')\n"
    text += "image_mirror(name = 'm', images = {'docker.io/library/a:1': ':a', 'docker.io/library/b:1': ':b'})\n"
    graph = WorkspaceGraph(make_workspace({"p/BUILD.py": text}), "p")
    labels = [Label("p", name) for name in "abm"]
    assert show(labels, graph, "minrank") == "0 //p:m\n1 //p:a\n1 //p:b\n"
    assert show(labels[:2], graph, "minrank") == "0 //p:b\n1 //p:a\n"
    assert show([labels[0]], graph, "minrank") == "0 //p:a\n"


def test_every_format_is_a_choice_of_the_command() -> None:
    for output in FORMATS:
        assert cli._parser(cli.MODULES)[0].parse_args(["query", f"--output={output}", "//..."]).output == output


THING = Rule(
    "thing",
    "A rule with an attribute of every kind, and more that are not declared.",
    {
        "title": Attr("string", "A title."),
        "words": Attr("strings", "Some words.", default=()),
        "ready": Attr("bool", "Whether it is ready.", default=False),
        "size": Attr("count", "A size.", default=1),
        "table": Attr("dict", "A table.", default={}),
        "dep": Attr("label", "A dependency.", default=":near"),
        "deps": Attr("labels", "Dependencies.", default=()),
        "by_name": Attr("label_dict", "Dependencies by name.", default={}),
    },
    lambda _context: (),
    open_ended=True,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=150)  # others are refused
SIMPLE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SIMPLE,
    lambda below: st.one_of(
        st.lists(below, max_size=4),
        st.lists(below, max_size=4).map(tuple),
        st.dictionaries(TEXT, below, max_size=4),
    ),
    max_leaves=8,
)
NAMED = st.sampled_from([":a", "b", "//p:c", "//q/r:d/e.f", "//:x+y=z"])
GIVEN = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "x/y", "b+c=d,e@f~g"])},
    optional={
        "tags": st.lists(TEXT, max_size=3),
        "title": TEXT,
        "words": st.lists(TEXT, max_size=6),
        "ready": st.booleans(),
        "size": st.integers(1),
        "table": st.dictionaries(TEXT, VALUES, max_size=4),
        "dep": NAMED,
        "deps": st.lists(NAMED, max_size=9),
        "by_name": st.dictionaries(TEXT, NAMED, max_size=4),
        "setting": VALUES,
        "class": VALUES,
        "not-a-name": VALUES,
    },
)


def loaded(text: str, folder: str) -> dict[str, Target]:
    return load(text.encode(), "p/BUILD.py", folder, {**RULES, "thing": THING}).targets


@given(GIVEN)
@example({"name": "a", "setting": [float("inf"), float("-inf"), (1,), "both ' and \"", "\u2028\x85"]})
def test_what_is_printed_as_a_build_file_loads_to_the_same_target(given: dict[str, Any]) -> None:
    where = Location("p/BUILD.py", 1)
    attributes, extra = check_attributes(THING, Label("p", given["name"]), given, where)
    target = Target(Label("p", given["name"]), THING, attributes, extra, where)

    again = loaded(f"from bkrules import thing\n{_call(target)}", "p")[given["name"]]

    assert repr(again.attributes) == repr(attributes)
    assert repr(sorted(again.extra.items(), key=str)) == repr(sorted(extra.items(), key=str))


def test_the_build_files_of_this_workspace_load_again(repository: Path) -> None:
    workspace = Workspace(str(repository), RULES)
    graph = WorkspaceGraph(workspace, "")
    for folder in workspace.packages():
        original = workspace.package(folder)
        assert original is not None
        labels: Sequence[Label] = [target.label for target in original.targets.values()]
        again = loaded(_build_file(labels, graph), folder)
        assert {name: (one.rule, one.attributes, one.extra) for name, one in again.items()} == {
            name: (one.rule, one.attributes, one.extra) for name, one in original.targets.items()
        }
