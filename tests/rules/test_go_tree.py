"""Folders in place of Go modules: what they mean for the actions of binaries; nothing runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.build.worker_overrides import NONE, WorkerOverrides
from bkrules.errors import UsageError
from bkrules.model.action import Action, HostFolder, Output, Text
from bkrules.rules.go_tree import module_of, replaced, required

WORKSPACE = f"""from bkrules import go_toolchain, workspace
workspace(name = "test")
go_toolchain(name = "go", version = "1.0.0", sha256 = {{"linux-{platform.machine()}": "{"0" * 64}"}})
"""
BUILD = """from bkrules import go_binary, image
go_binary(name = "of", module = "a.test/lib", version = "v1.0.0", package = "cmd/it", mod = "of.mod")
go_binary(name = "on", srcs = ["main.go"], mod = "on.mod")
go_binary(name = "alone", srcs = ["main.go"], mod = "alone.mod")
image(name = "small", files = {})
"""
PINS = {
    "of.mod": "module pins.test\nrequire a.test/lib v1.0.0\n",
    "on.mod": "module on.test\nrequire (\n\ta.test/lib v1.0.0 // indirect\n\tb.test/x v1.0.0\n)\nreplace a.test/lib => ./old\n",
    "on.sum": "b.test/x v1.0.0 h1:b=\n",
    "alone.mod": "module alone.test\n// a.test/lib v1.0.0\n",
    "main.go": "",
}
TREE = {
    "go.mod": "module a.test/lib\n",
    "go.sum": "c.test/y v1.0.0 h1:c=\n",
    "cmd/it/main.go": "",
    ".git/HEAD": "",
    "x/bk-out/y.go": "",
}
Declared = Callable[..., dict[str, Action]]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The GoBuild actions of a workspace by the names of their targets, with a folder `lib` in place of a.test/lib."""
    root = tmp_path / "workspace"
    write(root, {"WORKSPACE.py": WORKSPACE, "p/BUILD.py": BUILD} | {f"p/{path}": text for path, text in PINS.items()})
    monkeypatch.chdir(root)

    def declare(
        pattern: str = "//p:all", tree: Mapping[str, str] = TREE, module: str = "a.test/lib"
    ) -> dict[str, Action]:
        write(tmp_path / "lib", tree)
        overrides = WorkerOverrides(modules=((module, str(tmp_path / "lib")),))
        actions = analyze_patterns(".", [pattern], overrides=overrides).wanted().values()
        return {action.label.name: action for action in actions if action.mnemonic == "GoBuild"}

    return declare


