"""`bk logs` reads what is kept, whatever else is broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from spaces import Space

CELL = "test_x/worker=oci/compression=gzip"
BROKEN = {
    "a syntax error": ("p/BUILD.py", "x = ("),
    "a missing plugin": ("p/BUILD.py", "from bkrules import worker\nworker(name = 'w', plugin = 'gone')\n"),
    "a WORKSPACE.py with a fault": ("WORKSPACE.py", "import os"),
    "no package any more": ("p/BUILD.py", ""),
    "a cycle": ("p/BUILD.py", "from bkrules import filegroup\nfilegroup(name = 'a', srcs = [':a'])\n"),
}


@pytest.fixture
def kept(space: Space) -> Space:
    """A workspace in which a cell was run once."""
    folder = space.root / "bk-out/p/m" / CELL
    folder.mkdir(parents=True)
    (folder / "test.log").write_bytes(b"first\xff\n")
    (folder / "buildkitd.log").write_text("daemon\n")
    os.mkfifo(folder / "other.log")  # as a test may leave one
    return space


def logs(space: Space, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(space.command("logs", *words), cwd=space.root, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("name", BROKEN)
def test_kept_logs_need_no_workspace_that_can_be_loaded(name: str, kept: Space) -> None:
    kept.write(*BROKEN[name])
    for cell in (CELL, f"//p:m[{CELL}]"):
        done = logs(kept, cell, "test")
        assert (done.returncode, done.stdout) == (0, b"first\xff\n"), done.stderr
    assert logs(kept, CELL, "none").returncode == 4


def test_an_unreadable_workspace_file_hides_no_logs(kept: Space) -> None:
    (kept.root / "WORKSPACE.py").write_bytes(b"\xff\0")
    assert b"daemon\n" in logs(kept, CELL).stdout


def test_two_cells_of_one_name_are_told_apart(kept: Space) -> None:
    other = kept.root / "bk-out/q/m" / CELL
    other.mkdir(parents=True)
    (other / "test.log").write_text("other\n")
    done = logs(kept, CELL)
    assert done.returncode == 2
    assert f"//p:m[{CELL}]".encode() in done.stderr and f"//q:m[{CELL}]".encode() in done.stderr
    assert logs(kept, f"//q:m[{CELL}]").stdout == b"other\n"


@pytest.mark.parametrize("cell", ["//p:m[../../../../t/worker=x]", "//../..:m[x]", "//p:m[]", "[", "x" * 5000])
def test_no_name_leads_out_of_bk_out(cell: str, kept: Space, tmp_path: Path) -> None:
    folder = tmp_path / "t/worker=x"
    folder.mkdir(parents=True)
    (folder / "test.log").write_text("secret")
    done = logs(kept, cell)
    assert done.returncode in (1, 2, 4), done.stderr
    assert b"secret" not in done.stdout
