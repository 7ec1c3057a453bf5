"""A product of releases: each cell runs those in its name, and they work together."""

import re
import subprocess
from pathlib import Path

from bkrules.testing.sandbox import Sandbox


def test_a_build_on_these_releases(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\nRUN echo step > /said\n")
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=local,dest={tmp_path}/out"])

    assert (tmp_path / "out/said").read_text() == "step\n"
    told = {tool: _version(tool, "--version") for tool in ("containerd", "runc")}
    told["buildkitd"] = sandbox.run("debug info").stdout
    for tool, text in told.items():
        found = re.search(r"\bv?(\d+\.\d+)\.\d+", text)
        assert found is not None, text
        assert found[1] == sandbox.choice(tool), text


def _version(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
