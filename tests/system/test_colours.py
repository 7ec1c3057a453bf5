"""Colours: whether a stream has them, and which words."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import pytest

from bkrules.system.colours import painted, passes_painted, wanted

TEXT = """________________ test_a/worker=oci and 5 more ________________
>       assert 1 == 2
E       assert 1 == 2
E

t/test_a.py:3: AssertionError

//t:m
                 oci           rootless
test_a/kind=tar  passed 1.20s  TIMED OUT
test_failed      passed (cached)  skipped

FAILED: test_a/worker=oci: t/test_a.py:3: assert 1 == 2
  try: bk shell 'x'
error: it broke
[1/2] FAILED test_a 1.00s"""


class Tty(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("choice", "environment", "on_terminal", "in_pipe"),
    [
        ("auto", {"TERM": "xterm"}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {}, False, False),
        ("auto", {"TERM": "xterm", "CLICOLOR": "0"}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, True, True),
        ("auto", {"CLICOLOR_FORCE": "0"}, False, False),
        ("yes", {"NO_COLOR": "1"}, True, True),
        ("no", {"TERM": "xterm", "FORCE_COLOR": "1"}, False, False),
    ],
)
def test_whether(choice: str, environment: Mapping[str, str], on_terminal: bool, in_pipe: bool) -> None:
    assert wanted(Tty(), choice, environment) is on_terminal
    assert wanted(io.StringIO(), choice, environment) is in_pipe


def test_words_have_colours_and_nothing_else_changes() -> None:
    text = painted(TEXT)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == TEXT
    for words in (
        "\x1b[31mE       assert 1 == 2\x1b[0m",
        "  \x1b[32mpassed 1.20s\x1b[0m  \x1b[1;31mTIMED OUT\x1b[0m\n",
        "test_failed      \x1b[32mpassed (cached)\x1b[0m  \x1b[33mskipped\x1b[0m\n",
        "\x1b[1;31mFAILED: test_a/worker=oci: t/test_a.py:3: assert 1 == 2\x1b[0m",
        "\x1b[1;31merror\x1b[0m: it broke",
        "\x1b[1;31m[1/2] FAILED\x1b[0m test_a",
    ):
        assert words in text


def test_a_cached_build_has_the_same_colours() -> None:
    text = "       oci\ntest_a  passed (cached)"
    assert passes_painted(text) == painted(text)
