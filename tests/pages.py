"""The pages of the documentation as tests run them: their files, and their sessions on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spaces import Space
from terminals import CONTROL

DOCS = Path(__file__).parents[1] / "docs"


def files_of(page: str, *languages: str) -> dict[str, str]:
    """The files that a page shows, by the names in the first lines of their blocks."""
    text = (DOCS / page).read_text()
    pattern = rf"^```(?:{'|'.join(languages)})\n# (\S+)\n(.*?)^```$"
    return dict(re.findall(pattern, text, re.MULTILINE | re.DOTALL))


def write(space: Space, files: Mapping[str, str]) -> None:
    """Write files of a page into a workspace."""
    for name, text in files.items():
        space.write(name, text)


def commands_of(page: str) -> list[str]:
    """The commands of the blocks of a page that are to be typed into a shell."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def session_of(page: str, start: str = "") -> list[tuple[str, str]]:
    """The commands that a page shows on a terminal, each with what it prints; of the blocks whose first command begins so."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    command = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
    return [step for block in blocks if block.startswith(f"$ {start}") for step in command.findall(block)]


def text_of(page: str, start: str) -> str:
    """The block of output of a page that begins so."""
    (text,) = re.findall(
        rf"^```text\n({re.escape(start)}.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    return str(text)


def plain(printed: str) -> str:
    """Return a text without what differs from one run to the next: numbers, digests, and the widths of columns."""
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b", "HASH", CONTROL.sub("", printed))
    text = re.sub(r"\d+(\.\d+)?", "0", text)
    return re.sub(r"(?<=\S)(  +|-{9,}|_{9,})|(-{9,}|_{9,})(?=\S)", "  ", text)


def check_printed(shown: str, printed: str) -> None:
    """Fail unless a page shows what was printed, but for numbers. A line `...` stands for lines that it leaves out."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else f"{re.escape(line)}\n" for line in plain(shown.strip("\n")).splitlines()
    )
    assert re.search(f"^{pattern}", plain(printed), re.MULTILINE), f"the page shows:\n{shown}\nprinted is:\n{printed}"


@dataclass
class Typist:
    """A user who types the commands of pages into a shell, in a workspace, with bk and pytest on PATH."""

    space: Space
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the commands."""
        python = f"exec {self.space.python}"
        for name, line in (
            ("bk", f"{python} -I -m bkrules"),
            ("pytest", f"{python} -m pytest"),
            ("pip", f"{python} -m pip"),
        ):
            script = self.home / "bin" / name
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(f'#!/bin/sh\n{line} "$@"\n')
            script.chmod(0o755)
        (self.home / "caches").mkdir()
        (self.home / "caches/bk").symlink_to(self.space.cache)
        (self.space.root / "bk").symlink_to(self.home / "bin/bk")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the shell."""
        mine = {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": f"{self.home}/caches",
        }
        return {**os.environ, **mine, **self.variables}

    def type(self, command: str, code: int = 0, folder: str = ".") -> str:
        """Return what a command prints, which ends with that exit code."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.space.root / folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.stdout}"
        return done.stdout
