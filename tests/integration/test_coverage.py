"""Daemons that count what they run: a covered buildkitd on three workers, and Go's own tool on what their cells kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space

BUILDKITD = "//targets/tools/buildkit-covered:buildkitd"
PLUGINS = ("containerd", "oci", "rootless")
WORKER = (
    'worker(name = "{0}_covered", plugin = "{0}", id = "{0}-covered", tools = {{"buildkitd": "' + BUILDKITD + '"}})\n'
)
MATRIX = """
test_matrix(
    name = "covered_matrix",
    tests = ["//t:test_build.py"],
    workers = [":containerd_covered", ":oci_covered", ":rootless_covered"],
    mirror = ":mirror",
)
test_matrix(name = "plain_matrix", tests = ["//t:test_build.py"], workers = [":oci"], mirror = ":mirror")
"""
TEST = r"""
def test_build(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo hello > /hello.txt\n")
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=tar,dest={tmp_path}/out.tar")
"""
RAN = re.compile(r"^github\.com/moby/buildkit/(\S+)/\w+\.go:\d+:\s+(\S+)\s+([\d.]+)%$", re.MULTILINE)
Report = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def buildkitd(repository: Path, built: Path) -> Path:
    """The covered buildkitd, which is in the disk cache from now on."""
    done = Space(repository, built).bk("build", BUILDKITD)
    assert done.returncode == 0, done.stdout + done.stderr
    return repository / "bk-out/targets/tools/buildkit-covered/buildkitd/buildkitd"


@pytest.fixture
def covered(buildkitd: Path, tools: Space) -> Space:
    """A workspace with a matrix on workers that run the covered buildkitd, and one on a worker that runs the plain one."""
    build = tools.root / "targets/BUILD.py"
    text = build.read_text().replace(", worker", ", test_matrix, worker", 1)
    build.write_text(text + "".join(map(WORKER.format, PLUGINS)) + MATRIX)
    tools.write("t/BUILD.py", "")
    tools.write("t/test_build.py", TEST)
    return tools


@pytest.fixture
def in_shell(covered: Space, built: Path) -> Callable[[str], str]:
    """Runs a shell's commands in the workspace, with bk's Go on PATH; what they print."""
    (go,) = (built / "toolchains").glob("*/go/bin")
    environment = {**os.environ, "PATH": f"{go}:{os.environ['PATH']}", "GOCACHE": str(covered.root / "gocache")}

    def run(script: str) -> str:
        command = ["sh", "-ec", script]
        done = subprocess.run(command, cwd=covered.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def kept(space: Space) -> dict[str, list[str]]:
    """The kinds of files that each cell has of its coverage, by the cell's worker."""
    found = (space.root / "bk-out/targets").glob("*/*/worker=*/coverage")
    return {one.parent.name: sorted({path.name.partition(".")[0] for path in one.iterdir()}) for one in found}


@pytest.mark.soak
def test_cells_keep_what_their_daemons_ran(
    covered: Space, repository: Path, report: Report, in_shell: Callable[[str], str]
) -> None:
    done = covered.bk("test", "//targets:covered_matrix", "//targets:plain_matrix")

    assert done.returncode == 0, done.stdout + done.stderr
    cells = [f"worker={plugin}-covered" for plugin in PLUGINS]
    assert kept(covered) == {cell: ["covcounters", "covmeta"] for cell in cells}

    (commands,) = re.findall(r"```sh\n([^`]*covdata[^`]*)```", (repository / "docs/coverage.md").read_text())
    in_shell(commands)
    lines = (covered.root / "coverage.txt").read_text().splitlines()
    counts = {line.rpartition(" ")[2] for line in lines if line.startswith("github.com/moby/buildkit/solver/jobs.go:")}
    assert counts == {"0", "1"}  # Go's mode `set`: each statement ran, or not
    for cell in cells:
        functions = in_shell(f"go tool covdata func -i=bk-out/targets/covered_matrix/test_build/{cell}/coverage")
        ran = {(package, name) for package, name, share in RAN.findall(functions) if float(share) > 0}
        assert {("solver", "*Solver.NewJob"), ("solver", "*Job.Build")} <= ran
        assert (("worker/containerd", "NewWorkerOpt") in ran) == ("containerd" in cell)
        assert (("executor/runcexecutor", "*runcExecutor.Run") in ran) == ("containerd" not in cell)

    shutil.rmtree(covered.root / "bk-out")
    again = covered.bk("test", "//targets:covered_matrix")
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(cell["cached"] for cell in report(covered.root, "covered_matrix")["cells"])
    assert kept(covered) == {cell: ["covcounters", "covmeta"] for cell in cells}
