"""JSON with an indentation of one space, as `json.dumps(value, indent=1)` writes it.

Python's encoder in C knows no indentation, and the other one takes most of the time of a report of many cells. So values without
other containers go through the encoder in C, with separators that hold the indentation.
"""

from __future__ import annotations

import json
from typing import Any


def indented(value: Any, depth: int = 0) -> str:
    """Return a value as JSON; `depth` is the number of containers around it. Dictionaries have texts as keys."""
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value)
    line = "\n" + " " * (depth + 1)
    separator = f",{line}"
    if not any(isinstance(one, dict | list | tuple) for one in (value.values() if isinstance(value, dict) else value)):
        inner = json.dumps(value, separators=(separator, ": "))[1:-1]
    elif isinstance(value, dict):
        inner = separator.join(f"{json.dumps(name)}: {indented(one, depth + 1)}" for name, one in value.items())
    else:
        inner = separator.join(indented(one, depth + 1) for one in value)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{line}{inner}\n{' ' * depth}{closing}"
