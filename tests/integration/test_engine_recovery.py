"""Builds on an engine whose storage, cells or workers fail in the middle, on buildbox-casd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import casd
import pytest
from spaces import ATTEMPT, Space, matrix

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
LOSES = """
from pathlib import Path
if "--validate-parameters" not in sys.argv:
    starts = Path({starts!r})
    with starts.open("a") as file:
        file.write("+")
    if starts.read_text() == "++":
        for place in {places!r}:
            Path(place).unlink()
"""
"""What a runner does first: before the second action, the storage and the worker's disk cache lose a blob."""
OTHER = """
import bkrules
bkrules.__version__ = "0.0.1"
"""
SMALL = "//targets:small"
CELL = """
def test_one(sandbox):
    assert sandbox.worker
"""
FLAKY = f"""{ATTEMPT}
def test_flaky(sandbox):
    print("this is attempt", attempt())
    assert attempt() == 2
"""
Report = Callable[..., dict[str, Any]]


def write(space: Space, script: str = COPY) -> None:
    space.write("one.txt", "text\n")
    space.write("WORKSPACE.py", WORKSPACE.format(script=script))


def runner(first: str) -> str:
    """A runner that does something first."""
    return casd.RUNNER.replace("import sys\n", f"import sys\n{first}".replace("{", "{{").replace("}", "}}"))


def build(space: Space, server: casd.Casd, *words: str, code: int = 0) -> str:
    done = space.bk("build", *words, f"--remote_executor={server.url}")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_blob_that_the_storage_loses_in_the_middle(space: Space, casd_program: Path, tmp_path: Path) -> None:
    """The output of the first action is on no disk but the engine's when the second one begins. It is made once more."""
    write(space)
    name = digest.of_bytes(b"text 1\n").hash
    places = [f"{tmp_path}/casd/cas/objects/{name[:2]}/{name[2:]}", f"{tmp_path}/runner/cas/{name[:2]}/{name}"]
    starts = tmp_path / "starts"
    text = runner(LOSES.format(starts=str(starts), places=places))
    with casd.engine(casd_program, tmp_path, text=text) as server:
        said = build(space, server, "//:two")
    assert "Genrule //:one once more: the remote cache lost what it made" in said
    assert (space.root / "bk-out/two/two").read_text() == "text 1 2\n"
    assert starts.read_text() == "++++", "each action ran, and then both once more"


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


def test_cells_run_here_when_the_engine_cannot_run_them(
    tools: Space, casd_program: Path, tmp_path: Path, report: Report
) -> None:
    """The worker of the engine has another version of bk, so it refuses the cell."""
    matrix(tools, CELL, "oci")
    with casd.engine(casd_program, tmp_path, text=runner(OTHER)) as server:
        said = build(tools, server, SMALL, code=34)
        assert "but this machine has bk 0.0.1" in said
        said = build(tools, server, SMALL, "--remote_local_fallback")
        assert "TestCell test_one/worker=oci runs here: " in said
        assert "1 cell: 1 passed (0 cached, 1 not)" in said
        (cell,) = report(tools.root, "small")["cells"]
        assert (cell["status"], cell["isolation"]) == ("passed", "full")


def test_a_flaky_cell(tools: Space, casd_program: Path, tmp_path: Path, report: Report) -> None:
    """No cache keeps its pass, and its log is fetched whatever the option says."""
    matrix(tools, FLAKY, "oci", more="flaky = True,")
    with casd.engine(casd_program, tmp_path) as server:
        for _ in range(2):
            said = build(tools, server, SMALL, "--remote_download_outputs=minimal")
            assert "1 flaky" in said
            (cell,) = report(tools.root, "small")["cells"]
            assert (cell["status"], cell["cached"]) == ("flaky", False)
            assert cell["reason"].startswith("passed at attempt 2, after: ")
            assert "this is attempt 2" in (tools.root / os.fspath(cell["log"])).read_text()
