"""A stranger's plugin, installed from its own git repository, adds one of everything; real daemons show each of them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaces import Space, pip

EVERYTHING = Path(__file__).parents[1] / "plugins/everything"
TESTS = """
def test_steps(sandbox):
    assert "native" in sandbox.run("debug workers --verbose").stdout
    assert sandbox.value("steps") == {"parallel": 2}


def test_net(sandbox):
    raise OSError("the network is down")
"""
BUILD = """
from bk_everything import word_count

word_count(name = "words", srcs = ["text.txt"])
"""
MATRIX = """
worker(name = "every", plugin = "every")
test_matrix(
    name = "m",
    tests = ["//t:test_it.py"],
    workers = [":every"],
    mirror = ":mirror",
    axes = {"steps": {"two": {"parallel": 2}}},
)
"""


def install(environment: str, source: Path) -> None:
    """Make a git repository of a folder, with all changes, and install what it holds."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "plugin"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    options = ("--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall")
    pip(environment, "install", *options, f"git+file://{source}")


def test_a_plugin_adds_one_of_everything(
    tools: Space, environment: str, report: Callable[[Path, str], dict[str, Any]], tmp_path: Path
) -> None:
    source = shutil.copytree(EVERYTHING, tmp_path / "everything")
    install(environment, source)
    space = dataclasses.replace(tools, python=environment)
    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", test_matrix, worker", 1) + MATRIX)
    space.write("t/BUILD.py", BUILD)
    space.write("t/text.txt", "one two\nthree\n")
    space.write("t/test_it.py", TESTS)
    matrix = space.root / "bk-out/targets/m"

    done = space.bk("build", "//targets:m", "//t:words", "--keep_going")

    assert done.returncode == 3, done.stdout + done.stderr
    cells = {cell["name"].partition("/")[0]: cell for cell in report(space.root, "m")["cells"]}
    # The worker, its axis key, and the wrapper around each test.
    assert (cells["test_steps"]["status"], cells["test_steps"]["worker"]) == ("passed", "every")
    wrapped = matrix / "test_steps/worker=every/steps=two/wrapped.txt"
    assert wrapped.read_text() == "test_steps/worker=every/steps=two passed\n"
    configuration = matrix / "test_net/worker=every/steps=two/configuration/buildkitd.toml"
    assert "max-parallelism = 2" in configuration.read_text()
    # The classifier: what fails by its infrastructure runs once more.
    assert cells["test_net"]["class"] == "infrastructure"
    assert [one["class"] for one in cells["test_net"]["attempts"]] == ["infrastructure"] * 2
    # The reporter, the rule and the command.
    lines = sorted((matrix / "everything.txt").read_text().splitlines())
    assert lines == ["test_net/worker=every/steps=two failed", "test_steps/worker=every/steps=two passed"]
    assert (space.root / "bk-out/t/words/words.txt").read_text() == "3\n"
    done = space.bk("hello", "--name", "you")
    assert (done.returncode, done.stdout) == (7, "hello you\n")
    assert "hello" in space.bk("--help").stdout
    assert "bk_classify_failure" in space.bk("plugin", "list").stdout

    # Its code is in the keys: of cells what acts in them, of an action its runner.
    again = space.bk("build", "//targets:m", "//t:words", "--keep_going")
    assert "2 cells: 1 passed, 1 failed (1 cached" in again.stdout, again.stdout
    module = source / "bk_everything.py"
    module.write_text(module.read_text().replace('f"{words}\\n"', 'f"{words} words\\n"'))
    install(environment, source)
    again = space.bk("build", "//targets:m", "//t:words", "--keep_going")
    assert "2 cells: 1 passed, 1 failed (0 cached" in again.stdout, again.stdout
    assert (space.root / "bk-out/t/words/words.txt").read_text() == "3 words\n"
    # Without it, targets of other plugins still build.
    assert space.bk("build", "//targets:oci", "--noplugin=bk-everything").returncode == 0
    done = space.bk("build", "//t:words", "--noplugin=bk-everything")
    assert done.returncode == 1
    assert "the plugin bk-everything 1.0 is blocked by --noplugin" in done.stderr
