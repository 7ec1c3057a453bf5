from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.errors import LoadError
from bkrules.loading import glob as glob_module
from bkrules.loading import meter
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


def _matches(pattern: list[str], path: list[str]) -> bool:
    """The meaning of a pattern, in the simplest form, however long it takes."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path) and not any(name.startswith(".") for name in path)
        here = _matches(pattern[1:], path)
        return here or (bool(path) and not path[0].startswith(".") and _matches(pattern, path[1:]))
    return bool(path) and _matches_name(pattern[0], path[0]) and _matches(pattern[1:], path[1:])


def _matches_name(pattern: str, name: str, *, first: bool = True) -> bool:
    if not pattern:
        return not name
    if first and name.startswith(".") and pattern[0] in "*?":
        return False
    if pattern[0] == "*":
        return any(_matches_name(pattern[1:], name[start:], first=False) for start in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and _matches_name(pattern[1:], name[1:], first=False)


part = st.text("ab.*?", min_size=1, max_size=5).filter(
    lambda text: "**" not in text and text not in (".", "..")
) | st.just("**")
patterns = st.lists(part, min_size=1, max_size=5).map("/".join)
paths = st.lists(
    st.text("ab.", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")), min_size=1, max_size=5
)


@settings(max_examples=rounds(400))
@given(st.lists(patterns, min_size=1, max_size=3), patterns, paths)
def test_a_pattern_means_what_it_says(include: list[str], exclude: str, path: list[str]) -> None:
    wanted, unwanted = (_met(one, path) for one in (include, [exclude]))
    assert wanted == any(_matches(one.split("/"), path) for one in include)
    assert unwanted == _matches(exclude.split("/"), path)


def _met(these: list[str], path: list[str]) -> bool:
    found = glob_module._Patterns(these)
    states = found.begin()
    for folder in path[:-1]:
        states = found.enter(states, folder)
    return bool(found.files(states)(path[-1]))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 100 + "b", "a" * 250),
        ("?*" * 100 + "b", "a" * 250),
        ("*" + "a*" * 100 + "b", "a" * 250),
        ("**/" + "*a" * 50 + "/**/b", "/".join(["a" * 200] * 15)),
        ("**/a/" * 30 + "b", "/".join(["a"] * 500)),
        ("**/*/" * 30 + "b", "/".join(["a"] * 500)),
        ("**/" * 1000 + "b", "/".join(["a"] * 500)),
    ],
)
def test_no_pattern_is_tried_again_and_again(pattern: str, path: str, tmp_path: Path) -> None:
    """With the regular expression that tries all ways, each of these takes longer than a life."""
    assert not _met([pattern], path.split("/"))
    (tmp_path / path[:250].replace("/", "a")).touch()
    assert names(tmp_path, pattern, package="") == []
    assert names(tmp_path, "*", exclude=(pattern,), package="") == [path[:250].replace("/", "a")]


@pytest.mark.parametrize("pattern", ["a\0b", "*" + "a" * 5000, "a/" * 3000 + "a"])
def test_a_pattern_that_no_file_can_match_is_refused(pattern: str, tree: Path) -> None:
    with pytest.raises(BadGlob) as caught:
        names(tree, pattern)
    assert len(str(caught.value)) < 500


def test_globs_are_charged(
    make_workspace: Callable[[Mapping[str, str]], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand files, looked at again and again."""
    monkeypatch.setattr(meter, "STEPS", 100_000)
    files = {f"p/{number}.txt": "" for number in range(300)}
    text = "[glob(['**/*.none'], allow_empty = True) for n in range(10000)]"
    with pytest.raises(LoadError) as caught:
        make_workspace({**files, "p/BUILD.py": f"from bkrules import glob\n{text}"}).package("p")
    assert caught.value.reason == "too-long"
    many = "glob(['%d*' % n for n in range(3000)])"
    with pytest.raises(LoadError) as caught:
        make_workspace({**files, "q/BUILD.py": "", "p/BUILD.py": f"from bkrules import glob\n{many}"}).package("p")
    assert caught.value.reason == "too-long"
