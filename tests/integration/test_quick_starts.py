"""The quick starts of the documentation, as a user types them. A registry on loopback stands for the internet."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
import registries
from spaces import Space, place_tools

from bkrules.images.storage import write_tree
from bkrules.model import digest
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.reference import parse_reference

IMAGES = ("docker.io/library/alpine:3.22", "docker.io/library/nginx:1.29-alpine")


@pytest.fixture
def internet(tools: Space, binary: Path, tmp_path: Path) -> Iterator[str]:
    """A registry that has //targets:busybox as each image that the pages name."""
    assert tools.bk("build", "//targets:busybox").returncode == 0
    folder = tools.root / "bk-out/targets/busybox/layout"
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    layout = DirectoryNode({name: FileNode(digest.of_file(path), str(path)) for name, path in found.items()})
    write_tree(tmp_path / "internet", {parse_reference(image): layout for image in IMAGES})
    with registries.registry(binary, tmp_path / "internet") as address:
        yield address


def typed(space: Space, command: str) -> str:
    """What a command of a page prints, with exit code 0."""
    program, *words = shlex.split(command)
    assert program == "bk"
    cache = [f"--disk_cache={space.cache}"] if words[0] == "mirror" else []
    done = space.bk(*words, *cache)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def empty(space: Space) -> None:
    """Remove what the fixture `tools` made: the page begins with an empty folder."""
    (space.root / "plugins").unlink()  # a link to those of this repository
    shutil.rmtree(space.root / "targets")


def test_daemons_of_this_machine(internet: str, space: Space, repository: Path, tmp_path: Path) -> None:
    """With the tools of this repository as the commands that a user has on PATH."""
    place_tools(repository, tmp_path / "bin")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    mine = dataclasses.replace(space, environment={"PATH": path})
    empty(mine)
    found = pages.files_of("own-daemons.md", "python")
    assert sum(len(text.splitlines()) for text in found.values()) <= 33
    found["WORKSPACE.py"] = found["WORKSPACE.py"].replace('reference="docker.io', f'reference="{internet}')
    pages.write(mine, found)

    outputs = [typed(mine, command) for command in pages.commands_of("own-daemons.md")]

    assert len(outputs) == 2
    assert "3 cells: 3 passed (0 cached, 3 not)" in outputs[1]
    assert "GoBuild" not in outputs[1]


def test_a_dockerfile_of_the_user(internet: str, tools: Space) -> None:
    """In a workspace that has the workers of the first page, in its package hello."""
    found = pages.files_of("own-dockerfile.md", "python", "dockerfile")
    found["web/BUILD.py"] = found["web/BUILD.py"].replace('reference="docker.io', f'reference="{internet}')
    workers = pages.files_of("own-daemons.md", "python")["hello/BUILD.py"].partition("\ntest_matrix")[0]
    pages.write(tools, {"hello/BUILD.py": workers, **found})
    tools.write("web/site/index.html", "hello\n").chmod(0o600)

    outputs = [typed(tools, command) for command in pages.commands_of("own-dockerfile.md")]

    assert "3 cells: 3 passed (0 cached, 3 not)" in outputs[1]


def test_a_worker_of_the_user(tools: Space, repository: Path, environment: str, tmp_path: Path) -> None:
    """In the workspace of the first hour. The plugin is installed into a copy of this environment."""
    mine = Space(tmp_path / "shop", tools.cache, environment)
    mine.root.mkdir()
    typed(mine, "bk init")
    mine.write(".bkrc", f"common --override_module=bk_tools={repository / 'targets/tools/bk_tools'}\n")

    new, install, *others = pages.commands_of("own-worker.md")
    typed(mine, new)
    words = [*shlex.split(install)[1:], "--no-index", "--no-build-isolation"]
    done = subprocess.run([environment, *words], cwd=mine.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages.write(mine, pages.files_of("own-worker.md", "python"))
    cached = {"bk plugin check": f" --disk_cache={mine.cache}"}
    workers, check, test = (typed(mine, line + cached.get(line.rpartition(" ")[0], "")) for line in others)

    assert "\nnarrow  (bk-worker-narrow 0.1.0)\n  steps = 1: how many steps of a build run at once\n" in f"\n{workers}"
    assert check.startswith("//narrow:one: narrow, by the plugin narrow\n")
    assert "2 cells: 2 passed (0 cached, 2 not)" in test
    report = json.loads((mine.root / "bk-out/narrow/narrow_matrix/report.json").read_text())
    assert [cell["name"] for cell in report["cells"]] == ["test_hello/worker=narrow", "test_hello/worker=narrow-2"], (
        test
    )
