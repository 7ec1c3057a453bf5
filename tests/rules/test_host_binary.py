"""The path of a binary of this machine is relative to the workspace, wherever bk is run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import Space

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


LACKING = """from bkrules import host_binary, image, workspace
workspace(name = "test")
host_binary(name = "lacking", binary = "a-command-of-no-machine")
host_binary(name = "cat")
host_binary(name = "half", binary = "cat", files = ["/etc/no-such-file"])
image(name = "small")
"""


def test_a_named_binary_that_is_not_there_is_an_error(space: Space) -> None:
    space.write("WORKSPACE.py", LACKING)
    what = "error: //:lacking: this machine has no a-command-of-no-machine\n  WORKSPACE.py:3\n  install it, or name another one\n"

    done = space.bk("build", "//:lacking", "//:small")
    assert (done.returncode, done.stdout, done.stderr) == (36, "", what)
    done = space.bk("build", "-k", "//:lacking", "//:small")
    assert (done.returncode, done.stderr.endswith(what)) == (36, True)
    assert "1 action: 1 ran" in done.stdout
    assert "//:half: this machine has no /etc/no-such-file" in space.bk("build", "//:half").stderr
    assert space.bk("build", "//:cat").returncode == 0


def test_a_worker_whose_binary_is_not_there_is_an_error(space: Space) -> None:
    declared = "[host_binary(name = name, binary = 'cat') for name in ['buildctl', 'buildkitd', 'registry']]\n"
    space.write("WORKSPACE.py", LACKING + declared)
    space.write(
        "p/BUILD.py",
        "from bkrules import worker\nworker(name = 'oci', plugin = 'oci', tools = {'runc': '//:lacking'})\n",
    )

    done = space.bk("build", "//p:oci")
    assert done.returncode == 36
    assert "error: //p:oci needs //:lacking: this machine has no a-command-of-no-machine\n" in done.stderr


def test_a_binary_that_only_a_pattern_matches_is_skipped_with_a_line(space: Space, tmp_path: Path) -> None:
    space.write("WORKSPACE.py", LACKING)
    folder = tmp_path / "bin"
    folder.mkdir()
    later = replace(space, environment={"PATH": f"{folder}:{os.environ['PATH']}"}, later=True)
    line = "SKIPPED: //:lacking: this machine has no a-command-of-no-machine\n"

    for _ in range(3):  # it runs, is up to date, and is a null build
        done = later.bk("build", "//...")
        assert (done.returncode, done.stdout.count(line)) == (0, 1), done.stdout + done.stderr
        assert done.stdout.count("SKIPPED: ") == 2
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'more')\n")
    assert later.bk("build", "//...").stdout.count("SKIPPED: ") == 2, "the root package is up to date"
    (folder / "a-command-of-no-machine").write_text("#!/bin/sh\n")
    (folder / "a-command-of-no-machine").chmod(0o755)
    assert later.bk("build", "//...").stdout.count("SKIPPED: ") == 1
