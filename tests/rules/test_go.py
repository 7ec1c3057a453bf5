"""What go_binary declares; nothing is built."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action

WORKSPACE = f"""from bkrules import go_toolchain, host_binary, workspace
workspace(name = "test")
go_toolchain(name = "go", version = "1.0.0", sha256 = {{"linux-{platform.machine()}": "{"0" * 64}"}})
host_binary(name = "cc", binary = "true")
"""
BUILD = """from bkrules import go_binary
go_binary(name = "it", module = "example.test/it", version = "v1.0.0", package = "client", mod = "go.mod", {more})
"""
Declared = Callable[[str], Action]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The action of a go_binary with these further attributes."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/go.mod").write_text("module p\n\nrequire example.test/it v1.0.0\n")
    (tmp_path / "p/go.sum").write_text("")
    monkeypatch.chdir(tmp_path)

    def declare(more: str) -> Action:
        (tmp_path / "p/BUILD.py").write_text(BUILD.format(more=more))
        actions = analyze_patterns(".", ["//p:it"]).wanted().values()
        return next(action for action in actions if action.mnemonic == "GoBuild")

    return declare


def test_a_command_is_built(declared: Declared) -> None:
    arguments = ("build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", "it", "example.test/it/client")
    assert declared("").arguments == arguments


def test_the_tests_of_a_package_are_built_instead(declared: Declared) -> None:
    command = declared("").arguments[1:]
    assert declared("test = True").arguments == ("test", "-c", "-vet=off", *command)


def test_the_tests_of_plain_go_come_with_what_they_reach(declared: Declared) -> None:
    assert declared("test = True").folders == ("it.reached",)
    assert {"runners/reach/main.go", "toolchain.whl"} <= dict(declared("test = True").inputs).keys()
    for more in ("", 'test = True, coverpkg = ["example.test/it"]', 'test = True, cc = "//:cc"'):
        assert declared(more).outputs == ("it",)


def test_what_runs_is_counted_where_that_is_asked_for(declared: Declared) -> None:
    plain, counted = (
        declared("").arguments,
        declared('coverpkg = ["example.test/it/...", "example.test/more"]').arguments,
    )
    assert counted == (*plain[:3], "-cover", "-coverpkg", "example.test/it/...,example.test/more", *plain[3:])


def test_another_pin_says_how_to_pin_it(declared: Declared) -> None:
    Path("p/go.mod").write_text("module p\n\nrequire example.test/it v1.0.1\n")

    with pytest.raises(LoadError, match=r"pins v1\.0\.1") as error:
        declared("")

    assert error.value.hint == "`bk pin //p:it` pins it there too"


def test_the_file_may_have_another_name(declared: Declared) -> None:
    assert declared('out = "other"').outputs == ("other",)
    with pytest.raises(LoadError, match="'out' must be the name of a file, but was 'a/b'"):
        declared('out = "a/b"')


TREE = """from bkrules import genrule, go_binary
go_binary(name = "it", {more})
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The action of a go_binary of a module in the workspace: `m`, with packages, a nested module and a vendor folder."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    for path in ("go.mod", "go.sum", "a/x.go", "b/x.go", "cmd/it/main.go", "cmd/go.mod", "vendor/modules.txt"):
        file = tmp_path / "m" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    monkeypatch.chdir(tmp_path)

    def declare(more: str) -> Action:
        (tmp_path / "m/BUILD.py").write_text(TREE.format(more=more))
        actions = analyze_patterns(".", ["//m:it"]).wanted().values()
        return next(action for action in actions if action.mnemonic == "GoBuild")

    return declare


def sources(action: Action) -> set[str]:
    return {path.removeprefix("src/") for path, _ in action.inputs if path.startswith("src/")}


