"""Which files a .dockerignore leaves out."""

from __future__ import annotations

import pytest

from bkrules.errors import UsageError
from bkrules.repro.dockerignore import Ignored


@pytest.mark.parametrize(
    ("text", "out", "kept"),
    [
        ("", [], ["a", ".git/x"]),
        ("# a\n\n  \nb\n", ["b", "b/x/y"], ["a", "# a", "x/b"]),
        ("/a/\n./b\n", ["a", "a/x", "b"], ["x/a"]),
        ("*.log", ["x.log"], ["x/y.log", "x.logs"]),
        ("**/*.log", ["x.log", "x/y.log", "x/y/z.log"], ["x/y.logs"]),
        ("a/**", ["a/x", "a/x/y"], ["a", "b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["a/xb", "b"]),
        ("?.t[xy]t", ["a.txt", "a.tyt"], ["ab.txt", "a.tzt", "/.txt"]),
        ("a+b(c).{d}|$^", ["a+b(c).{d}|$^"], ["aab(c).{d}|$^"]),
        (r"\*", ["*"], ["a"]),
        ("*\n!keep\n!d/keep\n", ["a", "d", "d/x"], ["keep", "keep/x", "d/keep"]),
        ("*\n!keep\nkeep/secret", ["keep/secret", "keep/secret/x"], ["keep/x"]),
        (".", [], ["a"]),
    ],
)
def test_patterns(text: str, out: list[str], kept: list[str]) -> None:
    ignored = Ignored(text)
    assert [path for path in [*out, *kept] if ignored.has(path)] == out


def test_a_malformed_pattern_is_an_error() -> None:
    with pytest.raises(UsageError, match="the pattern '\\[' is malformed"):
        Ignored("[")
