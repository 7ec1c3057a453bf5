"""One repository uses a macro, an image and a worker of another one, and its cells are cache hits of that one's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from spaces import Space, pip

TEST = """
def test_hello(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/hello:1\\nRUN cp /etc/motd /copy\\n")
    sandbox.run(f"build --frontend=dockerfile.v0 --local context={tmp_path} --local dockerfile={tmp_path}")
"""
FIRST = {
    "pyproject.toml": """
[build-system]
requires = ["flit_core>=3.12"]
build-backend = "flit_core.buildapi"

[project]
name = "first"
version = "1"
description = "A module"

[project.entry-points."bkrules.modules"]
first = "first"
""",
    "first/__init__.py": "raise RuntimeError('bk imports no module')\n",
    "first/macros.py": """
from bkrules import image_mirror, test_matrix

def hello(name, workers = ("@first//workers:oci",)):
    image_mirror(name = name + "_mirror", images = {"docker.io/library/hello:1": "@first//images:hello"})
    test_matrix(name = name, tests = ["test_hello.py"], workers = workers, mirror = ":" + name + "_mirror")
""",
    "first/images/BUILD.py": """
from bkrules import image
image(name = "hello", files = {"bin/box": "//:box", "etc/motd": "motd"}, symlinks = {"bin/cp": "box", "bin/sh": "box"})
""",
    "first/images/motd": "hello\n",
    "first/workers/BUILD.py": 'from bkrules import worker\nworker(name = "oci", plugin = "oci")\n',
}
MATRIX = """
from bkrules import load
load("@first//:macros.py", "hello")
hello(name = "hello")
"""
SECOND = """
from bkrules import bk_dep, workspace
workspace(name = "second")
bk_dep(name = "first")
"""


def test_another_repository_uses_a_module_by_a_folder_and_by_a_wheel(
    tmp_path: Path, repository: Path, environment: str, cache_copy: Callable[[str], Path]
) -> None:
    cache = cache_copy("shared")
    shutil.copytree(repository / "targets/tools/bk_tools", tmp_path / "first")
    for path, text in FIRST.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    pins = tmp_path / "first/WORKSPACE.py"
    pins.write_text(pins.read_text().replace('workspace(name = "bk_tools")', 'workspace(name = "first")'))
    command = [sys.executable, "-I", "-m", "flit_core.wheel", str(tmp_path), "--outdir", str(tmp_path / "wheels")]
    subprocess.run(command, capture_output=True, check=True)
    first = Space(tmp_path / "first", cache, environment)
    second = Space(tmp_path / "second", cache, environment)
    for space in (first, second):
        space.write("t/test_hello.py", TEST)
        space.write("t/BUILD.py", MATRIX)
    second.write("WORKSPACE.py", SECOND)

    original = first.bk("test", "//t:hello")
    by_folder = second.bk("test", "//t:hello", "--override_module=first=../first")

    assert original.returncode == 0, original.stdout + original.stderr
    assert "1 passed (0 cached, 1 not)" in original.stdout
    assert by_folder.returncode == 0, by_folder.stdout + by_folder.stderr
    assert "1 passed (1 cached, 0 not)" in by_folder.stdout

    wheels = [str(path) for path in (tmp_path / "wheels").glob("*.whl")]
    pip(environment, "install", "--no-deps", "--no-index", "--force-reinstall", *wheels)

    by_wheel = second.bk("test", "//t:hello")

    assert by_wheel.returncode == 0, by_wheel.stdout + by_wheel.stderr
    assert "1 passed (1 cached, 0 not)" in by_wheel.stdout

    assert not list((tmp_path / "second/bk-out").rglob("first"))
