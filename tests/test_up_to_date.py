"""What did not change is not looked at again, and what did change, or rests on it, always is."""

from __future__ import annotations

import marshal
import os
import random
import re
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import Space

# bk an hour from now, which says the packages that it analyses, each time that it does.
SPY = """
import sys, time
now = time.time_ns
time.time_ns = lambda: now() + 3600 * 10**9
import bkrules.build.analysis as analyzed
real = analyzed.analyze
def spy(graph, *more, **named):
    print("analysed:", *sorted({one.label.package for one in graph.targets}), file=sys.stderr)
    return real(graph, *more, **named)
analyzed.analyze = spy
from bkrules.__main__ import main
sys.exit(main())
"""
IMAGE = 'image(name = "image", files = {{"{name}": "{name}.txt"}}, {more})\n'
HEAD = "from bkrules import image\n"
ALL = {"app", "globbed", "lib", "macros", "other"}


class Bk:
    """bk in a workspace whose files are all old enough to be believed: its clock is an hour ahead."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.analysed: list[set[str]] | None = None
        self.counts = (0, 0, 0)

    @property
    def root(self) -> Path:
        return self.space.root

    def write(self, path: str, text: str) -> None:
        """Write a file of the workspace."""
        self.space.write(path, text)

    def remove(self, path: str) -> None:
        """Remove a file of the workspace."""
        (self.root / path).unlink()

    def build(self, *arguments: str) -> int:
        """Build; the exit code. `analysed` are the packages of each analysis; None when the whole answer was at hand."""
        command = self.space.command("build", *(arguments or ("//...",)))
        at = command.index("-m")
        command[at : at + 2] = ["-c", SPY]
        environment = {**os.environ, **self.space.environment}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        found = re.findall("^analysed:(.*)$", done.stderr, re.MULTILINE)
        self.analysed = [set(line.split()) for line in found] or None
        numbers = re.search(r"(\d+) actions?: (\d+) ran, (\d+) cached", done.stdout)
        self.counts = (int(numbers[1]), int(numbers[2]), int(numbers[3])) if numbers else (0, 0, 0)
        self.output = done.stdout + done.stderr
        return done.returncode

    def settle(self) -> None:
        """Build until there is an answer."""
        for _ in range(3):
            assert self.build() == 0, self.output
        assert self.analysed is None

    def made(self) -> dict[str, bytes]:
        """All that is shown in bk-out."""
        out = self.root / "bk-out"
        found = (path for path in out.rglob("*") if path.is_file() and not path.is_relative_to(out / ".state"))
        return {str(path.relative_to(out)): path.read_bytes() for path in found}

    def forget(self) -> None:
        """Let the next build look at everything."""
        shutil.rmtree(self.root / "bk-out/.state/answers", ignore_errors=True)


@pytest.fixture
def bk(space: Space) -> Bk:
    """Packages with an image each: `app` is made of `lib`, `macros` has no target, `other` uses it, `globbed` uses a glob."""
    bk = Bk(space)
    for name, more in (("lib", ""), ("app", 'base = "//lib:image"'), ("other", "cmd = words()")):
        load = 'load("//macros:words.py", "words")\n' if name == "other" else ""
        bk.write(f"{name}/BUILD.py", HEAD.replace("image", "image, load") + load + IMAGE.format(name=name, more=more))
        bk.write(f"{name}/{name}.txt", name)
    bk.write("macros/BUILD.py", HEAD + 'image(name = "image", noise = {"a": 1})\n')
    bk.write("macros/words.py", 'def words():\n    return ["one"]\n')
    bk.write(
        "globbed/BUILD.py",
        "from bkrules import glob, image\n"
        + 'image(name = "image", files = {name: name for name in glob(["**/*.txt"])})',
    )
    bk.write("globbed/data/one.txt", "one")
    bk.write("globbed/data/first.txt", "first")
    bk.settle()
    assert bk.counts == (5, 0, 5)
    return bk


def damage(path: Path) -> None:
    path.chmod(0o755)
    path.write_bytes(b"damaged")


def blob_of(bk: Bk, package: str) -> Path:
    """The layer of a package's image in the disk cache."""
    layers = (bk.root / f"bk-out/{package}/image/layout/blobs/sha256").iterdir()
    name = max(layers, key=lambda path: path.read_bytes()[:2] == b"\x1f\x8b").name
    return bk.space.cache / "cas" / name[:2] / name


