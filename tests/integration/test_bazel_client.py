"""Bazel's own client and bk on one cache server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from bazel_remotes import Machine, Start, build, shown, warnings

BAZEL = shutil.which("bazel")
RULES = """genrule(name = "one", outs = ["one.txt"], cmd = "echo one > $@")
genrule(name = "two", srcs = ["one.txt"], outs = ["two.txt"], cmd = "cat $< $< > $@")
"""


def bazel(folder: Path, url: str) -> str:
    """Build a workspace with a new server and an empty output folder. Return the summary of its processes."""
    folder.mkdir()
    (folder / "WORKSPACE").write_text("")
    (folder / "BUILD").write_text(RULES)
    client = [str(BAZEL), f"--output_user_root={folder}.server", "--nohome_rc"]
    try:
        done = subprocess.run(
            [*client, "build", "//:two", f"--remote_cache={url}", "--noshow_progress", "--spawn_strategy=local"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (folder / "bazel-bin/two.txt").read_text() == "one\none\n"
    finally:
        subprocess.run([*client, "shutdown"], cwd=folder, capture_output=True, check=False)
    [line] = [line for line in done.stderr.splitlines() if "process" in line and line.startswith("INFO: ")]
    return line


@pytest.mark.soak
@pytest.mark.skipif(BAZEL is None, reason="there is no bazel; on Debian:  apt-get install bazel-bootstrap")
def test_bazel_and_bk_share_a_server(machine: Machine, start: Start, tmp_path: Path) -> None:
    server = start()
    first, second = machine("first"), machine("second")

    assert "remote cache hit" not in bazel(tmp_path / "bazel1", server.url)
    assert warnings(build(first, server.url)) == []
    again = bazel(tmp_path / "bazel2", server.url)
    done = build(second, server.url)

    assert "2 remote cache hit" in again
    assert warnings(done) == []
    assert "hit local 0, hit remote 3, ran 0, " in done.stdout
    assert shown(second) == shown(first)
