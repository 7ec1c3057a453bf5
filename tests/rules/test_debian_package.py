"""What debian_package declares; nothing is fetched."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action

PIN = f'sha256 = {{"linux-{platform.machine()}": "{"1" * 64}"}}'
Declared = Callable[[str], Action]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The action of a debian_package with these attributes."""
    monkeypatch.chdir(tmp_path)

    def declare(attributes: str) -> Action:
        text = 'from bkrules import debian_package, workspace\nworkspace(name = "test")\n'
        (tmp_path / "WORKSPACE.py").write_text(f'{text}debian_package(name = "hello", {attributes})\n')
        (action,) = analyze_patterns(".", ["//:hello"]).wanted().values()
        return action

    return declare


def test_the_name_the_version_the_digest_and_the_files_count(declared: Declared) -> None:
    action = declared(f'version = "1:2.0-3~a+b1", {PIN}, files = ["bin/b", "a"]')
    assert action.mnemonic == "FetchDeb"
    assert action.outputs == ("bin/b", "a")
    assert not action.inputs
    assert all(word in action.arguments[0] for word in ('"hello"', '"1:2.0-3~a+b1"', "1" * 64))


def test_another_package(declared: Declared) -> None:
    assert '"g++"' in declared(f'package = "g++", version = "1", {PIN}, files = ["a"]').arguments[0]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (f'version = "1", {PIN}, files = []', "'files' names no file"),
        (f'version = "1", {PIN}, files = ["/bin/sh"]', "'/bin/sh' cannot be a file of a package"),
        (f'version = "1", {PIN}, files = ["../sh"]', "'../sh' cannot be a file of a package"),
        (f'version = "1", {PIN}, files = ["./sh"]', "'./sh' cannot be a file of a package"),
        (f'version = "1", {PIN}, files = ["a", "a"]', "'a' cannot be a file of a package"),
        (f'package = "-o", version = "1", {PIN}, files = ["a"]', "'-o' cannot be the package of a Debian package"),
        (f'package = "a=1", version = "1", {PIN}, files = ["a"]', "'a=1' cannot be the package of a Debian package"),
        (f'version = "1 2", {PIN}, files = ["a"]', "'1 2' cannot be the version of a Debian package"),
        (f'version = "stable", {PIN}, files = ["a"]', "'stable' cannot be the version of a Debian package"),
        ('version = "1", sha256 = {}, files = ["a"]', "'sha256' is empty"),
        (f'version = "1", sha256 = {{"linux-{platform.machine()}": "1"}}, files = ["a"]', "'sha256' must map"),
    ],
)
def test_a_malformed_rule(declared: Declared, attributes: str, said: str) -> None:
    with pytest.raises(LoadError, match=said) as error:
        declared(attributes)
    assert error.value.where.startswith("WORKSPACE.py:3")
