from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bkrules.model import digest, reapi
from bkrules.model.action import (
    Action,
    Cell,
    DirectoryNode,
    FileNode,
    HostFile,
    Node,
    Output,
    Source,
    Text,
    key_of,
    merkle,
    parameters,
)
from bkrules.model.label import Label

KEYS = sorted((Path(__file__).parent / "action_keys").glob("*.json"))

ACTION = Action(
    id="//a:b GoBuild",
    label=Label("a", "b"),
    mnemonic="GoBuild",
    arguments=("build", "-o", "b"),
    inputs=(("src/main.go", Source("a/main.go")), ("toolchain.whl", Output("//:go FetchWheel", "toolchain.whl"))),
    outputs=("b", "log"),
    environment=(("GOOS", "linux"), ("HOME", "/root")),
    platform=(("kernel", "fuse"), ("userns", "yes")),
    timeout=300,
)


def file(text: str, *, executable: bool = False, path: str = "/somewhere") -> FileNode:
    return FileNode(digest.of_bytes(text.encode()), path, executable)


INPUTS: dict[str, Node] = {
    "src/main.go": file("package main"),
    "toolchain.whl": file("go"),
    "layout": DirectoryNode({"blobs/x": file("x"), "index.json": file("{}")}),
}


def node_of(described: Mapping[str, Any]) -> Node:
    if "folder" in described:
        return DirectoryNode({path: file(**one) for path, one in described["folder"].items()})
    return file(**described)


@pytest.mark.parametrize("path", KEYS, ids=[path.stem for path in KEYS])
def test_the_key_of_an_action_stays_what_it_was(path: Path) -> None:
    """A digest that changes here empties everybody's cache: bump the salt and say so in the changelog."""
    kept = json.loads(path.read_text())
    action = Action(
        id="any",
        label=Label("any", "any"),
        mnemonic=kept["mnemonic"],
        arguments=tuple(kept["arguments"]),
        inputs=(),
        outputs=tuple(kept["outputs"]),
        environment=tuple(kept["environment"].items()),
        platform=tuple(kept["platform"].items()),
        timeout=kept["timeout"],
        made_in=kept.get("made_in", ""),
    )
    inputs = {name: node_of(described) for name, described in kept["inputs"].items()}
    assert str(key_of(action, inputs).digest) == kept["key"]


def test_there_are_keys_to_compare() -> None:
    assert len(KEYS) >= 2


CHANGED_ACTIONS = {
    "mnemonic": replace(ACTION, mnemonic="Image"),
    "argument": replace(ACTION, arguments=("build", "-o", "c")),
    "arguments' order": replace(ACTION, arguments=("-o", "build", "b")),
    "argument split": replace(ACTION, arguments=("build", "-o", "", "b")),
    "environment value": replace(ACTION, environment=(("GOOS", "plan9"), ("HOME", "/root"))),
    "environment name": replace(ACTION, environment=(("GOARCH", "linux"), ("HOME", "/root"))),
    "environment gone": replace(ACTION, environment=()),
    "platform value": replace(ACTION, platform=(("kernel", "fuse"), ("userns", "no"))),
    "platform gone": replace(ACTION, platform=()),
    "environment for platform": replace(ACTION, environment=ACTION.platform, platform=ACTION.environment),
    "timeout": replace(ACTION, timeout=301),
    "no timeout": replace(ACTION, timeout=0),
    "output name": replace(ACTION, outputs=("b", "logs")),
    "output gone": replace(ACTION, outputs=("b",)),
    "a command": replace(ACTION, made_in="out"),
    "a command in another folder": replace(ACTION, made_in="output"),
}
CHANGED_INPUTS: dict[str, dict[str, Node]] = {
    "bytes": {**INPUTS, "toolchain.whl": file("Go")},
    "executable bit": {**INPUTS, "toolchain.whl": file("go", executable=True)},
    "gone": {name: node for name, node in INPUTS.items() if name != "toolchain.whl"},
    "added": {**INPUTS, "more": file("")},
    "renamed": {("tool.whl" if name == "toolchain.whl" else name): node for name, node in INPUTS.items()},
    "swapped": {**INPUTS, "src/main.go": INPUTS["toolchain.whl"], "toolchain.whl": INPUTS["src/main.go"]},
    "bytes in a folder": {**INPUTS, "layout": DirectoryNode({"blobs/x": file("y"), "index.json": file("{}")})},
    "name in a folder": {**INPUTS, "layout": DirectoryNode({"blobs/y": file("x"), "index.json": file("{}")})},
    "folder for a file": {**INPUTS, "toolchain.whl": DirectoryNode({})},
}


@pytest.mark.parametrize("change", CHANGED_ACTIONS)
def test_what_an_action_does_is_in_its_key(change: str) -> None:
    assert key_of(CHANGED_ACTIONS[change], INPUTS).digest != key_of(ACTION, INPUTS).digest