CHANGES: dict[str, tuple[Callable[[Bk], object], set[str], int]] = {
    "a source": (lambda bk: bk.write("other/other.txt", "new"), {"other"}, 1),
    "a source that others rest on": (lambda bk: bk.write("lib/lib.txt", "new"), {"app", "lib"}, 2),
    "a source of what rests on others": (lambda bk: bk.write("app/app.txt", "new"), {"app", "lib"}, 1),
    "a comment": (lambda bk: bk.write("other/BUILD.py", (bk.root / "other/BUILD.py").read_text() + "#"), {"other"}, 0),
    "an attribute": (
        lambda bk: bk.write("macros/BUILD.py", HEAD + 'image(name="image", noise={"b": 1})'),
        {"macros", "other"},
        1,
    ),
    "what is loaded": (lambda bk: bk.write("macros/words.py", 'def words():\n    return ["two"]\n'), {"other"}, 1),
    "a glob": (lambda bk: bk.write("globbed/data/two.txt", "two"), {"globbed"}, 1),
    "a file that goes": (lambda bk: bk.remove("globbed/data/one.txt"), {"globbed"}, 1),
    "a package that comes": (lambda bk: bk.write("more/BUILD.py", HEAD + 'image(name = "image")'), {"more"}, 0),
    "nothing but a folder": (lambda bk: bk.write("lib/notes.md", ""), set(), 0),
    "an output that goes": (lambda bk: shutil.rmtree(bk.root / "bk-out/other/image"), {"other"}, 0),
    "an output within a folder": (
        lambda bk: (bk.root / "bk-out/app/image/layout/index.json").unlink(),
        {"app", "lib"},
        0,
    ),
    "an edited output": (lambda bk: damage(bk.root / "bk-out/other/image/layout/index.json"), {"other"}, 1),
    "a blob that goes": (lambda bk: blob_of(bk, "other").unlink(), {"other"}, 1),
    "a damaged blob": (lambda bk: damage(blob_of(bk, "other")), {"other"}, 1),
    "results that go": (lambda bk: shutil.rmtree(bk.space.cache / "ac"), ALL, 5),
    "a use of another package": (
        lambda bk: bk.write("other/BUILD.py", HEAD + 'image(name = "image", base = "//app:image")\n'),
        {"app", "lib", "other"},
        1,
    ),
    "no use any more": (
        lambda bk: bk.write("app/BUILD.py", HEAD + 'image(name = "image", base = "//macros:image")\n'),
        {"app", "lib", "macros"},
        1,
    ),
    "an option": (lambda bk: bk.write(".bkrc", "build --jobs=1\n"), ALL, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_looked_at_and_nothing_else(bk: Bk, change: str) -> None:
    apply, packages, ran = CHANGES[change]
    apply(bk)

    assert bk.build() == 0, bk.output

    assert (bk.analysed or [set()])[-1] == packages, bk.output
    if change != "a package that comes":  # an image of nothing may be cached or not
        assert bk.counts == (5, ran, 5 - ran)
    incremental = bk.made()
    bk.forget()
    assert bk.build() == 0
    assert bk.analysed is not None
    assert bk.counts[1] == 0
    assert bk.made() == incremental


def test_a_package_that_goes_is_missed(bk: Bk) -> None:
    shutil.rmtree(bk.root / "lib")

    assert bk.build() == 1
    assert "//app:image: //lib:image is neither a target nor a file" in bk.output


def test_a_failure_is_met_again(bk: Bk) -> None:
    bk.write("other/BUILD.py", "1 +")
    for _ in range(2):
        assert bk.build() == 1
        assert "other/BUILD.py" in bk.output


def test_what_ran_is_looked_at_once_more(bk: Bk) -> None:
    bk.write("other/other.txt", "new")
    assert bk.build() == 0
    bk.write("lib/lib.txt", "new")

    assert bk.build() == 0
    assert bk.analysed == [{"app", "lib", "other"}]
    bk.write("globbed/data/one.txt", "new")
    assert bk.build() == 0
    assert bk.analysed == [{"app", "lib", "globbed"}]


def test_a_file_that_was_written_during_a_build_is_looked_at_again(bk: Bk) -> None:
    ahead = time.time() + 7200
    os.utime(bk.space.write("other/other.txt", "young"), (ahead, ahead))
    assert [(bk.build(), bk.analysed) for _ in range(3)] == [(0, [{"other"}])] * 3


def test_only_what_was_asked_for_is_left_out(bk: Bk) -> None:
    """Of `lib`, this command line takes one target because of `app`; another may be needed by the next one."""
    bk.write("lib/more.txt", "more")
    bk.write(
        "lib/BUILD.py", HEAD + IMAGE.format(name="lib", more="") + 'image(name = "two", files = {"a": "more.txt"})'
    )
    for _ in range(3):
        assert bk.build("//app:all", "//other:all") == 0
    assert bk.analysed is None
    assert bk.counts == (3, 0, 3)
    bk.write("other/BUILD.py", HEAD + 'image(name = "image", base = "//lib:two")\n')
    assert bk.build("//app:all", "//other:all") == 0
    assert bk.counts == (4, 2, 2)
    for _ in range(2):
        assert bk.build("//app:all", "//other:all") == 0

    bk.write("lib/more.txt", "new")

    assert bk.build("//app:all", "//other:all") == 0
    assert bk.counts == (4, 2, 2)


@pytest.mark.parametrize("environment", [{"BK_ANYTHING": "1"}, {"PATH": "/usr/bin:/bin:/nowhere"}])
def test_another_environment_is_another_question(bk: Bk, environment: dict[str, str]) -> None:
    bk.space = replace(bk.space, environment=environment)
    assert bk.build() == 0
    assert bk.analysed == [ALL]


@pytest.mark.parametrize("option", ["--test_output=all", "--build_event_json_file=events"])
def test_who_asks_for_all_is_told_of_all(bk: Bk, option: str) -> None:
    for _ in range(2):
        assert bk.build("//...", option) == 0
        assert bk.analysed == [ALL]


def test_whatever_is_done_to_a_workspace_the_answer_is_that_of_a_build_from_nothing(bk: Bk, tmp_path: Path) -> None:
    """Random edits; after each, bk-out is what a build without any memory makes of the same files."""
    dice = random.Random(7)
    packages = ["lib", "app", "other", "macros", "globbed"]
    for step in range(8):
        for name in dice.sample(packages, dice.choice([1, 1, 2])):
            number = packages.index(name)
            base = f'base = "//{dice.choice(packages[:number])}:image"' if number and dice.random() < 0.6 else ""
            bk.write(f"{name}/{name}.txt", f"{name} {dice.randrange(3)}")
            if dice.random() < 0.5:
                bk.write(f"{name}/BUILD.py", HEAD + IMAGE.format(name=name, more=base))
        assert bk.build() == 0, bk.output
        fresh = Bk(Space(tmp_path / f"fresh{step}", tmp_path / "fresh-cache", sys.executable))
        shutil.copytree(bk.root, fresh.root, ignore=shutil.ignore_patterns("bk-out"))
        assert fresh.build() == 0, fresh.output
        assert bk.made() == fresh.made()
        assert bk.counts[0] == fresh.counts[0]


def test_a_damaged_state_is_no_state(bk: Bk) -> None:
    """A file with wrong values must not make builds fail for ever."""
    [file] = (bk.root / "bk-out/.state/answers").iterdir()
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "big")
    form, asked, facts, folders, text = marshal.loads(whole[8:end])
    for_all, packages = marshal.loads(whole[end:])
    far = array("I", [1 << 30]).tobytes()
    name, (uses, *more) = next(iter(packages.items()))
    seconds = [(*kept[:2], "long", *kept[3:]) for kept in packages.values()]
    heads = [
        (text, last) for last in ((for_all, packages, 1), (1, packages), (for_all, list(packages)), (far, packages))
    ]
    heads += [(text, (for_all, {name: (1, *more)})), (text, (for_all, {name: (uses,)})), (1, (for_all, packages))]
    heads += [(text, (for_all, dict(zip(packages, seconds, strict=True)))), (None, (b"abc", packages))]
    heads += [(text, (for_all, {name: (uses, *more[:3], far)}))]
    for number, (answer, last) in enumerate(heads):
        bk.write("lib/lib.txt", f"change {number}")
        data = marshal.dumps((form, asked, facts, folders, answer))
        file.write_bytes(len(data).to_bytes(8, "big") + data + marshal.dumps(last))
        assert bk.build() == 0, (number, bk.output)
        assert bk.analysed, number
