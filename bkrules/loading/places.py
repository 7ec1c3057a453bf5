"""Places in build files: those of targets, and those of errors with the calls that lead there."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from types import FrameType

from bkrules.model.rule import Location

Place = tuple[str, int]


class Places:
    """The build files evaluated so far, with the lines of the attributes in each."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[int, dict[str, int]]] = {}

    def add(self, file: str, tree: ast.Module) -> None:
        """Add a file before it is evaluated."""
        self._lines[file] = _attribute_lines(tree)

    def location(self, place: Place) -> Location:
        """Return a place with the lines of its call's attributes."""
        file, line = place
        return Location(file, line, self._lines[file].get(line, {}))

    def _chain(self, places: Iterable[Place]) -> list[Place]:
        """Return the places in build files, from the outermost to the innermost, one for consecutive places in the same file."""
        chain: list[Place] = []
        for file, line in places:
            if file in self._lines:
                if chain and chain[-1][0] == file:
                    chain.pop()
                chain.append((file, line))
        return chain

    def here(self, frame: FrameType | None) -> list[Place]:
        """Return the places in build files that lead to a frame, from the outermost to the innermost."""
        places: list[Place] = []
        while frame is not None:
            code = frame.f_code
            if code.co_filename in self._lines:
                places.append((code.co_filename, frame.f_lineno))
                if code.co_name == "<module>":
                    break
            frame = frame.f_back
        return self._chain(reversed(places))

    def of_error(self, error: Exception) -> list[Place]:
        """Return the places in build files that lead to an error, from the outermost to the innermost."""
        places = []
        trace = error.__traceback__
        while trace is not None:
            places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        return self._chain(places)


def text_of(places: Iterable[Place]) -> str:
    """Return places as an error shows them, one a line."""
    return "\n".join(f"{file}:{line}" for file, line in places)


def _attribute_lines(tree: ast.Module) -> dict[int, dict[str, int]]:
    """Return the line of each keyword argument, by the line of its call."""
    lines: dict[int, dict[str, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            lines.setdefault(node.lineno, {}).update(
                (item.arg, item.value.lineno) for item in node.keywords if item.arg
            )
    return lines
