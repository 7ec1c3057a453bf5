from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bkrules.errors import LoadError, UsageError
from bkrules.loading.root import find_root
from bkrules.loading.workspace import Workspace, check_labels
from bkrules.model.label import Label, parse_pattern

MakeWorkspace = Callable[[Mapping[str, str]], Workspace]

FILES = {
    "WORKSPACE.py": "thing(name = 'go')",
    "a/BUILD.py": "thing(name = 'one')\nthing(name = 'two')",
    "a/b/BUILD.py": "thing(name = 'one')",
    "ab/BUILD.py": "thing(name = 'one')",
    "a/plain/file.txt": "",
    "a/empty/BUILD.py": "",
    ".hidden/BUILD.py": "thing(name = 'never')",
    "bk-out/BUILD.py": "thing(name = 'never')",
}


@pytest.fixture
def workspace(make_workspace: MakeWorkspace) -> Workspace:
    return make_workspace(FILES)


def matched(workspace: Workspace, *patterns: str, package: str = "") -> list[str]:
    return [str(one.label) for one in workspace.match([parse_pattern(text, package) for text in patterns])]


def test_a_path_is_a_target_of_the_longest_package(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace({**FILES, "a/b/b/BUILD.py": "thing(name = 'b')", "x/BUILD.py": "thing(name = 'a')"})
    assert matched(workspace, "a/one") == ["//a:one"]
    assert matched(workspace, "a/b/one", "a/b/b") == ["//a/b:one", "//a/b/b:b"]
    assert matched(workspace, "b/one", package="a") == ["//a/b:one"]
    assert matched(workspace, "a", package="x") == ["//x:a"]  # its own target, although //x/a might exist
    assert matched(workspace, "./a:all") == ["//a:one", "//a:two"]
    with pytest.raises(UsageError) as caught:
        matched(workspace, "a/b")
    assert caught.value.message == "//a/b:b: no such target"
    assert caught.value.hint == "targets of //a/b: one\nall targets of the package: //a/b:all"


def test_the_root_is_the_nearest_folder_with_the_marker(tmp_path: Path) -> None:
    inner = tmp_path / "outer/inner"
    (inner / "deep/er").mkdir(parents=True)
    (tmp_path / "outer/WORKSPACE.py").touch()
    assert find_root(str(inner / "deep/er")) == str(tmp_path / "outer")
    (inner / "WORKSPACE.py").touch()
    assert find_root(str(inner / "deep/er")) == str(inner)
    assert find_root(str(inner)) == str(inner)


def test_a_folder_of_that_name_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "WORKSPACE.py").touch()
    (tmp_path / "inner/WORKSPACE.py").mkdir(parents=True)
    assert find_root(str(tmp_path / "inner")) == str(tmp_path)


def test_the_root_is_found_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "real/WORKSPACE.py").touch()
    (tmp_path / "link").symlink_to("real/below")
    assert find_root(str(tmp_path / "link")) == str(tmp_path / "real")


def test_outside_of_a_workspace_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_root(str(tmp_path))
    assert caught.value.reason == "no-workspace"
    assert str(tmp_path) in caught.value.message


def test_packages_are_the_folders_with_a_build_file(workspace: Workspace) -> None:
    assert list(workspace.packages()) == ["", "a", "a/b", "a/empty", "ab"]
    assert list(workspace.packages("a")) == ["a", "a/b", "a/empty"]
    assert list(workspace.packages("none")) == []


def test_a_package_is_read_once(workspace: Workspace) -> None:
    package = workspace.package("a")
    Path(workspace.root, "a/BUILD.py").write_text("syntax error")
    assert workspace.package("a") is package


@pytest.mark.parametrize("name", ["a/plain", "a/plain/file.txt", "none", "n" * 300])
def test_what_has_no_build_file_is_no_package(name: str, workspace: Workspace) -> None:
    assert workspace.package(name) is None


@pytest.mark.parametrize(
    ("patterns", "labels"),
    [
        (["//..."], ["//:go", "//a:one", "//a:two", "//a/b:one", "//ab:one"]),
        (["//a/..."], ["//a:one", "//a:two", "//a/b:one"]),
        (["//a:all"], ["//a:one", "//a:two"]),
        (["//:all"], ["//:go"]),
        (["//a:two", "//a:one", "//a:two"], ["//a:one", "//a:two"]),
        (["//ab:one", "//a:one"], ["//a:one", "//ab:one"]),
        (["//...", "-//a/..."], ["//:go", "//ab:one"]),
        (["//a/...", "-//a:one", "-//a/b:all"], ["//a:two"]),
        (["//a/...", "-//a/...", "//a:one"], ["//a:one"]),
        (["-//a:one", "//a:all"], ["//a:one", "//a:two"]),
        (["//a:one", "-//a:one"], []),
    ],
)
def test_patterns_are_applied_one_after_the_other(patterns: list[str], labels: list[str], workspace: Workspace) -> None:
    assert matched(workspace, *patterns) == labels


