"""Annotations and groups for CI systems, and output that a CI must not take for commands."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bkrules.execution.result import Result
from bkrules.report.ci import GITHUB, GITLAB, Ci
from bkrules.report.failures import failures

HOSTILE = [
    "::error::owned",
    "  \t::add-mask::x",
    "one\r::set-env name=PATH::x",
    "x\n::stop-commands::y",
    "see ##[error]owned",
    "\x1b[0Ksection_start:1:x\r",
    "\u2003::warning::x",
]


def commands(text: str) -> list[str]:
    """What GitHub's runner and GitLab would understand in a text: the runner trims lines, which end with either character."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    github = [line for line in lines if line.startswith("::") or "##[" in line]
    return [*github, *re.findall(r"section_(?:start|end):\S*", text)]


def test_each_failure_has_an_annotation(cell: Callable[..., Result]) -> None:
    ci = Ci({GITHUB: "true", "GITHUB_WORKSPACE": "/repo"})
    results = [
        cell("failed", worker, failure="test", reason="t/test_a.py:3: assert 1 == 2\n+ 2%") for worker in ("a", "b")
    ]
    results.append(cell("timed out", "c", failure="timeout", reason="it took more than 3 s"))

    assert ci.annotations(failures(results), "/repo/sub") == [
        "::error file=sub/t/test_a.py,line=3::test_it/worker=a/compression=gzip and 1 more: assert 1 == 2%0A+ 2%25",
        "::error::test_it/worker=c/compression=gzip: it took more than 3 s",
    ]
    assert ci.annotation("p/BUILD.py:14, attribute 'x'", "/repo/sub", "no") == [
        "::error file=sub/p/BUILD.py,line=14::no"
    ]
    assert Ci({GITLAB: "true"}).annotations(failures(results), "/") == []
    assert Ci({}).annotations(failures(results), "/") == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_test_cannot_give_commands(cell: Callable[..., Result], hostile: str) -> None:
    assert commands(hostile)
    for kind in (GITHUB, GITLAB):
        ci = Ci({kind: "true"})
        assert commands(ci.shown(hostile)) == []
        assert ci.shown(hostile).replace("\u200b", "") == hostile
        reason = f"t/a,b=c::x.py:3: {hostile}\n::error::x"
        for line in ci.annotations(failures([cell("failed", failure="test", reason=reason)]), "/"):
            assert [found for found in commands(line) if not found.startswith("section_")] == [line.strip()]
            assert "\n" not in line
            assert "\r" not in line
    assert Ci({}).shown(hostile) == hostile


def test_long_output_is_a_group() -> None:
    text = "\n".join(["line"] * 30 + ["::error::x"])
    github, gitlab = Ci({GITHUB: "true"}), Ci({GITLAB: "true"})

    assert commands(github.shown(github.grouped("a\ntest", text))) == ["::group::a test", "::endgroup::"]
    start, end = commands(gitlab.shown(gitlab.grouped("a test", text)))
    assert re.fullmatch(r"section_start:\d+:bk_\d+_1\[collapsed=true\]", start)
    assert end == start.replace("start", "end", 1).removesuffix("[collapsed=true]")
    assert github.grouped("a", "short") == "short"
    assert Ci({}).grouped("a", text) == text
