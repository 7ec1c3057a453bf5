"""The candidates of completion: from the table of options, from kept packages, and from the folders of cells that have run."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from spaces import Space

from bkrules.commands.completion import table
from bkrules.commands.parser import Parser, add_patterns, command
from bkrules.completion import answer
from bkrules.completion.words import for_bash, of_line, plain

BUILD = """
from bkrules import host_binary, image_mirror, load, test_matrix, worker
load("//lib:macros.py", "binaries")

worker(name = "oci", plugin = "oci")
worker(name = "stargz", plugin = "oci", snapshotter = "stargz")
worker(name = "odd", plugin = "oci", proxy = True)
image_mirror(name = "mirror", images = {})
test_matrix(
    name = "matrix", tests = ["test_a.py"], workers = [":oci", ":stargz", ":odd"], mirror = ":mirror",
    axes = {"kind": {"gzip": 1, "zstd": 2}},
)
binaries()
"""
MACROS = """
from bkrules import host_binary

def binaries():
    host_binary(name = "made", binary = "true")
"""
TESTS = """
def test_one(sandbox): pass

class TestGroup:
    def test_two(self): pass
    def helper(self): pass
"""


@pytest.fixture
def options() -> dict[str, Any]:
    """The table of a small command line."""
    commands = Parser(prog="bk").add_subparsers(parser_class=Parser)
    for name, words in (("test", "PATTERN"), ("shell", "CELL"), ("run", "WORKER"), ("build", "PATTERN")):
        made = command(commands, name, lambda _: 0, f"what {name} does")
        made.add_argument("words", nargs="+", metavar=words) if words != "PATTERN" else add_patterns(made)
    test = commands.choices["test"]
    test.add_argument("--test_filter", metavar="TEXT", help="choose; or not")
    test.add_argument("--test_output", choices=("all", "errors"))
    test.add_argument("-k", "--keep_going", action="store_true")
    test.add_argument("--hidden", help=argparse.SUPPRESS)
    test.add_argument("--profile", metavar="FILE")
    return table(commands, ["test_matrix"])


@pytest.fixture
def kept(space: Space, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that bk has loaded once."""
    space.write("p/BUILD.py", BUILD)
    space.write("p/test_a.py", TESTS)
    space.write("lib/BUILD.py", "")
    space.write("lib/macros.py", MACROS)
    space.write(".bkrc", "build:ci --keep_going\n")
    done = space.bk("query", "//...")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(space.root)
    return space.root


