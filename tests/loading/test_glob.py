from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.errors import LoadError
from bkrules.loading.glob import BadGlob, Glob, search
from bkrules.loading.package import Package
from bkrules.loading.workspace import Workspace

FILES = [
    *("p/BUILD.py", "p/a.txt", "p/b.txt", "p/c.md", "p/.hidden.txt", "p/a[1].txt", "p/ab.txt", "p/new\nline.txt"),
    *("p/d/a.txt", "p/d/e/a.txt", "p/d/e/f.md", "p/.dot/a.txt", "p/__pycache__/a.txt", "p/bk-out/a.txt"),
    *("p/sub/BUILD.py", "p/sub/a.txt", "p/sub/deep/a.txt", "q/a.txt", "p2/a.txt"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "root"


def names(root: Path, *include: str, exclude: tuple[str, ...] = (), package: str = "p") -> list[str]:
    return list(search(str(root), Glob(package, include, exclude)).names)


@pytest.mark.parametrize(
    ("include", "found"),
    [
        (["*.txt"], "a.txt a[1].txt ab.txt b.txt new\nline.txt"),
        (["?.txt"], "a.txt b.txt"),
        (["a*.txt"], "a.txt a[1].txt ab.txt"),
        (["a[1].txt"], "a[1].txt"),
        (["a.txt", "none.txt"], "a.txt"),
        ([".*.txt"], ".hidden.txt"),
        (["**/a.txt"], "a.txt d/a.txt d/e/a.txt bk-out/a.txt"),
        (["d/**"], "d/a.txt d/e/a.txt d/e/f.md"),
        (["d/**/*.md"], "d/e/f.md"),
        (["*/a.txt"], "d/a.txt bk-out/a.txt"),
        (["d/*/?.md"], "d/e/f.md"),
        (["**/e/**/*.md"], "d/e/f.md"),
        (["d"], ""),
        (["sub/*.txt", "sub/**/*.txt", "**/deep/*.txt"], ""),
        (["A.TXT"], ""),
        ([], ""),
    ],
)
def test_what_a_pattern_matches(include: list[str], found: str, tree: Path) -> None:
    expected = found.replace("new\nline", "NEW").split(" ") if found else []
    assert names(tree, *include) == sorted(name.replace("NEW", "new\nline") for name in expected)


def test_what_is_excluded(tree: Path) -> None:
    assert names(tree, "**/*.txt", exclude=("a*", "d/**", "bk-out/*", "n*")) == ["b.txt"]


def test_in_the_root_package_the_outputs_are_not_seen(tree: Path) -> None:
    (tree / "bk-out").mkdir()
    (tree / "bk-out/a.txt").touch()
    assert names(tree, "**/a.txt", package="") == ["p2/a.txt", "q/a.txt"]


@pytest.mark.parametrize(
    "pattern", ["", "/a", "a/", "../q/a.txt", "d/../a.txt", "./a.txt", "d//a.txt", "**a", "d/a**", "***"]
)
def test_a_pattern_that_leaves_the_package_is_refused(pattern: str, tree: Path) -> None:
    with pytest.raises(BadGlob):
        names(tree, pattern)
    with pytest.raises(BadGlob):
        names(tree, "*", exclude=(pattern,))


def test_links_are_followed_to_files_of_the_workspace(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/l.txt").touch()
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2/l.txt").touch()
    for name, target in {
        "l1.txt": "../q/a.txt",
        "l2.txt": "../../outside/l.txt",
        "l3.txt": "nowhere",
        "l4.txt": "l4.txt",
        "l5.txt": "../../root2/l.txt",
        "ld": "d",
        "lo": "../../outside",
        "lup": "..",
    }.items():
        (tree / "p" / name).symlink_to(target)
    assert names(tree, "**/l*.txt", "l*/**", "l*") == ["l1.txt"]


def test_a_package_behind_a_link_out_of_the_workspace_has_no_files(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.txt").touch()
    (tree / "linked").symlink_to(tmp_path / "outside")
    (tree / "inner").symlink_to("q")
    assert names(tree, "*.txt", package="linked") == []
    assert names(tree, "*.txt", package="inner") == ["a.txt"]
    assert search(str(tree), Glob("inner", ("*",), ())).links
    assert not search(str(tree), Glob("q", ("*",), ())).links


Read = Callable[[str], Package]


@pytest.fixture
def package(make_workspace: Callable[..., Workspace]) -> Read:
    def run(call: str) -> Package:
        space = make_workspace({"p/BUILD.py": f"from bkrules import glob\n{call}\n", "p/a.txt": "", "p/b.txt": ""})
        found = space.package("p")
        assert found is not None
        return found

    return run


def test_a_glob_gives_a_list(package: Read) -> None:
    text = "x = glob(['*.txt'], exclude = ['b*']) + ['c']\nx.append('d')\nthing(name = 'a', deps = x)"
    assert [str(label) for label in package(text).targets["a"].attributes["deps"]] == ["//p:a.txt", "//p:c", "//p:d"]
    assert (
        package("thing(name = 'a', words = glob(['*.no'], allow_empty = True))").targets["a"].attributes["words"] == ()
    )


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("glob(['*.no'])", "empty-glob"),
        ("glob([])", "empty-glob"),
        ("glob(['*'], exclude = ['*'])", "empty-glob"),
        ("glob(['../*'])", "bad-glob"),
        ("glob(['*'], ['/'])", "bad-glob"),
        ("glob('*')", "bad-glob"),
        ("glob([1])", "bad-glob"),
        ("glob(['*'], exclude = '*')", "bad-glob"),
        ("glob(['*'], allow_empty = 1)", "bad-glob"),
        ("glob()", "evaluation"),
        ("glob(['*'], wrong = 1)", "evaluation"),
    ],
)
def test_a_bad_glob_is_refused_at_its_line(call: str, reason: str, package: Read) -> None:
    with pytest.raises(LoadError) as caught:
        package(f"\n{call}")
    assert (caught.value.reason, caught.value.where) == (reason, "p/BUILD.py:4")
