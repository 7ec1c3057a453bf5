"""`bk bisect` finds a planted regression among releases and among commits, in few probes, of which none runs twice."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import go_proxy
import pytest
from pages import check_printed, session_of
from spaces import Space, matrix

RELEASES = 8
FIRST_BAD = 5
BROKEN = "v1.0.2"
MAIN = 'package main\n\nimport "fmt"\n\nfunc main() {{ fmt.Print("{word}") }}\n'
TEST = """
import subprocess

def test_word():
    assert subprocess.run(["word"], capture_output=True, text=True, check=True).stdout == "right"
"""
BUILD = """from bkrules import go_releases
go_releases(
    name = "word",
    module = "example.test/word",
    versions = [f"v1.0.{number}" for number in range(8)],
)
go_releases(name = "other", module = "example.test/word", versions = ["v1.0.0", "v1.0.1"])
"""
CELL = "test_word/worker=oci"


@pytest.fixture
def words(tools: Space, tmp_path: Path) -> Space:
    """A workspace with eight releases of the tool word, of which the last three are wrong, and one does not build."""
    proxy = tmp_path / "proxy"
    for number in range(RELEASES):
        version = f"v1.0.{number}"
        text = MAIN.format(word="wrong" if number >= FIRST_BAD else "right") + f"\n// {version}\n"
        files = {"main.go": text + "broken\n" * (version == BROKEN)}
        go_proxy.release(proxy, "example.test/word", version, files)
    cache = tools.cache
    built = (cache / "go/build").resolve()
    (cache / "go").unlink()
    (cache / "go").mkdir()
    (cache / "go/build").symlink_to(built)
    space = dataclasses.replace(tools, environment=go_proxy.environment(proxy))
    space.write("r/BUILD.py", BUILD)
    matrix(space, TEST, "oci", more='tools = ["//r:word_v1.0.0"],')
    pinned = space.bk("pin", "//r:all")
    assert pinned.returncode == 0, pinned.stderr
    return space


@pytest.fixture(autouse=True)
def _writable(tmp_path: Path) -> object:
    """Go's modules are read-only; pytest removes them."""
    yield
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)


