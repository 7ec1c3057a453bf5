"""A go_binary for another platform: which there are, and that nothing of this machine runs it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action
from bkrules.plugin.host import goarch

WORKSPACE = f"""from bkrules import go_toolchain, host_binary, workspace
workspace(name = "test")
go_toolchain(name = "go", version = "1.0.0", sha256 = {{"linux-{platform.machine()}": "{"0" * 64}"}})
[host_binary(name = name, binary = "cat") for name in ["buildkitd", "buildctl", "registry", "runc"]]
"""
BUILD = """from bkrules import genrule, go_binary, go_test, host_binary, image, image_mirror, test_matrix, worker
go_binary(name = "it", mod = "go.mod", srcs = ["it.go"], {})
go_binary(name = "mac", mod = "go.mod", srcs = ["it.go"], goos = "darwin", goarch = "arm64")
host_binary(name = "cat")
image(name = "small", files = {{"mac": ":mac"}})
image_mirror(name = "mirror", images = {{"docker.io/library/small:latest": ":small"}})
worker(name = "oci", plugin = "oci")
{}
"""
Analyzed = Callable[..., list[Action]]


@pytest.fixture
def analyzed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyzed:
    """The actions of a target, with these attributes of the go_binary `it` and further targets."""

    def analyze(label: str, attributes: str = "", more: str = "") -> list[Action]:
        (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p/BUILD.py").write_text(BUILD.format(attributes, more))
        (tmp_path / "p/go.mod").write_text("module p\n")
        (tmp_path / "p/it.go").write_text("")
        (tmp_path / "p/test_it.py").write_text("def test_a(sandbox): pass\n")
        monkeypatch.chdir(tmp_path)
        return list(analyze_patterns(".", [label]).wanted().values())

    return analyze


def environment(actions: list[Action]) -> dict[str, str]:
    (build,) = (action for action in actions if action.mnemonic == "GoBuild")
    return dict(build.environment)


def test_the_platform_is_that_of_this_machine_by_default(analyzed: Analyzed) -> None:
    plain = environment(analyzed("//p:it"))
    assert (plain["GOOS"], plain["GOARCH"], plain["CGO_ENABLED"]) == ("linux", goarch(), "0")
    assert environment(analyzed("//p:it", f'goos = "linux", goarch = "{goarch()}"')) == plain


def test_another_platform_is_built_without_cgo(analyzed: Analyzed) -> None:
    found = environment(analyzed("//p:mac"))
    assert (found["GOOS"], found["GOARCH"], found["CGO_ENABLED"]) == ("darwin", "arm64", "0")
    assert [action for action in analyzed("//p:small") if action.mnemonic == "Image"]


@pytest.mark.parametrize(
    ("attributes", "text", "attribute", "hint"),
    [
        ('goos = "darwn"', "'goos' cannot be 'darwn'", "goos", "did you mean 'darwin'? Go builds for: aix, darwin, "),
        ('goos = "darwin", goarch = "386"', "Go does not build for darwin/386", "goarch", "can be: amd64, arm64"),
        ('goarch = "x86_64"', "Go does not build for linux/x86_64", "goarch", "for linux, 'goarch' can be: 386, amd64"),
        ('goos = "windows", cc = ":cat"', "'cc' compiles for this machine alone", "cc", "leave out 'cc'"),
    ],
)
def test_what_cannot_be_built(analyzed: Analyzed, attributes: str, text: str, attribute: str, hint: str) -> None:
    with pytest.raises(LoadError) as caught:
        analyzed("//p:it", attributes)
    assert text in caught.value.message
    assert f"attribute '{attribute}'" in caught.value.where
    assert hint in caught.value.hint


MATRIX = 'test_matrix(name = "wrong", workers = [":oci"], mirror = ":mirror", '


@pytest.mark.parametrize(
    ("more", "attribute"),
    [
        ('worker(name = "wrong", plugin = "oci", tools = {"runc": ":mac"})', "tools"),
        ('genrule(name = "wrong", outs = ["out"], tools = [":mac"], cmd = ["mac"])', "tools"),
        ('go_test(name = "wrong", binary = ":mac")', "binary"),
        ('go_test(name = "wrong", binary = ":it", tools = [":mac"])', "tools"),
        (f'{MATRIX}tests = [":mac"])', "tests"),
        (f'{MATRIX}tests = ["test_it.py"], tools = [":mac"])', "tools"),
        (f'{MATRIX}tests = ["test_it.py"], axes = {{"runc": {{"mac": {{"tools": {{"runc": ":mac"}}}}}}}})', "axes"),
    ],
)
def test_a_binary_of_another_platform_is_no_tool(analyzed: Analyzed, more: str, attribute: str) -> None:
    with pytest.raises(LoadError, match=r"of this machine, but //p:mac is built for darwin/arm64") as caught:
        analyzed("//p:wrong", more=more)
    assert caught.value.reason == "wrong-platform"
    assert f"attribute '{attribute}'" in caught.value.where
