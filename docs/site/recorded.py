"""The run of bk that the images of README.md show: two tests on four workers at two points of an axis.

One of them wants the root of a build step to be the machine's root, which it is not on a rootless worker. bk runs as root,
and builds the tools that the disk cache lacks.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("WORKSPACE.py", "plugins", "targets")
"""The files of this repository that the recorded workspace uses."""
COMMAND = ("test", "//hello:hello_matrix")
TESTS_FAILED = 3
"""The exit code of this run."""
BUILD = """\
from bkrules import test_matrix

test_matrix(
    name = "hello_matrix",
    tests = ["test_hello.py"],
    workers = ["//targets:oci", "//targets:containerd", "//targets:containerd_stargz", "//targets:rootless"],
    mirror = "//targets:mirror",
    axes = {"compression": {"gzip": "latest", "estargz": "esgz"}},
)
"""
TESTS = """\
def build(sandbox, folder, step):
    image = f"docker.io/library/busybox:{sandbox.value('compression')}"
    (folder / "Dockerfile").write_text(f"FROM {image}\\nRUN {step} > /result\\n")
    folders = f"--local context={folder} --local dockerfile={folder}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={folder}/out")
    return (folder / "out/result").read_text().strip()


def test_hello(sandbox, tmp_path):
    assert build(sandbox, tmp_path, "echo hello") == "hello"


def test_root_is_root(sandbox, tmp_path):
    owner = build(sandbox, tmp_path, "read inside outside count < /proc/self/uid_map && echo $outside")
    assert owner == "0"
"""


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a workspace of these files, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bk-image-") as folder:
        for name in SHARED:
            Path(folder, name).symlink_to(ROOT / name)
        package = Path(folder, "hello")
        package.mkdir()
        (package / "BUILD.py").write_text(BUILD)
        (package / "test_hello.py").write_text(TESTS)
        yield Path(folder)


def run(folder: Path, *arguments: str, expected: int = 0) -> str:
    """Return what bk prints in that folder. Ends this process with a message when its exit code is another one than expected."""
    command = [sys.executable, "-m", "bkrules", "--norc", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != expected:
        sys.exit(f"error: bk ended with exit code {done.returncode} instead of {expected}:\n{done.stdout}")
    return done.stdout


def run_matrix(folder: Path, *options: str) -> str:
    """Run all cells of the workspace. Return what bk prints."""
    return run(folder, *COMMAND, "--nocache_test_results", *options, expected=TESTS_FAILED)
