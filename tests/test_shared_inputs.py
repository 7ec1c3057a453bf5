"""Inputs that actions share: the same inputs and the same keys as without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import growth
import pytest
from rounds import rounds

from bkrules.build.analysis import analyze_patterns
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.model import digest
from bkrules.model.action import (
    Action,
    Artifact,
    DirectoryNode,
    FileNode,
    HostFile,
    Inputs,
    Node,
    Output,
    SharedInputs,
    Text,
    key_of,
)
from bkrules.model.label import Label
from bkrules.model.parameters import TestCell, parameters_of
from bkrules.model.shared_nodes import SharedNodes
from bkrules.model.wire import text_of

ACTION = Action("a", Label("p", "t"), "Genrule", ("x",), (), ("o",), (("A", "b"),), (("ISA", "x"),), 3)
PATHS = (
    "a",
    "b/c",
    "b/d",
    "b/e/f",
    "b/e/g",
    "b-/c",
    "b.c",
    "tools/x",
    "tools/y",
    "src/t.py",
    "z/1/2/3",
    "mirror/h/r/t",
)


def random_node(random: Random) -> Node:
    file = FileNode(digest.of_bytes(random.choice([b"1", b"2"])), "", random.random() < 0.3)
    if random.random() < 0.8:
        return file
    names = random.sample(["x", "y/z", "y/w"], random.randrange(3))
    return DirectoryNode(dict.fromkeys(names, file), edited=random.random() < 0.5)


def random_nodes(random: Random) -> dict[str, Node]:
    return {path: random_node(random) for path in random.sample(PATHS, random.randrange(len(PATHS)))}


def test_random_keys_are_those_of_all_inputs() -> None:
    random = Random(11)
    for _ in range(rounds(300)):
        shared = random_nodes(random)
        nodes = SharedNodes(shared)
        for number in range(3):
            own = random_nodes(random)
            action = replace(ACTION, arguments=(str(number),), timeout=number, made_in=random.choice(["", "out"]))
            whole = key_of(action, {**shared, **own})
            assert nodes.key(action, own) == whole
            assert dict(nodes.key(action, own).leaves) == whole.leaves
            again = replace(action, arguments=("again",), environment=(("A", str(number)),))
            assert nodes.key(again, own) == key_of(again, {**shared, **own})


def test_random_inputs_are_sorted_and_whole() -> None:
    random = Random(12)
    artifacts: list[Artifact] = [Text(b"1"), HostFile("x"), Output("other", "o"), Output("more", "o"), Text(b"2")]

    def some() -> dict[str, Artifact]:
        return {path: random.choice(artifacts) for path in random.sample(PATHS, random.randrange(len(PATHS)))}

    for _ in range(rounds(300)):
        shared, own = some(), some()
        whole: Mapping[str, Artifact] = {**shared, **own}
        inputs = Inputs.of(SharedInputs(shared), own)
        plain = tuple(sorted(whole.items(), key=lambda pair: pair[0]))
        assert inputs == plain
        assert replace(ACTION, inputs=inputs).dependencies == replace(ACTION, inputs=plain).dependencies


UPDATES = """from bkrules import image_mirror, test_matrix, worker
image_mirror(name = "mirror", images = {})
worker(name = "oci", plugin = "oci")
worker(name = "small", plugin = "oci", id = "small")
test_matrix(name = "m", tests = ["test_it.py"], workers = [":oci", ":small"], mirror = ":mirror", axes = {
    "level": {"low": 1, "high": 2},
    "daemon": {
        "plain": "",
        "serial": {"buildkitd.toml": {"worker": {"oci": {"max-parallelism": 1}}}},
        "other": {"tools": {"runc": "//:registry"}},
        "noisy": {"flags": {"buildkitd": ["--trace"]}},
    },
})
"""


@pytest.mark.parametrize("build", [growth.BUILD, UPDATES], ids=["plain", "axes that change the worker"])
def test_cells_have_the_keys_of_all_their_inputs(tmp_path: Path, build: str) -> None:
    growth.write(tmp_path, "file", 20)
    (tmp_path / "p0/BUILD.py").write_text(build)
    analysis = analyze_patterns(str(tmp_path), ["//..."])
    execution = Execution(analysis, Options(1, str(tmp_path / "cache")), print, show=False)
    cells = list(analysis.wanted().values())

    assert len({id(cell.inputs.shared) for cell in cells if isinstance(cell.inputs, Inputs)}) == (
        1 if build == growth.BUILD else 2
    )
    for cell in cells:
        assert isinstance(cell.inputs, Inputs)
        assert len(cell.inputs.own) <= 4
        assert [path for path, _ in cell.inputs] == sorted({path for path, _ in cell.inputs})
        assert execution.executor.key(cell) == key_of(cell, execution.executor.inputs(cell))
        assert cell.arguments == (text_of(parameters_of(cell, TestCell)),)
