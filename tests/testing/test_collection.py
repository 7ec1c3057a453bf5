"""What is read of pytest's texts."""

from __future__ import annotations

import pytest

from bkrules.model.parameters import PytestSettings
from bkrules.testing.collection import arguments, difference
from bkrules.testing.pytest_text import last_line, place_in

SHORT = """ImportError while importing test module '/src/t/test_a.py'.
Hint: make sure your test modules/packages have valid Python names.
Traceback:
/usr/lib/python3.11/importlib/__init__.py:126: in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
t/test_a.py:3: in <module>
    import helper
t/helper.py:7: in <module>
    raise ValueError("x: 1")
E   ValueError: x: 1
"""
SYNTAX = """Traceback (most recent call last):
  File "/usr/lib/python3.11/ast.py", line 50, in parse
    return compile(source, filename, mode, flags,
E     File "/src/t/test_a.py", line 9
E       def test_(:
E                ^
E   SyntaxError: invalid syntax
"""
HANGS = """Timeout (0:01:00)!
Thread 0x00007f (most recent call first):
  File "/src/t/test_a.py", line 5 in wait
  File "/src/t/test_a.py", line 8 in <module>
  File "/opt/lib/_pytest/python.py", line 1 in collect
"""


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        (SHORT, "t/helper.py:7", "ValueError: x: 1"),
        (SYNTAX, "t/test_a.py:9", "SyntaxError: invalid syntax"),
        (HANGS, "t/test_a.py:5", 'File "/opt/lib/_pytest/python.py", line 1 in collect'),
        ("In t/test_a.py::test_a: something", "", "In t/test_a.py::test_a: something"),
        ("", "", "pytest gives no reason"),
    ],
)
def test_place_and_reason_of_an_error(text: str, place: str, line: str) -> None:
    assert (place_in(text), last_line(text)) == (place, line)


def test_both_lists_are_in_the_difference() -> None:
    assert difference(["a", "b"], ["b", "c"]) == "only in the cell: a; only declared: c"
    assert difference(["a"], ["a"]) == ""


def test_settings_are_words_of_the_command_line() -> None:
    words = arguments(PytestSettings(("--doctest-modules",), {"usefixtures": "a b"}, ("s", "it's")), "t.py")
    assert words[-2:] == ["--doctest-modules", "t.py"]
    assert "no:doctest" not in words
    assert "usefixtures=a b" in words
    assert "pythonpath=/src/s '/src/it'\"'\"'s'" in words
    assert "no:doctest" in arguments(PytestSettings())
