"""The filters of actions around an expression of `bk aquery`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bkrules.query.functions import FILTERS, FUNCTIONS, regex
from bkrules.query.lexer import QueryError
from bkrules.query.nodes import Call, Chain, Expression, Set, inside
from bkrules.query.parser import parse

Filters = tuple[tuple[str, str], ...]


def parse_actions(texts: Sequence[str]) -> tuple[Filters, Expression]:
    """Return the filters of actions around an expression, and the expression. Raises QueryError.

    Several texts are added one after the other, or subtracted when they begin with a dash, like patterns.
    """
    if len(texts) == 1 and not texts[0].startswith("-"):
        return _unwrap(texts[0], parse(texts[0], {**FUNCTIONS, **FILTERS}))
    steps = []
    for text in texts:
        sign = "-" if text.startswith("-") else "+"
        filters, expression = _unwrap(text, parse(text.removeprefix("-"), {**FUNCTIONS, **FILTERS}))
        if filters:
            hint = "several expressions can be joined inside of it, as in  A + B - C"
            raise QueryError("misplaced-filter", f"{filters[0][0]!r} must be the only argument", text, 0, hint)
        steps.append((sign, expression))
    return (), Chain(Set(()), tuple(steps))


def _unwrap(text: str, expression: Expression) -> tuple[Filters, Expression]:
    filters: list[tuple[str, str]] = []
    while isinstance(expression, Call) and expression.name in FILTERS:
        pattern, inner = expression.arguments
        assert isinstance(pattern, str)
        assert not isinstance(inner, str | int)
        filters.append((expression.name, pattern))
        expression = inner
    for item in inside(expression):
        if isinstance(item, Call) and item.name in FILTERS:
            raise QueryError(
                "misplaced-filter",
                f"{item.name!r} selects actions, so it cannot be used inside an expression of targets",
                text,
                item.column,
                f"write it around the whole expression:  {item.name}(regex, ...)",
            )
    return tuple(filters), expression


def chosen(action: Mapping[str, Any], filters: Filters) -> bool:
    """Return whether an action, as aquery describes it, matches all the filters of mnemonic, inputs and outputs.

    A regular expression must match the whole name, as in Bazel.
    """
    return all(any(map(regex(pattern).fullmatch, _names(action[name]))) for name, pattern in filters)


def _names(value: str | Iterable[str]) -> Iterable[str]:
    return [value] if isinstance(value, str) else value
