"""`bk doctor` on this machine, and on one that lacks something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spaces import Space

from bkrules import cli
from bkrules.commands import doctor
from bkrules.plugin.host import Host, Lack

HEAD = 'from bkrules import host_binary, workspace\nworkspace(name = "test")\n'


def diagnose(space: Space, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and what was found by its name."""
    done = space.bk("doctor", "--json", f"--disk_cache={space.cache}", *options)
    assert done.stderr == ""
    return done.returncode, {finding["what"]: finding for finding in json.loads(done.stdout)}


def test_a_command_that_is_missing_is_named(space: Space) -> None:
    space.write("WORKSPACE.py", HEAD + 'host_binary(name = "sh")\n')
    _, found = diagnose(space)
    assert found["//:sh"]["problem"] == ""
    assert {"cells", "worker oci", "worker rootless", f"disk cache {space.cache}"} < found.keys()

    space.write("WORKSPACE.py", HEAD + 'host_binary(name = "no-such-command")\n')
    code, found = diagnose(space)
    assert code == 36
    assert found["//:no-such-command"]["problem"] == "this machine has no no-such-command"
    assert space.bk("doctor").stdout.count("//:no-such-command: this machine has no no-such-command\n  install it") == 1


def test_a_command_that_a_module_needs_is_looked_for(space: Space) -> None:
    space.write(
        "WORKSPACE.py", "from bkrules import bk_dep, workspace\nworkspace(name = 'w')\nbk_dep(name = 'm', path = 'm')\n"
    )
    space.write("m/WORKSPACE.py", HEAD.replace("test", "m") + 'host_binary(name = "cc", binary = "no-such-compiler")\n')

    code, found = diagnose(space)

    assert code == 36
    assert found["@m//:cc"]["problem"] == "this machine has no no-such-compiler"


def test_a_workspace_is_not_needed(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (space.root / "WORKSPACE.py").unlink(missing_ok=True)
    assert "cells" in diagnose(space)[1]


def test_a_broken_build_file_is_an_error(space: Space) -> None:
    space.write("WORKSPACE.py", HEAD + "oops")
    assert space.bk("doctor").returncode == 1


def test_a_full_or_closed_disk_is_found(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM", 1 << 62)
    assert "MiB are free" in doctor._disk_cache(str(space.cache / "not/there")).problem
    monkeypatch.setattr(doctor, "ROOM", 0)
    assert doctor._disk_cache(str(space.cache)).problem == ""
    assert doctor._disk_cache("/proc/self/nothing").problem == "/proc/self cannot be written"


def test_what_a_command_mends_is_mended(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lack is the test's own; the command that mends it is run."""
    monkeypatch.chdir(space.root)
    space.write("WORKSPACE.py", HEAD)
    file = tmp_path / "file"
    lack = Lack("no file", "this test looks for it", f"make it:  touch {file}")
    monkeypatch.setattr(Host, "lacks", lambda _: () if file.exists() else (lack,))

    assert cli.main(["doctor"]) == 36
    assert f"cells: no file: this test looks for it\n  make it:  touch {file}\n" in capsys.readouterr().out
    cli.main(["doctor", "--fix"])
    shown = capsys.readouterr()
    assert f"$ touch {file}\n" in shown.err
    assert "cells: ok\n" in shown.out
    assert file.exists()