def test_files_of_one_name_keep_their_folders(tree: Declared) -> None:
    action = tree('mod = "go.mod", srcs = ["a/x.go", "b/x.go", "cmd/it/main.go"], package = "cmd/it"')

    assert sources(action) == {"go.mod", "go.sum", "a/x.go", "b/x.go", "cmd/it/main.go"}
    assert action.arguments[:4] == ("build", "-C", ".", "-trimpath")
    assert action.arguments[-3:] == ("-o", "../it", "./cmd/it")


def test_a_module_may_lie_below_what_it_needs(tree: Declared) -> None:
    action = tree('mod = "cmd/go.mod", srcs = ["a/x.go", "cmd/it/main.go"], package = "it", test = True')

    assert sources(action) == {"a/x.go", "cmd/go.mod", "cmd/it/main.go"}, "no go.sum is needed where there is none"
    assert action.arguments[:4] == ("test", "-C", "cmd", "-c")
    assert action.arguments[-3:] == ("-o", "../../it", "./it")


def test_a_vendor_folder_is_used(tree: Declared) -> None:
    flags = dict(tree('mod = "go.mod", srcs = ["a/x.go", "vendor/modules.txt"]').environment)["GOFLAGS"]
    assert flags == "-mod=vendor"


def test_the_place_of_a_module_is_not_in_its_action(tree: Declared, tmp_path: Path) -> None:
    attributes = 'mod = "{0}go.mod", srcs = ["{0}a/x.go", "{0}b/x.go"], package = "a"'
    (tmp_path / "m/deeper").mkdir()
    for path in ("go.mod", "go.sum", "a", "b"):
        (tmp_path / "m/deeper" / path).symlink_to(f"../{path}")

    here, below = tree(attributes.format("")), tree(attributes.format("deeper/"))

    assert here.arguments == below.arguments
    assert sources(here) == sources(below)


def test_symbols_and_flags_of_the_compiler(tree: Declared) -> None:
    arguments = tree(
        'mod = "go.mod", srcs = ["a/x.go"], package = "a", strip = False, gcflags = ["-N", "-l"]'
    ).arguments

    assert arguments[arguments.index("-gcflags") + 1] == "all=-N -l"
    assert arguments[arguments.index("-ldflags") + 1] == ""


def test_build_tags_choose_files(declared: Declared) -> None:
    arguments = declared('build_tags = ["nydus", "dfrunsecurity"]').arguments
    assert arguments[arguments.index("-tags") + 1] == "nydus,dfrunsecurity"


COMPILERS = """
c_toolchain(name = "zig", version = "0.1.0", sha256 = {{"linux-{platform}": "{pin}"}})
host_binary(name = "gcc")
""".format(platform=platform.machine(), pin="1" * 64)


def test_a_race_needs_a_compiler(declared: Declared) -> None:
    with pytest.raises(LoadError, match="'race' needs a C compiler in 'cc'") as error:
        declared("race = True")

    assert "attribute 'race'" in error.value.where
    assert "c_toolchain(" in error.value.hint


@pytest.mark.parametrize(("compiler", "place"), [("//:zig", "cc.whl"), ("//:gcc", "host/gcc")])
def test_a_compiler_of_a_wheel_or_of_this_machine(
    declared: Declared, tmp_path: Path, compiler: str, place: str
) -> None:
    file = tmp_path / "WORKSPACE.py"
    file.write_text(WORKSPACE.replace("import ", "import c_toolchain, host_binary, ", 1) + COMPILERS)

    action = declared(f'race = True, cc = "{compiler}"')

    assert place in dict(action.inputs)
    assert dict(action.environment)["CGO_ENABLED"] == "1"
    assert "-race" in action.arguments
    assert "-static" in action.arguments[action.arguments.index("-ldflags") + 1]
    assert "-race" not in declared(f'cc = "{compiler}"').arguments


def test_what_is_no_compiler(declared: Declared) -> None:
    with pytest.raises(LoadError, match="'cc' needs a c_toolchain or a host_binary"):
        declared('cc = "//:go"')
