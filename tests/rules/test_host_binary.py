"""The path of a binary of this machine is relative to the workspace, wherever bk is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bkrules.analysis.host_inputs import find
from bkrules.build.analysis import analyze_patterns
from bkrules.errors import MachineLacks
from bkrules.model.action import HostFile
from bkrules.model.label import Label
from bkrules.model.providers import BinaryInfo

WORKSPACE = """from bkrules import host_binary, workspace
workspace(name = "test")
host_binary(name = "mine", binary = "bin/mine", files = ["../data", "/etc/passwd"])
host_binary(name = "cat")
"""


def test_a_path_is_relative_to_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p").mkdir()
    monkeypatch.chdir(tmp_path / "p")

    providers = analyze_patterns(".", ["//:all"]).actions.providers

    (mine,), (cat,) = providers[Label("", "mine")], providers[Label("", "cat")]
    files = (HostFile(f"{tmp_path}/../data"), HostFile("/etc/passwd"))
    assert mine == BinaryInfo(HostFile(f"{tmp_path}/bin/mine"), files)
    assert cat == BinaryInfo(HostFile("cat"))


def test_the_architecture_of_the_machine_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'from bkrules import host_binary, workspace\nworkspace(name = "test")\n'
    text += 'host_binary(name = "cat", files = ["/usr/lib/{machine}-linux-gnu/libc.a"])\n'
    (tmp_path / "WORKSPACE.py").write_text(text)
    monkeypatch.chdir(tmp_path)

    ((cat,),) = analyze_patterns(".", ["//:cat"]).actions.providers.values()

    assert cat == BinaryInfo(HostFile("cat"), (HostFile(f"/usr/lib/{os.uname().machine}-linux-gnu/libc.a"),))


def test_no_command_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".::{tmp_path}/none")
    (tmp_path / "a-command-of-this-test").write_text("#!/bin/sh\n")
    (tmp_path / "a-command-of-this-test").chmod(0o755)

    with pytest.raises(MachineLacks, match="this machine has no a-command-of-this-test"):
        find("a-command-of-this-test")
