"""The completion scripts in real shells, on a pseudo-terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from spaces import Space
from terminals import Terminal

BUILD = """
from bkrules import host_binary, image_mirror, test_matrix, worker
worker(name = "oci", plugin = "oci")
image_mirror(name = "mirror", images = {})
test_matrix(name = "matrix", tests = ["test_a.py"], workers = [":oci"], mirror = ":mirror")
host_binary(name = "quick", binary = "true")
host_binary(name = "silent", binary = "true")
"""
START = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        "PS1='$ '; bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'",
    ),
    "zsh": (["-f", "-i"], "PS1='$ '; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D"),
    "fish": (["--no-config", "-i"], "function fish_prompt; echo -n '$ '; end; set -g fish_autosuggestion_enabled 0"),
}
"""How a shell starts, and the line that makes it plain."""
LINES = {
    "bk que\t//p:qui\t\n": "query //p:quick",
    "bk build --test_out\terr\t //p:sil\t-//p:q\t\n": "build --test_output=errors //p:silent -//p:quick",
    "bk cache sta\t\n": "cache stats",
    "bk shell '//p:matrix[test_a/w\t\n": "shell //p:matrix[test_a/worker=oci]",
    "bk shell //p:matrix\tw\t\n": "shell //p:matrix[test_a/worker=oci]",
}
"""The keys that a user types, and the words that the program gets."""
PROGRAM = f"""#!/bin/sh
case $1 in
    completion | __complete) exec {sys.executable} -I -m bkrules "$@" ;;
    *) echo "ran: $*" ;;
esac
"""
LOAD = {"fish": "bk completion fish | source"}


@pytest.mark.parametrize("shell", START)
def test_a_shell_completes(space: Space, tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"this machine has no {shell}")
    space.write("p/BUILD.py", BUILD)
    space.write("p/test_a.py", "def test_a(): pass")
    assert space.bk("query", "//...").returncode == 0
    bk = tmp_path / "bin/bk"
    bk.parent.mkdir()
    bk.write_text(PROGRAM)
    bk.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bk.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "xterm",
    }
    words, start = START[shell]
    with Terminal([program, *words], space.root, environment, columns=200) as terminal:
        load = LOAD.get(shell, f"source <(bk completion {shell})")
        terminal.type(f"{start}\n{load}\necho rea''dy\n")
        terminal.until("ready\r\n")
        for typed, expected in LINES.items():
            terminal.until("$ ")
            terminal.type(typed)
            assert terminal.until("ran: ")
            assert terminal.until("\r\n").strip() == expected
        terminal.until("$ ")
        terminal.type("exit\n")
        assert terminal.end() == 0
