"""The answer to the action CollectTests: the tests of a module as pytest lists them, or the errors of its collection."""

from __future__ import annotations

from dataclasses import dataclass

from bkrules.model.wire import Wire


@dataclass(frozen=True)
class CollectedTest(Wire):
    """A test by its name, the function without parameters, its line, and its marks.

    A mark has a name, and its arguments and keywords as literals of Python, each None where it is not a literal.
    """

    item: str
    callable: str
    line: int
    marks: tuple[tuple[str, str | None, str | None], ...]


@dataclass(frozen=True)
class CollectionFault(Wire):
    """An error of the collection: `file:line`, which may be empty, and the line of text that names it."""

    where: str
    what: str


@dataclass(frozen=True)
class Collected(Wire):
    """The tests of a module. `skipped` is the reason of a module that skips itself; `missing` names modules and files.

    `code` is the exit code of pytest.
    """

    tests: tuple[CollectedTest, ...]
    skipped: str
    missing: tuple[str, ...]
    errors: tuple[CollectionFault, ...]
    code: int
