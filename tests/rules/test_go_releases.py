"""go_releases declares a go_binary for each version; nothing is built."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action
from bkrules.model.providers import BinaryInfo

WORKSPACE = f"""from bkrules import go_toolchain, workspace
workspace(name = "test")
go_toolchain(name = "go", version = "1.0.0", sha256 = {{"linux-{platform.machine()}": "{"0" * 64}"}})
"""
PLAIN = """from bkrules import go_binary, go_releases
go_releases(name = "it", module = "example.test/the/thing/v2", package = "cmd/it", versions = [{versions}], {more})
"""
LDFLAGS = 'ldflags = ["-X", "main.v={version}", "-X", "main.n={number}"], build_tags = ["x"], tags = ["manual"]'
Declared = Callable[..., dict[str, Action]]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The actions of a go_releases with these versions and further attributes, by the names of their targets."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    for version in ("v2.0.0", "v2.1.0-rc.1"):
        folder = tmp_path / "p/thing" / version
        folder.mkdir(parents=True)
        (folder / "go.mod").write_text(f"module p\n\nrequire example.test/the/thing/v2 {version}\n")
        (folder / "go.sum").write_text("")
    monkeypatch.chdir(tmp_path)

    def declare(versions: str, more: str = "", extra: str = "") -> dict[str, Action]:
        (tmp_path / "p/BUILD.py").write_text(PLAIN.format(versions=versions, more=more) + extra)
        actions = analyze_patterns(".", ["//p:it_v2.0.0", "//p:it_v2.1.0-rc.1"]).wanted().values()
        return {action.label.name: action for action in actions if action.mnemonic == "GoBuild"}

    return declare


def test_each_release_is_a_binary(declared: Declared) -> None:
    """Only the name of the target has the version; the file does not, and a key is that of a go_binary written out."""
    found = declared('"v2.0.0", "v2.1.0-rc.1"', LDFLAGS)

    assert set(found) == {"it_v2.0.0", "it_v2.1.0-rc.1"}
    action = found["it_v2.1.0-rc.1"]
    assert action.outputs == ("it",)
    assert action.arguments[-5:] == (
        *("-ldflags", "-s -w -X main.v=v2.1.0-rc.1 -X main.n=2.1.0-rc.1", "-o", "it"),
        "example.test/the/thing/v2/cmd/it",
    )
    assert {getattr(file, "path", "") for name, file in action.inputs if name.startswith("src/")} == {
        "p/thing/v2.1.0-rc.1/go.mod",
        "p/thing/v2.1.0-rc.1/go.sum",
    }


def test_a_worker_and_a_matrix_know_the_binary_by_its_file(declared: Declared) -> None:
    declared('"v2.0.0", "v2.1.0-rc.1"')
    analysis = analyze_patterns(".", ["//p:it_v2.0.0"])
    (binary,) = (one for one in analysis.actions.providers[analysis.targets.wanted[0]] if isinstance(one, BinaryInfo))
    assert binary.name == "it"


def test_pins_may_lie_elsewhere(declared: Declared, tmp_path: Path) -> None:
    (tmp_path / "p/thing").rename(tmp_path / "p/other")
    assert set(declared('"v2.0.0", "v2.1.0-rc.1"', 'pins = "other"')) == {"it_v2.0.0", "it_v2.1.0-rc.1"}


def test_queries_show_the_binaries(declared: Declared, capfd: pytest.CaptureFixture[str]) -> None:
    declared('"v2.0.0", "v2.1.0-rc.1"', LDFLAGS)

    assert cli.main(["--nohome_rc", "query", "kind(go_binary, //p:all)"]) == 0

    assert capfd.readouterr().out.splitlines() == ["//p:it_v2.0.0", "//p:it_v2.1.0-rc.1"]


@pytest.mark.parametrize(
    ("versions", "more", "extra", "reason", "part"),
    [
        ("", "", "", "bad-version", "//p:it: 'versions' names no version"),
        ('"2.0.0"', "", "", "bad-version", "'versions' has '2.0.0', but a version is written as in 'v1.2.3'"),
        ('"v2.0"', "", "", "bad-version", "'versions' has 'v2.0'"),
        ('"v2.0.0", "v2.0.0"', "", "", "bad-version", "'versions' has 'v2.0.0' twice"),
        ('"v2.0.0"', 'mod = "x"', "", "unknown-attribute", "go_releases has no attribute 'mod'"),
        ('"v2.0.0"', 'cc = ":none"', "", "unknown-label", "//p:it_v2.0.0: //p:none is neither a target nor a file"),
        ('"v2.0.0"', 'ldflags = "x"', "", "bad-attribute", "'ldflags' must be a list of strings"),
        (
            '"v2.0.0"',
            "",
            'go_binary(name = "it_v2.0.0", mod = "x", module = "x")\n',
            "duplicate-name",
            "//p:it_v2.0.0: declared twice",
        ),
    ],
)
def test_bad_releases(declared: Declared, versions: str, more: str, extra: str, reason: str, part: str) -> None:
    with pytest.raises(LoadError) as caught:
        declared(versions + ', "v2.1.0-rc.1"' * bool(versions), more, extra)
    assert caught.value.reason == reason
    assert part in caught.value.message
    assert caught.value.where.startswith("p/BUILD.py:")


def test_a_release_without_pins_says_how_to_get_them(declared: Declared) -> None:
    with pytest.raises(LoadError, match=r"//p:thing/v2\.2\.0/go\.mod is neither a target nor a file") as caught:
        declared('"v2.0.0", "v2.1.0-rc.1", "v2.2.0"')
        analyze_patterns(".", ["//p:all"])
    assert caught.value.hint.startswith("`bk pin //p:it_v2.2.0` writes the pins of a module")
