from __future__ import annotations

import pytest

from bkrules.errors import BkError, UsageError
from bkrules.model.label import Label, LabelError, Pattern, parse_label, parse_pattern, valid_name


@pytest.mark.parametrize(
    ("text", "package", "name"),
    [
        ("//a/b:c", "a/b", "c"),
        ("//a/b", "a/b", "b"),
        ("//:c", "", "c"),
        (":c", "here", "c"),
        ("c", "here", "c"),
        ("sub/file.py", "here", "sub/file.py"),
        ("//a-1/b.c+d:e=f,g@h~i", "a-1/b.c+d", "e=f,g@h~i"),
        ("@m//a/b:c", "@m/a/b", "c"),
        ("@m//:c", "@m", "c"),
        ("@m//a", "@m/a", "a"),
    ],
)
def test_a_label_is_read_as_bazel_reads_it(text: str, package: str, name: str) -> None:
    assert parse_label(text, "here") == Label(package, name)


@pytest.mark.parametrize(("text", "package"), [(":c", "@m/a"), ("//b:c", "@m/b"), ("//:c", "@m"), ("@n//b:c", "@n/b")])
def test_a_label_in_a_module_is_of_that_module(text: str, package: str) -> None:
    assert parse_label(text, "@m/a") == Label(package, "c")


@pytest.mark.parametrize("label", [Label("", "c"), Label("a/b", "c/d.txt"), Label("@m", "c"), Label("@m/a/b", "c")])
def test_a_printed_label_means_the_same_from_anywhere(label: Label) -> None:
    assert parse_label(str(label), "elsewhere") == label


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "//", "//a:", "a b", "//a b:c", "//a:b:c", "/a:b", "//a//b:c", "//a/:c", ":/c", ":c/", "a\n"),
        *(
            "..",
            "//..:a",
            "//a/..:b",
            ":../b",
            ":a/../b",
            "@a:b",
            "@//a:b",
            "@a-b//c",
            "@a.b//c:d",
            ":@a//b",
            "@a//..:b",
            "//ä:b",
        ),
    ],
)
def test_what_is_not_a_label_is_refused(text: str) -> None:
    with pytest.raises(LabelError):
        parse_label(text, "here")


@pytest.mark.parametrize("text", ["//a/.:b", "//./a:b", ":.", ":./b", ":a//b"])
def test_a_target_has_one_spelling(text: str) -> None:
    with pytest.raises(LabelError):
        parse_label(text, "here")


@pytest.mark.parametrize(("label", "path"), [(Label("", "go.mod"), "go.mod"), (Label("a/b", "c/d"), "a/b/c/d")])
def test_a_source_file_lies_below_its_package(label: Label, path: str) -> None:
    assert label.path == path


def test_labels_sort_by_package_and_then_by_name() -> None:
    labels = [Label("b", "a"), Label("a", "b"), Label("", "z"), Label("a", "a")]
    assert sorted(labels) == [Label("", "z"), Label("a", "a"), Label("a", "b"), Label("b", "a")]


@pytest.mark.parametrize("name", ["a", "a/b", "busybox-1.2_x+y", "file.py"])
def test_valid_names(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a b", "a:b", "a\n", "..", ".", "../a", "a/../b", "a/./b", "a//b"])
def test_a_name_that_no_label_could_say_is_not_valid(name: str) -> None:
    assert not valid_name(name)


HERE, BELOW, BESIDE, ROOT = Label("here", "a"), Label("here/below", "a"), Label("hereafter", "a"), Label("", "a")
MODULE = Label("@m/a", "a")


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("//here:a", [HERE]),
        ("//here:b", []),
        ("//here:all", [HERE]),
        ("//here:*", [HERE]),
        ("//here/...", [HERE, BELOW]),
        ("//...", [HERE, BELOW, BESIDE, ROOT]),
        ("@m//...", [MODULE]),
        ("@m//a:all", [MODULE]),
        ("@m//a/...", [MODULE]),
        ("@n//...", []),
        ("//:all", [ROOT]),
        ("//:a", [ROOT]),
        (":a", [HERE]),
        ("a", [HERE]),
        ("all", [HERE]),
        (":all", [HERE]),
        ("below/...", [BELOW]),
        ("./...", [HERE, BELOW]),
        ("...:all", [HERE, BELOW]),
        ("//...:*", [HERE, BELOW, BESIDE, ROOT]),
        ("./:a", [HERE]),
        ("./a", [HERE]),
    ],
)
def test_what_a_pattern_matches(text: str, matched: list[Label]) -> None:
    pattern = parse_pattern(text, "here")
    assert [label for label in (HERE, BELOW, BESIDE, ROOT, MODULE) if pattern.matches(label)] == matched
    assert not pattern.negative


def test_a_pattern_without_slashes_starts_in_the_current_folder() -> None:
    assert parse_pattern("pkg:m", "here") == Pattern("pkg:m", "here/pkg", "m")
    assert parse_pattern("./pkg:all") == Pattern("./pkg:all", "pkg", None)
    assert parse_pattern("pkg/sub/...", "here") == Pattern("pkg/sub/...", "here/pkg/sub", None, recursive=True)
    assert parse_pattern("pkg/", "here") == Pattern("pkg/", "here", "pkg", is_path=True)


def test_a_dash_makes_a_pattern_negative() -> None:
    pattern = parse_pattern("-//here/...")
    assert pattern.negative
    assert pattern.text == "-//here/..."
    assert pattern.matches(BELOW)


@pytest.mark.parametrize(
    "text",
    ["", "-", "//a b:c", "//a b/...", "//a:b:c", "//a//...", "//../...", "//a/../...", "a:b:c", "../a:b", "a b:c"],
)
def test_a_bad_pattern_is_refused(text: str) -> None:
    with pytest.raises(BkError) as caught:
        parse_pattern(text)
    assert caught.value.reason == "bad-pattern"
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_bad_pattern_is_in_the_tree_of_errors() -> None:
    with pytest.raises(UsageError):
        parse_pattern("//a b:c")
