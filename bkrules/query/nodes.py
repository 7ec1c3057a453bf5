"""The expressions of queries. `str` of an expression is a text that means the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bkrules.query.lexer import KEYWORDS, WORD


@dataclass(frozen=True, slots=True)
class Word:
    """A target pattern."""

    text: str
    column: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return _quoted(self.text)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that an enclosing `let` defines."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, slots=True)
class Set:
    """A set of patterns and variables."""

    items: tuple[Word | Variable, ...]

    def __str__(self) -> str:
        return f"set({' '.join(map(str, self.items))})"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function with its arguments: expressions, strings and numbers, by its signature."""

    name: str
    arguments: tuple[Expression | str | int, ...]
    column: int = field(default=0, compare=False)

    def __str__(self) -> str:
        arguments = (_quoted(item) if isinstance(item, str) else str(item) for item in self.arguments)
        return f"{self.name}({', '.join(arguments)})"


@dataclass(frozen=True, slots=True)
class Let:
    """`body`, where `$name` stands for `value`."""

    name: str
    value: Expression
    body: Expression

    def __str__(self) -> str:
        return f"let {self.name} = {self.value} in {self.body}"


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands joined by `+`, `-` and `^`, from left to right."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]

    def __str__(self) -> str:
        return " ".join([_operand(self.first), *(f"{sign} {_operand(item)}" for sign, item in self.rest)])


Expression = Word | Variable | Set | Call | Let | Chain


def _operand(item: Expression) -> str:
    return f"({item})" if isinstance(item, Let | Chain) else str(item)


def _quoted(text: str) -> str:
    if re.fullmatch(WORD, text) and text not in KEYWORDS and not text.startswith("$"):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def inside(expression: Expression) -> Iterator[Expression]:
    """Yield the expression, and all expressions inside it."""
    yield expression
    below: Sequence[object] = ()
    if isinstance(expression, Set):
        below = expression.items
    elif isinstance(expression, Call):
        below = expression.arguments
    elif isinstance(expression, Let):
        below = (expression.value, expression.body)
    elif isinstance(expression, Chain):
        below = (expression.first, *(item for _, item in expression.rest))
    for item in below:
        if isinstance(item, Word | Variable | Set | Call | Let | Chain):
            yield from inside(item)
