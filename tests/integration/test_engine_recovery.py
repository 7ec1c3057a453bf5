"""Builds on buildbox-casd whose inputs are damaged on the disk of the client."""

from __future__ import annotations

from pathlib import Path

import casd
import pytest
from spaces import Space

from bkrules.model import digest

WORKSPACE = """
from bkrules import genrule, host_binary, image, workspace
workspace(name = "test")
host_binary(name = "sh")
genrule(
    name = "one", srcs = ["one.txt"], outs = ["one"], tools = [":sh"],
    cmd = ["$(location :sh)", "-c", {script!r}],
)
genrule(
    name = "two", srcs = [":one"], outs = ["two"], tools = [":sh"],
    cmd = ["$(location :sh)", "-c", "read line < $<; echo $$line 2 > $@"],
)
"""
COPY = "read line < $<; echo $$line 1 > $@"
RANDOM = "read line < /proc/sys/kernel/random/uuid; echo $$line 1 > $@"


def write(space: Space, script: str = COPY) -> None:
    space.write("one.txt", "text\n")
    space.write("WORKSPACE.py", WORKSPACE.format(script=script))


def build(space: Space, server: casd.Casd, *words: str, code: int = 0) -> str:
    done = space.bk("build", *words, f"--remote_executor={server.url}")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def damage(blob: Path) -> None:
    """Change a blob, but not its size."""
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(b"?" * len(data))


@pytest.mark.parametrize("script", [COPY, RANDOM])
def test_a_damaged_blob_is_not_sent_but_made_again(
    space: Space, casd_program: Path, tmp_path: Path, script: str
) -> None:
    """Also when its action makes other bytes than before: then the key of the next action is another one."""
    write(space, script)
    assert space.bk("build", "//:one").returncode == 0
    shown = space.root / "bk-out/one/one"
    before = shown.read_bytes()
    name = digest.of_bytes(before).hash
    damage(space.cache / "cas" / name[:2] / name)
    with casd.engine(casd_program, tmp_path) as server:
        said = build(space, server, "//:two")
        assert "Genrule //:one once more: the cache's copy of what it made was damaged" in said
        made = (space.root / "bk-out/two/two").read_bytes()
        assert made.endswith(b" 1 2\n")
        assert (made == before[:-1] + b" 2\n") == (script == COPY)
        build(space, server, "//:one", "//:two")
    assert shown.read_bytes()[:-1] + b" 2\n" == made
