"""A binary of this machine in place of a tool: its bytes are in the key, and an edit of it is noticed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from spaces import Space, matrix

TEST = "def test_small(sandbox):\n    assert 'Platforms' in sandbox.run('debug workers --verbose').stdout\n"
OPTION = "--override_tool=buildkitd"


def bk(space: Space, *words: str) -> subprocess.CompletedProcess[str]:
    """Run bk in the folder `bin` of the workspace."""
    return subprocess.run(space.command(*words), cwd=space.root / "bin", capture_output=True, text=True, check=False)


def counts(space: Space, *words: str) -> str:
    """Build; return how many cells and actions ran."""
    done = bk(space, "build", "//targets:small", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if " ran, " in line and "actions" in line)


def test_a_binary_replaces_a_tool(tools: Space) -> None:
    matrix(tools, TEST, "oci")
    declared = tools.bk("build", "//targets:small", "//:buildkitd")
    assert declared.returncode == 0, declared.stdout + declared.stderr
    own = tools.root / "bin/mine"
    own.parent.mkdir()
    own.write_bytes((tools.root / "bk-out/@bk_tools/buildkitd/buildkitd").read_bytes())
    own.chmod(0o700)  # the daemons without privileges read it too

    assert "(1 cached, 0 not); 11 actions: 0 ran" in counts(tools, f"{OPTION}=mine"), "the same bytes have the same key"

    with own.open("ab") as file:
        file.write(b"edited")
    why = bk(tools, "why", "//targets:small[test_small/worker=oci]", f"{OPTION}=../bin/mine")
    assert "would run: input/tools/buildkitd was" in why.stdout, why.stdout + why.stderr
    assert "(0 cached, 1 not); 11 actions: 0 ran" in counts(tools, f"{OPTION}=mine"), "images are converted as before"
    shown = bk(tools, "aquery", "//targets:small", f"{OPTION}=mine").stdout
    assert f"tools/buildkitd: {own}" in shown

    later = replace(tools, later=True)
    for _ in range(2):
        assert "(1 cached, 0 not)" in counts(later, f"{OPTION}=mine")
    _break(own)
    broken = bk(later, "build", "//targets:small", f"{OPTION}=mine")
    assert broken.returncode == 3, broken.stdout + broken.stderr
    assert "1 failed" in broken.stdout


def _break(binary: Path) -> None:
    binary.write_bytes(b"#!/nonexistent\n")
