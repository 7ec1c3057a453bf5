"""The lexer of queries: a text becomes tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bkrules.errors import UsageError

KEYWORDS = ("except", "in", "intersect", "let", "set", "union")
WORD = r"[A-Za-z0-9/@._:$~\[\]][A-Za-z0-9*/@._:$~\[\]-]*"
"""The words that need no quotes."""
_TOKEN = re.compile(rf"""\s+|(?P<quoted>"[^"]*"|'[^']*')|(?P<word>{WORD})|(?P<symbol>[-+^=(),])""")


class QueryError(UsageError):
    """A malformed query. `where` has the column, and the query with a caret under it."""

    def __init__(self, reason: str, message: str, text: str, column: int, hint: str = "") -> None:
        start = max(0, column - 60)
        shown = "".join(char if char.isprintable() else " " for char in text[start : column + 40])
        caret = " " * (column - start) + "^"
        super().__init__(reason, message, where=f"column {column + 1}\n  {shown}\n  {caret}", hint=hint)
        self.column = column


@dataclass(frozen=True, slots=True)
class Token:
    """A token at a column of the query, counted from 0; `text` is without quotes."""

    kind: str  # word, quoted, symbol, keyword or end
    text: str
    column: int

    def __str__(self) -> str:
        return repr(self.text) if self.kind != "end" else "the end"


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a query, and the end as the last. Raises QueryError."""
    column = 0
    while column < len(text):
        match = _TOKEN.match(text, column)
        if match is None and text[column] in "\"'":
            raise QueryError("syntax", f"the quote {text[column]} is not closed", text, column)
        if match is None:
            hint = "names with characters other than A-Z a-z 0-9 * / @ . - _ : $ ~ [ ] must be in quotes"
            raise QueryError("syntax", f"{text[column]!r} cannot stand here", text, column, hint)
        kind, word = match.lastgroup, match[0]
        if kind == "quoted":
            yield Token(kind, word[1:-1], column)
        elif kind is not None:
            yield Token("keyword" if word in KEYWORDS else kind, word, column)
        column = match.end()
    yield Token("end", "", column)