@pytest.mark.parametrize("change", CHANGED_INPUTS)
def test_what_an_action_reads_is_in_its_key(change: str) -> None:
    assert key_of(ACTION, CHANGED_INPUTS[change]).digest != key_of(ACTION, INPUTS).digest


@pytest.mark.parametrize("change", ["timeout", "output name", "argument", "platform value"])
def test_a_changed_action_shows_in_the_leaves(change: str) -> None:
    """Two keys are explained by the first leaf in which they differ, so one must."""
    assert key_of(CHANGED_ACTIONS[change], INPUTS).leaves != key_of(ACTION, INPUTS).leaves


@pytest.mark.parametrize("change", CHANGED_INPUTS)
def test_a_changed_input_shows_in_the_leaves(change: str) -> None:
    assert key_of(ACTION, CHANGED_INPUTS[change]).leaves != key_of(ACTION, INPUTS).leaves


def test_names_and_places_are_not_in_the_key() -> None:
    key = key_of(ACTION, INPUTS)
    cell = Cell(Label("a", "m"), "test_x", "oci", (("compression", "gzip"),))
    assert key_of(replace(ACTION, id="other", label=Label("c", "d"), cell=cell), INPUTS) == key
    elsewhere = {
        name: replace(node, path="/x") if isinstance(node, FileNode) else node for name, node in INPUTS.items()
    }
    assert key_of(ACTION, elsewhere) == key


def test_order_is_not_in_the_key() -> None:
    turned = replace(
        ACTION,
        inputs=ACTION.inputs[::-1],
        environment=ACTION.environment[::-1],
        platform=ACTION.platform[::-1],
        outputs=ACTION.outputs[::-1],
    )
    assert key_of(turned, dict(reversed(INPUTS.items()))) == key_of(ACTION, INPUTS)


def test_leaves_name_what_the_key_covers() -> None:
    leaves = key_of(ACTION, INPUTS).leaves
    assert leaves["argument/2"] == "b"
    assert leaves["env/GOOS"] == "linux"
    assert leaves["platform/kernel"] == "fuse"
    assert leaves["input/toolchain.whl"] == str(digest.of_bytes(b"go"))
    assert list(leaves) == sorted(leaves)


FLAT: dict[str, Node] = {
    "top": file("1"),
    "a/file": file("2", executable=True),
    "a/b/c/deep": file("3"),
    "a/b/d": file("4"),
    "a-b": file("5"),
}
NESTED: dict[str, Node] = {
    "a/b": DirectoryNode({"d": file("4"), "c/deep": file("3")}),
    "a/file": file("2", executable=True),
    "a-b": file("5"),
    "top": file("1"),
}


def test_a_folder_has_the_digest_of_its_files_given_one_by_one() -> None:
    assert merkle(NESTED) == merkle(FLAT)
    whole = {"x": DirectoryNode({name: node for name, node in FLAT.items() if isinstance(node, FileNode)})}
    assert merkle(whole)[0] == merkle({f"x/{name}": node for name, node in FLAT.items()})[0]


def test_merkle_gives_every_directory_under_its_digest() -> None:
    root, blobs = merkle(FLAT)
    assert all(digest.of_bytes(data) == name for name, data in blobs.items())
    assert len(blobs) == 4
    top = reapi.decode("Directory", blobs[root])
    assert [item["name"] for item in top["files"]] == ["a-b", "top"]
    [below] = top["directories"]
    folder = reapi.decode("Directory", blobs[digest.Digest(below["digest"]["hash"], below["digest"]["size_bytes"])])
    assert [(item["name"], item["is_executable"]) for item in folder["files"]] == [("file", True)]


def test_no_input_is_the_empty_directory() -> None:
    assert merkle({}) == (digest.EMPTY, {digest.EMPTY: b""})
    assert DirectoryNode({}).digest == digest.EMPTY


def test_dependencies_are_the_producers_once_and_sorted() -> None:
    inputs = (
        ("a", Output("z", "1")),
        ("b", Output("y", "1")),
        ("c", Output("z", "2")),
        ("d", Source("s")),
        ("e", Text(b"")),
        ("f", HostFile("gcc")),
    )
    assert replace(ACTION, inputs=inputs).dependencies == ("y", "z")


def test_parameters_come_back_and_are_the_same_bytes_for_equal_values() -> None:
    value = {"b": [1, None], "a": {"y": True, "x": "ö"}}
    turned = {"a": {"x": "ö", "y": True}, "b": [1, None]}
    assert parameters(value) == parameters(turned)
    assert replace(ACTION, arguments=("first", parameters(value))).parameters == value


def test_a_cell_is_named_as_buildkit_names_it() -> None:
    cell = Cell(Label("targets", "m"), "test_pull", "containerd+stargz", (("a", "1"), ("b", "2")))
    assert cell.name == "test_pull/worker=containerd+stargz/a=1/b=2"
    assert cell.label == "//targets:m[test_pull/worker=containerd+stargz/a=1/b=2]"
