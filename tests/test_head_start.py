"""A head start serves one build, and no cell for which its zygote may be too old."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import Space

from bkrules.build.head_start import HeadStart
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import Dependencies, separate

ROOT = "/nowhere"

# bk, which says when a zygote starts, and when targets are analysed.
SPY = """
import subprocess, sys
import bkrules.build.analysis as analysed
def said(real, word):
    def spy(*more, **named):
        print("step:", word, file=sys.stderr)
        return real(*more, **named)
    return spy
analysed.analyze = said(analysed.analyze, "analysis")
subprocess.Popen = said(subprocess.Popen, "zygote")
from bkrules.__main__ import main
sys.exit(main())
"""
BUILD = """from bkrules import genrule, glob, host_binary

host_binary(name = "cp")
genrule(name = "copy", srcs = glob(["**/words.txt"]), outs = ["copy.txt"], tools = [":cp"], cmd = ["$(location :cp)", "$<", "$@"])
"""


@pytest.fixture
def looked() -> Iterator[Dependencies]:
    """The files at which this process has looked: none at first."""
    with separate() as dependencies:
        yield dependencies


def runs(cache: Path) -> list[str]:
    """The folders of runs, by name."""
    return [path.name for path in cache.glob("run/*")]


def zygotes() -> list[int]:
    """The processes that this one has started and that have not ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children]


@pytest.mark.parametrize("tests", [False, True])
def test_a_build_takes_what_has_begun_once(tmp_path: Path, looked: Dependencies, tests: bool) -> None:
    looked.note(os.__file__)
    with closing(HeadStart()) as head_start:
        head_start.begin(ROOT, str(tmp_path), tests=tests)
        [folder] = runs(tmp_path)
        prepared = head_start.take(tests=tests)
        assert prepared is not None
        with closing(prepared):
            assert prepared.folder.path.name == folder
            assert not prepared.processes.fate()
            assert head_start.take(tests=tests) is None
        assert not runs(tmp_path)
        assert not zygotes()


def test_cells_take_no_zygote_that_began_for_commands(tmp_path: Path, looked: Dependencies) -> None:
    with closing(HeadStart()) as head_start:
        head_start.begin(ROOT, str(tmp_path), tests=False)
        assert head_start.take(tests=True) is None
        assert not runs(tmp_path)
        assert not zygotes()


def test_cells_take_no_zygote_that_may_have_imported_other_code(tmp_path: Path, looked: Dependencies) -> None:
    code = tmp_path / "code.py"
    code.write_text("")
    looked.note_for_all(str(code))
    for tests in (True, False):
        with closing(HeadStart()) as head_start:
            head_start.begin(ROOT, str(tmp_path), tests=True)
            taken = head_start.take(tests=tests)
            assert (taken is None) == tests, "only the keys of cells have that code"
            if taken is not None:
                taken.close()
        assert not runs(tmp_path)
        assert not zygotes()


def test_cells_take_no_zygote_when_code_of_theirs_has_changed(tmp_path: Path, looked: Dependencies) -> None:
    """Also when nothing else has looked at the file so far, and when only a link leads elsewhere."""
    code, link = tmp_path / "code.py", tmp_path / "link.py"
    link.symlink_to(os.__file__)
    looked.note(str(link))
    link.unlink()
    link.symlink_to(re.__file__)
    code.write_text("")
    for changed in (code, link):
        with closing(HeadStart()) as head_start:
            head_start.begin(ROOT, str(tmp_path), tests=True)
            assert head_start.take(tests=True, code=[str(changed)]) is None
            assert not runs(tmp_path)


def test_a_head_start_that_nobody_takes_leaves_nothing(tmp_path: Path) -> None:
    with closing(HeadStart()) as head_start:
        head_start.begin(ROOT, str(tmp_path), tests=True)
        assert len(zygotes()) == len(runs(tmp_path)) == 1
    assert not runs(tmp_path)
    assert not zygotes()


def test_a_cache_that_cannot_be_written_is_no_head_start(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    with closing(HeadStart()) as head_start:
        head_start.begin(ROOT, str(tmp_path), tests=False)
        assert head_start.take(tests=False) is None


def steps(space: Space) -> list[str]:
    """Build once all files are old enough to be believed. Return the steps of the build."""
    command = space.command("build", "//...")
    at = command.index("-m")
    command[at : at + 2] = ["-c", SPY]
    time.sleep(stamps.RACY_NS / 1e9)
    environment = {**os.environ, **space.environment}
    done = subprocess.run(command, cwd=space.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return re.findall("^step: (.*)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("inside", [False, True])
def test_a_build_after_an_edit_starts_its_zygote_before_it_analyses(space: Space, inside: bool) -> None:
    """Not with the disk cache in the workspace, where a glob would see the new folder of the run, in each build again."""
    early = ["zygote", "analysis"]
    if inside:
        space = replace(space, cache=space.root / "pkg/cache")
        early.reverse()
    space.write("pkg/BUILD.py", BUILD)
    space.write("all/BUILD.py", "from bkrules import image\nimage(name = 'image')\n")
    space.write("pkg/words.txt", "first")

    first = steps(space)
    assert first.index("analysis") < first.index("zygote"), "all results may be in the cache"
    assert "analysis" in steps(space), "a build that runs something keeps no answer"
    assert steps(space) == []
    space.write("pkg/words.txt", "second")
    assert steps(space) == early
    assert (space.root / "bk-out/pkg/copy/copy.txt").read_text() == "second"
    assert not runs(space.cache)
    assert "analysis" in steps(space), "the head start was for nothing"
    assert steps(space) == []
