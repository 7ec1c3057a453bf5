"""A debugger on a daemon in a cell."""

from __future__ import annotations

import subprocess

import pytest
from spaces import Space, matrix

pytestmark = pytest.mark.soak

UNSTRIPPED = """
go_binary(
    name = "buildkitd",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "cmd/buildkitd",
    mod = "@bk_tools//buildkit:go.mod",
    strip = False,
)
worker(name = "debugged", plugin = "oci", id = "debugged", tools = {"buildkitd": ":buildkitd"})
"""
TEST = """
def test_fails(sandbox):
    sandbox.run("debug workers")
    assert False
"""
SCRIPT = (
    "printf 'goroutines -with user\\nexit -c\\n' | dlv attach --allow-non-terminal-interactive=true $(pidof buildkitd)"
)


def test_delve_lists_the_goroutines_of_a_buildkitd_whose_test_has_failed(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", go_binary, worker", 1) + UNSTRIPPED)
    matrix(tools, TEST, "debugged", more='tools = ["//targets/tools/dlv:dlv"],')
    cell = ["--at_failure", "test_fails/worker=debugged", "--", "sh", "-c", f"{SCRIPT}; buildctl debug workers"]
    command = [*tools.command("shell"), "--disk_cache", str(tools.cache), *cell]
    done = subprocess.run(command, cwd=tools.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "github.com/moby/buildkit" in done.stdout
    assert "main.main" in done.stdout
    assert "PLATFORMS" in done.stdout, "the daemon does not run any more"
