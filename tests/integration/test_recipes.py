"""The recipes for CIs that `bk init` writes: they are read, their actions are pinned, and their shell steps run in a workspace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import recipes
from servers import cache_server
from spaces import Space

from bkrules.starter.files import CI

FOLDER = Path(__file__).parents[2] / "docs/ci"
MATRIX = """from bkrules import test_matrix
test_matrix(name = "hello_matrix", tests = ["test_hello.py"], workers = ["//targets:oci"], mirror = "//targets:mirror")
"""
TEST = "def test_one(sandbox):\n    assert sandbox.worker == 'oci'\ndef test_two(sandbox):\n    sandbox.run('debug workers')\n"
RED = "def test_one():\n    assert not 1\ndef test_two():\n    assert not 2\n"
ALWAYS = "success() || failure()"
FAILED = 3
"""The exit code of bk when tests have failed."""


def test_the_actions_are_pinned() -> None:
    used = re.findall(r"uses: (\S+)( # v[\d.]+)?$", (FOLDER / "github.yml").read_text(), re.MULTILINE)
    assert len(used) == 4
    assert [name for name, version in used if not version or not re.search("@[0-9a-f]{40}$", name)] == []


def test_the_documents_show_all_recipes() -> None:
    """The files in `docs/ci` are links to them."""
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(CI)
    assert [path.name for path in FOLDER.iterdir() if not path.is_symlink()] == []


@pytest.mark.parametrize(
    "text", ["a:\n  - b\n c: d\n", "a: b\na: c\n", 'a: "b"\n', "a: b: c\n", "a:\n", "- a\nb: c\n", "a: {b: c}\n"]
)
def test_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        recipes.read(text)


class Machine:
    """A workspace on a machine of a CI: `sudo` needs no password, and the packages are installed."""

    def __init__(self, space: Space, folder: Path, cache: str) -> None:
        self._space = space
        commands = {
            "bin/sudo": '[ "$1" != -E ] || shift\nexec "$@"',
            "bin/apt-get": "exit 0",
            "bin/buildkite-agent": '[ "$*" = "artifact download bk-out/hello/hello_matrix/**/* ." ]',
        }
        for name, text in commands.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        launcher = space.write("bk", f'#!/bin/sh\nexec "{sys.executable}" -I -m bkrules --nohome_rc "$@"\n')
        launcher.chmod(0o755)
        (folder / "caches").mkdir()
        (folder / "caches/bk").symlink_to(space.cache)
        for ci in CI:
            done = space.bk("init", f"--ci={ci}")
            assert done.returncode == 0, done.stderr
        self._environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "caches"),
            "BK_REMOTE_CACHE": cache,
        }

    def recipe(self, ci: str) -> Any:
        """Return the recipe that `bk init` has written into the workspace."""
        return recipes.read((self._space.root / CI[ci]).read_text())

    def run(
        self, steps: Sequence[str], variables: Mapping[str, str], after: Sequence[str] = (), expected: int = 0
    ) -> str:
        """Run the steps of a job as CIs do, and those after them whatever happens. Return what the first ones print."""
        first, *others = [
            subprocess.run(
                ["sh", "-e", "-c", "\n".join(each)],
                cwd=self._space.root,
                env={**self._environment, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            for each in (steps, after)
        ]
        assert first.returncode == expected, first.stdout + first.stderr
        assert [one.returncode for one in others] == [0], others[0].stdout + others[0].stderr
        return first.stdout

    def new(self) -> None:
        """Begin as after a checkout: without the files of earlier builds."""
        for name in ("bk-out", "merged"):
            shutil.rmtree(self._space.root / name, ignore_errors=True)

    def kept(self, paths: str) -> tuple[str, int]:
        """Return the outcome on the page among the files that a job keeps, and the count of its cells. Remove all pages there."""
        found = [path for each in self._space.root.glob(paths) for path in (each, *each.rglob("*"))]
        page = min((path for path in found if path.name == "report.html"), key=lambda path: len(path.parts))
        text = page.read_text()
        for path in {path for path in found if path.name == page.name}:
            path.unlink()
        (outcome,) = re.findall('data-outcome="([a-z]+)"', text)
        (count,) = re.findall(r'<p class="counts">(\d+) cells?:', text)
        return outcome, int(count)


def test_the_steps_run(tools: Space, tmp_path: Path) -> None:
    """On one machine: GitHub's jobs run the cells, GitLab's and Buildkite's have their results. Then all cells fail."""
    tools.write("hello/BUILD.py", MATRIX)
    tools.write("hello/test_hello.py", TEST)
    with cache_server() as cache:
        machine = Machine(tools, tmp_path, cache.address)
        github(machine, tmp_path / "github-output", cache.address)
        gitlab(machine, "passed")
        buildkite(machine, "passed")
        assert cache.count("PUT") > 0
        tools.write("hello/test_hello.py", RED)
        github(machine, tmp_path / "github-output", cache.address, "failed")
        gitlab(machine, "failed")
        buildkite(machine, "failed")