def ask(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    """What bk answers to a zsh, without the explanations."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(options)))
    assert answer.main(["zsh", "bk", *words]) == 0
    return [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]


CASES = [
    (("",), "test shell run build"),
    (("te",), "test"),
    (("nothing", ""), ""),
    (("test", "--te"), "--test_filter= --test_output="),
    (("test", "-k", "--ke"), "--keep_going"),
    (("test", "--hid"), ""),
    (("test", "--test_output", "a"), "all"),
    (("test", "--test-output", "e"), "errors"),
    (("test", "--test_output="), "--test_output=all --test_output=errors"),
    (("test", "--profile="), ":files"),
    (("run", "oci", "--", "l"), ":files"),
    (("test", "--config="), "--config=ci"),
    (("test", "//"), "//: //p: //lib: //..."),
    (("test", "//p:"), "//p:matrix //p:all"),
    (("build", "//p:m"), "//p:mirror //p:matrix //p:made"),
    (("build", "-//p:mi"), "-//p:mirror"),
    (("build", "p:ma"), "p:matrix p:made"),
    (("build", "./p:ma"), "./p:matrix ./p:made"),
    (("build", "//no/such:"), "//no/such:all"),
    (("run", "o"), "oci odd"),
    (("run", "//p:"), "//p:oci //p:stargz //p:odd"),
    (("shell", "test"), "test_one/"),
    (("shell", "TestGroup"), "TestGroup::test_two/"),
    (("shell", "test_one/"), "test_one/worker=oci/ test_one/worker=oci+stargz/"),
    (("shell", "test_one/worker=oci/k"), "test_one/worker=oci/kind=gzip test_one/worker=oci/kind=zstd"),
    (("shell", "//p:"), "//p:matrix[test_one/ //p:matrix[TestGroup::test_two/"),
    (("shell", "//p:matrix[test_one/worker=oci/kind=g"), "//p:matrix[test_one/worker=oci/kind=gzip]"),
    (("test", "--test_filter=ki"), "--test_filter=kind=gzip --test_filter=kind=zstd"),
    (("test", "--test_filter", "-worker=oci+"), "-worker=oci+stargz"),
]


def test_candidates(
    kept: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in CASES:
        assert sorted(ask(options, monkeypatch, capsys, *words)) == sorted(expected.split()), words


def test_what_has_run_has_its_exact_names(
    kept: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in (
        "TestGroup.test_two/worker=oci-proxy/kind=gzip",
        "test_x[a]/worker=oci/kind=gzip",
        "odd#0123/worker=a",
    ):
        (kept / "bk-out/p/matrix" / cell / "test.outputs").mkdir(parents=True)
        (kept / "bk-out/p/matrix" / cell / "key.json").write_text("")
    (kept / "bk-out/p/matrix/key.leaves").mkdir()

    assert ask(options, monkeypatch, capsys, "shell", "TestGroup::test_two/") == [
        "TestGroup::test_two/worker=oci-proxy/"
    ]
    assert ask(options, monkeypatch, capsys, "shell", "test_x") == ["test_x[a]/"]
    assert ask(options, monkeypatch, capsys, "shell", "//p:matrix[k") == []
    assert ask(options, monkeypatch, capsys, "shell", "test_x[a]/worker=oci/") == ["test_x[a]/worker=oci/kind=gzip"]
    assert ask(options, monkeypatch, capsys, "shell", "test_x[a]/worker=oci/kind=gzip/") == []


def test_a_changed_build_file_is_read_by_its_syntax(
    kept: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept / "p/BUILD.py").write_text("test_matrix(name = 'new')\nopen('/no', name = 1)\n")
    assert ask(options, monkeypatch, capsys, "build", "//p:") == ["//p:new", "//p:all"]
    (kept / "p/BUILD.py").write_text("test_matrix(name = ")
    assert ask(options, monkeypatch, capsys, "build", "//p:") == ["//p:all"]


def test_nothing_is_written_and_nothing_complains(
    kept: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stamps() -> dict[str, int]:
        return {path: os.stat(path).st_mtime_ns for path in map(str, kept.rglob("*"))}

    before = stamps()
    ask(options, monkeypatch, capsys, "test", "//p:")
    assert stamps() == before
    (kept / "bk-out/.state/packages").write_bytes(b"\0\0\0\0damaged")
    assert "//p:matrix" in ask(options, monkeypatch, capsys, "test", "//p:")
    monkeypatch.chdir("/")
    assert ask(options, monkeypatch, capsys, "test", "//p:") == []
    for arguments in ([], ["zsh"], ["bash", "x"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("{"))
        assert answer.main(arguments) == 0


def test_words_of_bash() -> None:
    assert of_line("bk test //a:b") == (["bk", "test", "//a:b"], "//a:b", "")
    assert of_line("bk  te ") == (["bk", "te", ""], "", "")
    assert of_line("bk shell '//p:m[te") == (["bk", "shell", "//p:m[te"], "'//p:m[te", "'")
    assert of_line("bk shell a\\[b\\") == (["bk", "shell", "a[b"], "a\\[b\\", "")
    assert for_bash(["//p:m[t/worker=oci]"], "//p:m\\[t/", "", "=:") == ["m\\[t/worker=oci\\]"]
    assert for_bash(["//p:m[t/worker=oci]"], "'//p:m[t/", "'", "=:") == ["//p:m[t/worker=oci]"]
    assert [plain(word) for word in ("a\\ b", "'a b", '"a"', "a")] == ["a b", "a b", "a", "a"]
