"""The first hour of a user: the transcript of the documentation, typed into a shell, with wheels alone in a new environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pages
import pytest
from examples import blocks

BUILD = 'SOURCE_DATE_EPOCH=1700000000 PYTHON="$0" exec .ci/wheels "$1"'
ACTIVATE = ". env/bin/activate"


def interpreters() -> dict[str, str]:
    """The interpreter of these tests, and the one of Python 3.13, if there is one: on PATH, or next to the first."""
    near = sorted(Path(sys.base_prefix).parent.glob("*3.13*/bin/python3"))
    for candidate in ["python3.13", *map(str, near)]:
        command = [candidate, "-I", "-c", "import ensurepip, sys; print(sys.version_info[:2] == (3, 13))"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if done.stdout == "True\n":
            return {"this Python": sys.executable, "Python 3.13": candidate}
    return {"this Python": sys.executable}


class Shell:
    """A shell of a user with an empty home folder, in which `python3` is the interpreter of the test."""

    def __init__(self, home: Path, python: str, cache: Path) -> None:
        (home / "bin").mkdir(parents=True)
        script = home / "bin/python3"
        script.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
        script.chmod(0o755)
        (home / "caches").mkdir()
        (home / "caches/bk").symlink_to(cache)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
            "HOME": str(home),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(home / "caches"),
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache/pip"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.home = home

    def type(self, commands: list[str]) -> list[str]:
        """Type commands one after the other into one shell. Return what each prints; all end with exit code 0."""
        mark = "-- the next command --"
        script = f"\necho '{mark}'\n".join(commands)
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.split(f"{mark}\n")


def transcript() -> list[tuple[str, str]]:
    """The commands of the page, each with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (pages.DOCS / "first-hour.md").read_text(), re.M | re.S)
    command = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
    return [step for block in blocks for step in command.findall(block)]


def plain(printed: str) -> str:
    """Return what is printed without what differs from one run to the next: times, and which cell is first."""
    text = re.sub(r"\d+(\.\d+)?(m \d+)? ?s\b", "0.1s", printed)
    text = re.sub(r"^Critical Path: .*", "Critical Path: ...", text, flags=re.MULTILINE)
    text = re.sub(r"^\[\d+/", "[1/", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\S)  +(?=\S)", "  ", text)
    lines = text.splitlines()
    return "\n".join(
        sorted(line for line in lines if line.startswith("[")) + [line for line in lines if line[:1] != "["]
    )


@pytest.mark.parametrize("which", ["this Python", pytest.param("Python 3.13", marks=pytest.mark.soak)])
def test_what_the_page_says(which: str, repository: Path, cache_copy: Callable[[str], Path], tmp_path: Path) -> None:
    """With the tools and images in the disk cache, as on a machine where another workspace has used them."""
    python = interpreters().get(which)
    if python is None:
        pytest.skip(f"no {which} on this machine")
    shell = Shell(tmp_path / "home", python, cache_copy("cache"))
    assert [one.text for one in blocks() if one.page == "docs/releasing.md"] == [".ci/wheels dist\n"]
    subprocess.run(
        ["sh", "-c", BUILD, sys.executable, shell.home / "dist"], cwd=repository, check=True, capture_output=True
    )
    steps = transcript()
    assert [command for command, _ in steps if command.startswith("bk ")] == [
        "bk init",
        "bk test //...",
        "bk test //...",
        "bk report",
    ]
    place = [command for command, _ in steps].index(ACTIVATE) + 1
    outputs = shell.type([command for command, _ in steps[:place]])
    shell.type([ACTIVATE, "mkdir other", "cd other", "bk init", "bk build @bk_tools//images:mirror"])
    outputs += shell.type([ACTIVATE, *(command for command, _ in steps[place:])])[1:]

    *_, last = shell.type([ACTIVATE, "mkdir mine", "cd mine", *pages.commands_of("init.md")])
    assert "6 cells: 6 passed (6 cached, 0 not)" in last

    assert [plain(printed) for printed in outputs] == [plain(printed) for _, printed in steps]
