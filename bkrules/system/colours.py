"""Colours of the text on a terminal: whether they are wanted, and which words have them.

The null build imports this module, so it imports as little as possible.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself would cost a null build a quarter of its time
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

CHOICES = ("auto", "yes", "no")
RED, GREEN, YELLOW, BOLD_RED, DIM = "31", "32", "33", "1;31", "2"
_OF_LINES = (
    (r"^_{3,} .* _{3,}$", BOLD_RED),
    (r"^(?:FAILED|TIMED OUT)\b.*", BOLD_RED),
    (r"^(?:FLAKY|TAINTED)(?=: )", YELLOW),
    (r"^error(?=: )", BOLD_RED),
    (r"^E(?:  .*)?$", RED),
    (r"^\S+:\d+: [A-Z]\w+$", RED),
    (r"^  (?:see|try:) .*", DIM),
    (r"^\[\d+/\d+\] (?:FAILED|TIMED OUT|failed|timed out)\b", BOLD_RED),
    (r"^\[\d+/\d+\] PASSED\b", GREEN),
    (r"^\[\d+/\d+\] (?:FLAKY|SKIPPED)\b", YELLOW),
)
"""Patterns of parts of lines, the first of which counts, with their colours."""
_OF_GRID = ((r"FAILED|TIMED OUT", BOLD_RED), (r"passed", GREEN), (r"flaky|skipped|not run", YELLOW))
"""Words of cells in a grid, after two spaces."""


def wanted(stream: IO[str], choice: str = "auto", environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether text for a stream has colours, by the option `--color`; `auto` follows the variables that most programs know.

    These are, in the order of precedence: NO_COLOR, CLICOLOR_FORCE and FORCE_COLOR, CLICOLOR=0, TERM=dumb.
    """
    if choice != "auto":
        return choice == "yes"
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    return environment.get("TERM", "dumb") != "dumb" and environment.get("CLICOLOR") != "0" and stream.isatty()


def painted(text: str) -> str:
    """Return a text with the colours of its words. The width of no line changes."""
    import re

    lines = [(re.compile(pattern), colour) for pattern, colour in _OF_LINES]
    cells = [(re.compile(rf"(?<=  )(?:{pattern})(?: [^ ]+)*"), colour) for pattern, colour in _OF_GRID]

    def of_line(line: str) -> str:
        for pattern, colour in lines:
            if match := pattern.search(line):
                return f"{line[: match.start()]}{_coloured(match[0], colour)}{line[match.end() :]}"
        for pattern, colour in cells:
            line = pattern.sub(_coloured(r"\g<0>", colour), line)
        return line

    return "\n".join(map(of_line, text.split("\n")))


def passes_painted(text: str) -> str:
    """Return the text of a build in which all is cached with its colours, without importing anything."""
    return text.replace("  passed (cached)", f"  {_coloured('passed (cached)', GREEN)}")


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"