def test_patterns_are_relative_to_the_folder(workspace: Workspace) -> None:
    assert matched(workspace, ":one", package="a/b") == ["//a/b:one"]
    assert matched(workspace, "all", package="a") == ["//a:one", "//a:two"]


@pytest.mark.parametrize(
    ("pattern", "reason", "hint"),
    [
        ("//a:on", "unknown-target", "did you mean 'one'?"),
        ("//a:zzz", "unknown-target", "targets of //a: one, two"),
        ("//abc:one", "unknown-target", "did you mean '//ab'?"),
        ("//a/b/x:one", "unknown-target", "did you mean '//a/b'?"),
        ("//abc/...", "no-targets", "did you mean '//ab'?"),
        ("//abc:all", "no-targets", "did you mean '//ab'?"),
        ("//a/empty:all", "no-targets", "packages: //"),
        ("//a/plain/...", "no-targets", "packages: //"),
    ],
)
def test_a_pattern_of_nothing_is_an_error_with_a_hint(
    pattern: str, reason: str, hint: str, workspace: Workspace
) -> None:
    for wrong in (pattern, f"-{pattern}"):
        with pytest.raises(UsageError) as caught:
            matched(workspace, "//a:one", wrong)
        assert caught.value.reason == reason
        assert hint in caught.value.hint


def test_an_error_in_any_package_ends_a_recursive_pattern(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace({**FILES, "ab/BUILD.py": "thing(name = 'one', wrong = 1)"})
    with pytest.raises(LoadError) as caught:
        matched(workspace, "//...")
    assert caught.value.where == "ab/BUILD.py:2, attribute 'wrong'"
    assert matched(workspace, "//a/...") == ["//a:one", "//a:two", "//a/b:one"]


def test_targets_and_files_are_told_apart(workspace: Workspace) -> None:
    target = workspace.target(Label("a/b", "one"))
    assert target is not None
    assert target.label == Label("a/b", "one")
    assert workspace.target(Label("a/plain", "file.txt")) is None
    assert workspace.is_file(Label("a/plain", "file.txt"))
    assert workspace.is_file(Label("a", "plain/file.txt"))
    assert not workspace.is_file(Label("a", "plain"))
    assert not workspace.is_file(Label("a", "one"))


def test_dependencies_are_targets_and_not_files(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace(
        {**FILES, "x/BUILD.py": "thing(name = 'x', deps = ['//a:two', 'f', '//a:one'])", "x/f": ""}
    )
    target = workspace.target(Label("x", "x"))
    assert target is not None
    assert [str(one.label) for one in check_labels(workspace, target)] == ["//a:two", "//a:one"]


@pytest.mark.parametrize(
    ("label", "hint"),
    [("//a:on", "did you mean 'one'?"), ("//abc:one", "did you mean '//ab'?"), (":none", "targets of")],
)
def test_a_label_of_nothing_is_refused_at_its_attribute(label: str, hint: str, make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace({**FILES, "x/BUILD.py": f"thing(name = 'x',\n  dep = '{label}')"})
    target = workspace.target(Label("x", "x"))
    assert target is not None
    with pytest.raises(LoadError) as caught:
        check_labels(workspace, target)
    assert caught.value.reason == "unknown-label"
    assert caught.value.where == "x/BUILD.py:3, attribute 'dep'"
    assert hint in caught.value.hint


def test_the_folder_in_which_bk_runs_does_not_matter(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.path.join(workspace.root, "a"))
    assert matched(workspace, "//ab:one") == ["//ab:one"]


@pytest.mark.parametrize(
    ("patterns", "labels"),
    [
        (["//..."], ["//m:by_itself"]),
        (["//m:all"], ["//m:by_itself"]),
        (["//m:slow"], ["//m:slow"]),
        (["//m/...", "//m:slow"], ["//m:by_itself", "//m:slow"]),
        (["//m:slow", "-//m:all"], []),
        (["//m:slow", "-//m:slow"], []),
        (["//n:all"], []),
    ],
)
def test_a_manual_target_is_taken_when_it_is_named(
    patterns: list[str], labels: list[str], make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace(
        {
            "m/BUILD.py": "thing(name = 'slow', tags = ['x', 'manual'])\nthing(name = 'by_itself', tags = ['manually'])",
            "n/BUILD.py": "thing(name = 'slow', tags = ['manual'])",
        }
    )
    wanted = [parse_pattern(text) for text in patterns]
    assert [str(one.label) for one in workspace.match(wanted, manual=False)] == labels


def test_a_manual_target_is_listed_as_any_other(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace({"m/BUILD.py": "thing(name = 'slow', tags = ['manual'])"})
    assert matched(workspace, "//...") == ["//m:slow"]