def found(done: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    document: Mapping[str, Any] = json.loads(done.stdout)
    return document


def test_a_regression_among_releases(words: Space) -> None:
    words_of = ("bisect", CELL, "--tool=word", "--good=v1.0.0", "--bad=v1.0.7")

    first = words.bk(*words_of)

    assert first.returncode == 0, first.stdout + first.stderr
    answer, *table = first.stdout.splitlines()
    assert answer == "the first bad one is word v1.0.5; v1.0.4 is good"
    assert [re.split(r"  +", line.strip())[:3] for line in table] == [
        ["v1.0.0", "good", "1 run"],
        ["v1.0.3", "good", "1 run"],
        ["v1.0.4", "good", "1 run"],
        ["v1.0.5", "bad", "2 runs"],
        ["v1.0.7", "bad", "2 runs"],
    ]
    assert len(table) <= math.log2(RELEASES) + 2
    assert table[3].endswith("t/test_small.py:5: assert 'wrong' == 'right'")
    assert first.stderr.count("probe ") == len(table)
    ((command, shown),) = session_of("bisect.md", f"bk bisect {CELL} --tool=word --good")
    assert command == " ".join(("bk", *words_of))
    check_printed(shown.replace("test_word.py", "test_small.py"), first.stdout)

    again = found(words.bk(*words_of, "--json"))
    assert (again["first_bad"], again["last_good"], again["cannot_say"]) == ("v1.0.5", "v1.0.4", [])
    assert [probe["runs"] for probe in again["probes"]] == [0] * len(table), "nothing runs twice"
    assert [probe["verdict"] for probe in again["probes"]] == ["good"] * 3 + ["bad"] * 2

    # One that does not build is stepped over, and is not built again.
    for has_run in (True, False):
        stepped = found(words.bk("bisect", CELL, "--tool=word", "--good=v1.0.0", "--bad=v1.0.5", "--json"))
        assert stepped["first_bad"] == "v1.0.5"
        probes = {probe["revision"]: probe for probe in stepped["probes"]}
        assert probes[BROKEN]["verdict"] == "cannot say"
        assert "//r:word_v1.0.2: GoBuild failed" in probes[BROKEN]["note"]
        log = words.root / "bk-out/r/word_v1.0.2/GoBuild.log"
        assert log.exists() == has_run
        log.unlink(missing_ok=True)


BAD_INPUT = [
    (["--good=v1.0.6", "--bad=v1.0.7"], 1, "--good=v1.0.6: word v1.0.6 is bad", "name an older one"),
    (["--good=v1.0.0", "--bad=v1.0.3"], 1, "--bad=v1.0.3: word v1.0.3 is good", "name a newer one"),
    (["--good=v1.0.2", "--bad=v1.0.7"], 1, "word v1.0.2 cannot be judged", "does not build"),
    (["--good=v1.0.0", "--bad=v1.0.9"], 2, "no go_binary builds word v1.0.9", "declared releases of word: v1.0.0,"),
    (["--good=old", "--bad=v1.0.7"], 2, "no go_binary builds word old", "declare more with go_releases"),
    (["--good=v1.0.7", "--bad=v1.0.0"], 2, "--good=v1.0.7 is not older than --bad=v1.0.0", "the first release"),
    (["--good=v1.0.0", "--bad=v1.0.7", "--runs_per_test=2"], 2, "--runs_per_test is not for one cell", ""),
    (["--good=v1.0.0", "--bad=v1.0.1", "--tool=other"], 2, "no worker of the targets asked for runs 'other'", ""),
    (["--good=v1.0.0", "--bad=v1.0.7", "--tool=wort"], 2, "no go_binary builds wort v1.0.0", "none"),
    (["--good=v1.0.0", "--bad=v1.0.7", "--source=none"], 2, "--source=none is not a folder", ""),
    (["--good=v1.0.0", "--bad=v1.0.7", "--source=r"], 2, "--source=r is not in a Git repository", "without --source"),
    (["--good=v1.0.0"], 2, "the following arguments are required: --bad", ""),
]


def test_what_cannot_be_bisected(words: Space) -> None:
    for options, code, message, hint in BAD_INPUT:
        done = words.bk("bisect", CELL, "--tool=word", *options)
        assert done.returncode == code, (options, done.stdout + done.stderr)
        assert message in done.stderr
        assert hint in done.stderr
        assert "Traceback" not in done.stderr
    done = words.bk("bisect", "test_wort/worker=oci", "--tool=word", "--good=v1.0.0", "--bad=v1.0.7")
    assert done.returncode == 4
    assert "the nearest names: test_word/worker=oci" in done.stderr


COMMITS = 31
WRONG_FROM, NOT_BUILT, ELSEWHERE = 19, 17, 16
"""The places of commits among all: the first with the wrong word, one that does not compile, and one with another module."""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.test", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of a repository whose folder `tool` has the module word, with a commit for each program, and an edited file."""
    origin = tmp_path / "origin"
    (origin / "tool").mkdir(parents=True)
    git(origin, "init", "-q")
    for number in range(COMMITS):
        word = "wrong" if number >= WRONG_FROM else "right"
        text = f'package main\n\nimport "fmt"\n\nfunc main() {{ println({number}); fmt.Print("{word}") }}\n'
        (origin / "tool/main.go").write_text(text + "broken\n" * (number == NOT_BUILT))
        module = "example.test/other" if number == ELSEWHERE else "example.test/word"
        (origin / "tool/go.mod").write_text(f"module {module}\n\n{go_proxy.GO}")
        git(origin, "add", ".")
        git(origin, "commit", "-q", "-m", f"change {number}")
    git(tmp_path, "clone", "-q", "origin", "checkout")
    (tmp_path / "checkout/tool/main.go").write_text("edited")
    (tmp_path / "checkout/new").write_text("new")
    return tmp_path / "checkout"


def bisected(words: Space, source: Path, good: int, bad: int) -> Mapping[str, Any]:
    """What bisect finds among the commits between two places."""
    ends = [f"--good=HEAD~{COMMITS - 1 - good}", f"--bad=HEAD~{COMMITS - 1 - bad}"]
    return found(words.bk("bisect", CELL, "--tool=word", f"--source={source}", *ends, "--json"))


def runs(document: Mapping[str, Any]) -> int:
    return sum(probe["runs"] for probe in document["probes"])


def first_wrong(checkout: Path) -> str:
    commit = git(checkout, "log", "-1", "--format=%H", f"HEAD~{COMMITS - 1 - WRONG_FROM}")
    return f"{commit[:12]} change {WRONG_FROM}"


@pytest.mark.soak
def test_a_regression_among_thirty_commits(words: Space, checkout: Path) -> None:
    first = bisected(words, checkout / "tool", 0, COMMITS - 1)

    assert first["first_bad"] == first_wrong(checkout)
    assert first["cannot_say"] == []
    assert len(first["probes"]) <= math.ceil(math.log2(COMMITS - 1)) + 2
    again = bisected(words, checkout / "tool", 0, COMMITS - 1)
    assert again["first_bad"] == first["first_bad"]
    assert runs(again) == 0
    above = bisected(words, checkout, 18, 20)
    assert above["first_bad"] == first["first_bad"]
    assert runs(above) == 0, "the binaries are those of before"


def test_commits_are_tried_in_a_worktree(words: Space, checkout: Path) -> None:
    """Two of them cannot be judged, and are stepped over. The checkout stays as it is, edits included."""

    def state() -> list[str]:
        return [git(checkout, *words) for words in (["status", "--porcelain"], ["worktree", "list"], ["reflog"])]

    before = state()

    stepped = bisected(words, checkout / "tool", 14, 20)

    assert stepped["first_bad"] == first_wrong(checkout)
    ends = [f"--good=HEAD~{COMMITS - 1 - 14}", f"--bad=HEAD~{COMMITS - 1 - 20}"]
    shown = words.bk("bisect", CELL, "--tool=word", f"--source={checkout}/tool", *ends).stdout.splitlines()[0]
    ((_, like),) = session_of("bisect.md", f"bk bisect {CELL} --tool=word --source=../word")
    names = ("print the word in a loop", "update the README")
    like = like.replace(names[0], f"change {WRONG_FROM}").replace(names[1], f"change {WRONG_FROM - 1}")
    check_printed(like, f"{shown}\n")
    notes = {probe["revision"][13:]: probe["note"] for probe in stepped["probes"] if probe["verdict"] == "cannot say"}
    assert notes.keys() == {f"change {NOT_BUILT}", f"change {ELSEWHERE}"}
    assert "GoBuild failed" in notes[f"change {NOT_BUILT}"]
    assert "is of the module 'example.test/word'" in notes[f"change {ELSEWHERE}"]
    again = bisected(words, checkout / "tool", 14, 20)
    assert (runs(again), again["first_bad"]) == (0, stepped["first_bad"])
    for options, message in (
        (["--good=HEAD", "--bad=HEAD~3"], "--good=HEAD is not an ancestor of --bad=HEAD~3"),
        (["--good=none", "--bad=HEAD"], "has no such commit"),
        (["--good=--all", "--bad=HEAD"], "has no such commit"),
        (["--good=HEAD~16", "--bad=HEAD~12"], "change 18 is good"),
    ):
        done = words.bk("bisect", CELL, "--tool=word", f"--source={checkout}/tool", *options)
        assert done.returncode == (1 if "is good" in message else 2), done.stderr
        assert message in done.stderr
    assert state() == before