def github(machine: Machine, output: Path, cache: str, outcome: str = "passed") -> None:
    machine.new()
    jobs = machine.recipe("github")["jobs"]
    steps = jobs["cells"]["steps"]
    shell = {
        name: [step["run"] for step in job["steps"] if "run" in step and "if" not in step] for name, job in jobs.items()
    }
    last = [step["run"] for step in steps if "run" in step and step.get("if") == ALWAYS]
    (page,) = [step["with"]["path"] for step in steps if "uses" in step and step.get("if") == ALWAYS]
    code = FAILED if outcome == "failed" else 0
    variables = {"CACHE": cache, "GITHUB_OUTPUT": str(output)}
    machine.run(shell["plan"], variables)
    planned = json.loads(output.read_text().removeprefix("jobs="))["include"]
    assert sum(job["cells"] for job in planned) == 2
    for job in planned:
        printed = machine.run(shell["cells"], {**variables, "ARGUMENTS": job["arguments"]}, last, code)
        assert f"{job['cells']} {outcome}" in printed
        assert machine.kept(page) == (outcome, job["cells"])
    output.unlink()
    machine.run(shell["plan"], variables)
    assert (json.loads(output.read_text().removeprefix("jobs=")) == {"include": []}) == (outcome == "passed")
    output.unlink()


def gitlab(machine: Machine, outcome: str) -> None:
    machine.new()
    recipe = machine.recipe("gitlab")
    cells, report, variables = recipe["cells"], recipe["report"], recipe["variables"]
    assert cells["parallel"] == 4
    assert cells["artifacts"]["when"] == report["artifacts"]["when"] == "always"
    code = FAILED if outcome == "failed" else 0
    for number in (1, 2):
        shard = {"CI_NODE_INDEX": str(number), "CI_NODE_TOTAL": "2"}
        printed = machine.run(cells["script"], {**variables, **shard}, cells["after_script"], code)
        assert f"1 {outcome} ({int(not code)} cached" in printed
        assert machine.kept(*cells["artifacts"]["paths"]) == (outcome, number)
    assert f"2 cells: 2 {outcome}" in machine.run(report["script"], variables, report["after_script"], code)
    assert machine.kept(*report["artifacts"]["paths"]) == (outcome, 2)


def buildkite(machine: Machine, outcome: str) -> None:
    machine.new()
    cells, _, report = machine.recipe("buildkite")["steps"]
    shown = [[line.replace("$$", "$") for line in step["command"]] for step in (cells, report)]
    code = FAILED if outcome == "failed" else 0
    for number in (0, 1):
        shard = {"BUILDKITE_PARALLEL_JOB": str(number), "BUILDKITE_PARALLEL_JOB_COUNT": "2"}
        assert f"1 {outcome} ({int(not code)} cached" in machine.run(shown[0], shard, expected=code)
        assert machine.kept(cells["artifact_paths"]) == (outcome, number + 1)
    assert f"2 cells: 2 {outcome}" in machine.run(shown[1], {}, expected=code)
    assert machine.kept(report["artifact_paths"]) == (outcome, 2)
