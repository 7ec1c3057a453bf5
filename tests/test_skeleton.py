"""`bk plugin new`: the files of a plugin that is begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.commands.skeleton import write


def test_its_files_are_as_this_projects_own(tmp_path: Path, repository: Path) -> None:
    folder = write("very_narrow", tmp_path)

    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        *("BUILD.py", "README.md", "bk_worker_very_narrow.py", "pyproject.toml", "tests/test_very_narrow.py"),
    ]
    assert not any("$" in path.read_text() for path in folder.rglob("*") if path.is_file())
    settings = ("--config", str(repository / "pyproject.toml"))
    for command in (("check", *settings), ("format", "--check", *settings)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Narrow", "2wide", "a-b", "a__b", "", "../up"])
def test_a_bad_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugin", "new", name]) == 2
    assert "cannot be a worker's name" in capsys.readouterr().err


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "narrow").mkdir()

    assert cli.main(["plugin", "new", "narrow", "--folder", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "narrow").iterdir()) == []


@pytest.mark.parametrize("words", [["list", "x"], ["check"], ["new"], ["new", "a", "b"], ["remove", "x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugin", *words]) == 2
    assert "plugin" in capsys.readouterr().err


def test_the_installed_plugins_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugin", "list"]) == 0
    assert "bk-worker-rootless 0.1.0: rootless\n" in capsys.readouterr().out


def test_running_actions_imports_no_pytest() -> None:
    """Every build that runs something would wait for it; the process that forks cells imports it alone."""
    code = (
        "import sys, bkrules.commands.build, bkrules.build.open_context\n"
        "print([name for name in ('pytest', 'requests', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
