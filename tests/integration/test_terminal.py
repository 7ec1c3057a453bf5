"""Six red cells by one wrong assertion, on a terminal of 80 columns and 30 rows."""

from __future__ import annotations

import os

from spaces import Space, matrix
from terminals import Terminal, rows

TEST = """
def test_hello(sandbox, tmp_path):
    out = tmp_path / "hello.txt"
    out.write_text("hello\\n")
    assert out.read_text() == "helo\\n"
"""
ROWS, COLUMNS = 30, 80


def shown(space: Space, environment: dict[str, str], *options: str) -> str:
    """The bytes that a terminal gets from `bk test`, which fails."""
    plain = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE")
    }
    command = space.command("test", "targets:small", *options)
    with Terminal(command, space.root, {**plain, "TERM": "xterm", **environment}, ROWS, COLUMNS) as terminal:
        assert terminal.end() == 3, terminal.shown
        return terminal.shown


def test_six_red_cells_on_one_screen(tools: Space) -> None:
    matrix(tools, TEST, "oci", "containerd", "rootless", more='axes = {"kind": {"gzip": 1, "zstd": 2}},')
    in_colours = shown(tools, {})
    plain = shown(tools, {"NO_COLOR": "1"}, "--failed")

    assert "\x1b[1;31mFAILED: 6 cells" in in_colours
    assert "\x1b[31mE" in in_colours
    assert "\x1b[1;31m" not in plain
    for text in (in_colours, plain):
        lines = rows(text, COLUMNS)
        assert len(lines) <= 40, "\n".join(lines)
        seen = "\n".join(lines[-ROWS + 1 :])  # the prompt of the shell takes a row
        assert '>       assert out.read_text() == "helo\\n"' in seen, seen
        assert "E         - helo\nE         + hello" in seen, seen
        assert "t/test_small.py:5: AssertionError" in seen, seen
        assert "FAILED: 6 cells: t/test_small.py:5: assert 'hello\\n' == 'helo\\n'" in seen.replace("\n", ""), seen
        assert seen[seen.index("//targets:small") :].count("FAILED") == 7, seen
        assert "bk shell --at_failure" in seen, seen