def write(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_a_binary_of_the_module_is_built_as_its_own_go_mod_says(declared: Declared, tmp_path: Path) -> None:
    action = declared()["of"]

    folder = dict(action.inputs)["src"]
    assert isinstance(folder, HostFolder)
    assert (folder.path, folder.files) == (str(tmp_path / "lib"), ("cmd/it/main.go", "go.mod", "go.sum"))
    assert action.arguments[:3] == ("build", "-C", ".")
    assert action.arguments[-3:] == ("-o", "../of", "./cmd/it")
    assert dict(action.environment)["GOFLAGS"] == "-mod=readonly"
    assert str(tmp_path) not in " ".join(action.arguments)
    vendored = declared(tree=TREE | {"vendor/modules.txt": ""})["of"]
    assert dict(vendored.environment)["GOFLAGS"] == "-mod=vendor"


def test_a_binary_that_depends_on_the_module_keeps_its_pins(declared: Declared) -> None:
    actions = declared()

    inputs = dict(actions["on"].inputs)
    assert inputs["override/a.test/lib"] is dict(actions["of"].inputs)["src"]
    mod, sums = (inputs[f"src/on.{name}"] for name in ("mod", "sum"))
    assert isinstance(mod, Text)
    assert replaced(mod.data.decode()) == [("a.test/lib", "", "./override/a.test/lib/.", "")]
    assert required(mod.data.decode()) == {"a.test/lib", "b.test/x"}
    assert sums == Text(b"b.test/x v1.0.0 h1:b=\nc.test/y v1.0.0 h1:c=\n")
    assert dict(actions["on"].environment)["GOFLAGS"] == "-mod=mod"
    assert all("override" not in path for path, _ in actions["alone"].inputs)


def test_replacements_of_the_folder_come_with_it(declared: Declared) -> None:
    mod = "module a.test/lib\nreplace (\n\tb.test/x v1.0.0 => ../x\n\td.test/z => e.test/z v1.2.3\n)\n"
    action = declared(tree={"sub/go.mod": mod, "x/go.mod": "module b.test/x\n", "other/go.mod": "module f.test/o\n"})[
        "on"
    ]

    text = dict(action.inputs)["src/on.mod"]
    assert isinstance(text, Text)
    assert {(one.module, one.by) for one in replaced(text.data.decode())} == {
        ("a.test/lib", "./override/a.test/lib/sub"),
        ("b.test/x", "./override/a.test/lib/x"),
        ("d.test/z", "e.test/z"),
    }


@pytest.mark.parametrize(
    ("tree", "message", "hint"),
    [
        (
            {"x.go": "", "vendor/go.mod": "module a.test/lib\n"},
            "there is no go.mod in that folder or below it",
            "above",
        ),
        (
            {"go.mod": "module a.test/lab\n"},
            "no go.mod there is of the module 'a.test/lib'",
            "did you mean 'a.test/lab'?",
        ),
        ({"go.mod": "module a.test/lib\nreplace b.test/x => ../x\n"}, "with ../x, which is outside", "a folder above"),
        ({"go.mod": "module a.test/lib\nreplace b.test/x => /x\n"}, "with /x, which is outside", "a folder above"),
        ({"go.mod": "module a.test/lib\n", os.fsdecode(b"\xff.go"): ""}, "the name of a file there is not UTF-8", ""),
    ],
)
def test_a_folder_without_the_module(declared: Declared, tree: Mapping[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        declared(tree=tree)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_folder_with_too_many_files(declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bkrules.system.trees.MOST_FILES", 1)

    with pytest.raises(UsageError, match="more than 200,000 files are below it"):
        declared(tree={"a/x.go": "", "a/y.go": "", "a/b/go.mod": "module a.test/lib\n"})


def test_a_module_that_nothing_uses(declared: Declared) -> None:
    with pytest.raises(UsageError, match="no go_binary of the targets asked for uses that module") as caught:
        declared("//p:alone")

    assert caught.value.exit_code == 2
    assert "modules that they use: alone.test" in caught.value.hint
    assert declared("//p:small") == {}, "where no binary is built there is nothing to change"


def test_a_go_mod_is_read_as_go_reads_it() -> None:
    text = 'module "a.test/b" // why\nrequire c.test/d v1.0.0\nrequire (\n\te.test/f/v2 v2.0.0-rc.1 // indirect\n)\ngo 1.24\n'

    assert module_of(text) == "a.test/b"
    assert required(text) == {"c.test/d", "e.test/f/v2"}
    assert module_of("// module x\n") == ""


def test_links_count_by_their_targets(declared: Declared, tmp_path: Path) -> None:
    declared()
    (tmp_path / "lib/linked").symlink_to("cmd")
    (tmp_path / "lib/file").symlink_to("go.mod")
    (tmp_path / "lib/nowhere").symlink_to("none")
    os.mkfifo(tmp_path / "lib/fifo")

    folder = dict(declared()["of"].inputs)["src"]

    assert isinstance(folder, HostFolder)
    assert folder.files == ("cmd/it/main.go", "file", "go.mod", "go.sum")
    assert folder.links == (("linked", "cmd"),)


IMAGES = """
go_binary(name = "buildkitd", srcs = ["main.go"], mod = "on.mod")
[host_binary(name = tool, binary = "cat") for tool in ("buildctl", "registry", "runc")]
worker(name = "oci", plugin = "oci", tools = {tool: ":" + tool for tool in ("buildkitd", "buildctl", "registry", "runc")})
estargz_image(name = "lazy", image = ":small")
image_mirror(name = "mirror", images = {"docker.io/library/lazy:latest": ":lazy"})
test_matrix(name = "m", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror")
"""


def test_images_are_converted_by_the_declared_tools(declared: Declared, tmp_path: Path) -> None:
    """They are inputs of the tests of an edited tool, and what an edit breaks must not break them."""
    names = "estargz_image, host_binary, image_mirror, test_matrix, worker, "
    write(
        tmp_path / "workspace/p",
        {
            "BUILD.py": BUILD.replace("import ", f"import {names}") + IMAGES,
            "test_it.py": "def test_it(sandbox): pass\n",
        },
    )
    as_declared = actions(NONE)
    declared("//p:m")

    found = actions(WorkerOverrides(modules=(("a.test/lib", str(tmp_path / "lib")),)))

    image, cell = found["//p:lazy EstargzImage"], found["//p:m test_it/worker=oci"]
    converts, runs = (dict(one.inputs)["tools/buildkitd"] for one in (image, cell))
    assert (converts, runs) == (
        Output("//p:buildkitd=declared GoBuild", "buildkitd"),
        Output("//p:buildkitd GoBuild", "buildkitd"),
    )
    before, kept = as_declared["//p:buildkitd GoBuild"], found["//p:buildkitd=declared GoBuild"]
    assert (before.arguments, before.inputs, before.outputs) == (kept.arguments, kept.inputs, kept.outputs)
    assert any("override" in path for path, _ in found["//p:buildkitd GoBuild"].inputs)


def test_a_value_of_an_axis_gives_the_declared_tool(declared: Declared, tmp_path: Path) -> None:
    """Its cells have the same parameters and the same tools as without the folder."""
    axes = 'axes = {"buildkitd": {"release": {"tools": {"buildkitd": ":buildkitd"}}, "own": ""}}, mirror = ":mirror")'
    names = "estargz_image, host_binary, image_mirror, test_matrix, worker, "
    write(tmp_path / "workspace/p", {"test_it.py": "def test_it(sandbox): pass\n"})

    def analyzed(overrides: WorkerOverrides) -> dict[str, Action]:
        text = BUILD.replace("import ", f"import {names}") + IMAGES.replace('mirror = ":mirror")', axes)
        write(tmp_path / "workspace/p", {"BUILD.py": text})
        return actions(overrides)

    def tool(found: Mapping[str, Action], choice: str) -> object:
        return dict(found[f"//p:m test_it/worker=oci/buildkitd={choice}"].inputs)["tools/buildkitd"]

    declared("//p:on")
    overrides = WorkerOverrides(modules=(("a.test/lib", str(tmp_path / "lib")),))
    before, found = map(analyzed, (NONE, overrides))

    release = "//p:m test_it/worker=oci/buildkitd=release"
    assert tool(found, "release") == Output("//p:buildkitd=declared GoBuild", "buildkitd")
    assert tool(found, "own") == Output("//p:buildkitd GoBuild", "buildkitd")
    assert found[release].arguments == before[release].arguments


def actions(overrides: WorkerOverrides) -> dict[str, Action]:
    return analyze_patterns(".", ["//p:m"], overrides=overrides).wanted()
