"""A reader of the YAML that the recipes for CIs are written in: it refuses all that it does not know."""

from __future__ import annotations

import re
from typing import Any

_KEY = re.compile(r"([\w-]+):(?: (.*))?")


def read(text: str) -> Any:
    """Return the document. Raises ValueError."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    value, rest = _block(lines, 0)
    if rest:
        raise ValueError(f"not understood: {rest[0]!r}")
    return value


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _block(lines: list[str], depth: int) -> tuple[Any, list[str]]:
    """Return the mapping or the list whose lines begin at that depth, and the lines after it."""
    made: Any = [] if lines[0].lstrip().startswith("- ") else {}
    while lines and _depth(lines[0]) == depth:
        line = lines[0].strip()
        if isinstance(made, list):
            if not line.startswith("- "):
                raise ValueError(f"no item: {line!r}")
            inner = line[2:]
            if _KEY.fullmatch(inner):
                value, lines = _block([" " * (depth + 2) + inner, *lines[1:]], depth + 2)
            else:
                value, lines = _scalar(inner), lines[1:]
            made.append(value)
            continue
        match = _KEY.fullmatch(line)
        if match is None or match[1] in made:
            raise ValueError(f"no key, or one that is there already: {line!r}")
        name, value, lines = match[1], match[2], lines[1:]
        if value is None:
            if not lines or _depth(lines[0]) <= depth:
                raise ValueError(f"no value: {line!r}")
            made[name], lines = _block(lines, _depth(lines[0]))
        elif value == "|":
            inside = depth + 2
            text = [one[inside:] for one in lines if _depth(one) >= inside]
            text = text[: next((n for n, one in enumerate(lines) if _depth(one) < inside), len(lines))]
            made[name], lines = "".join(f"{one}\n" for one in text), lines[len(text) :]
        else:
            made[name] = _scalar(value)
    return made, lines


def _scalar(text: str) -> Any:
    """Return a plain scalar or a list of them. Raises ValueError for what another reader may understand differently."""
    text = re.sub(r" #.*", "", text)
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(one.strip()) for one in text[1:-1].split(",")]
    if text[:1] in "\"'[]{}&*!|>%@`" or re.search(r": |:$", text):
        raise ValueError(f"no plain scalar: {text!r}")
    known = {"true": True, "false": False, "~": None}
    return known[text] if text in known else int(text) if text.isdecimal() else text
