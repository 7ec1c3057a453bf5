"""Bazel's query language: a text becomes an expression.

    expression = operand (("+" | "union" | "-" | "except" | "^" | "intersect") operand)*
    operand    = word | "$" name | "(" expression ")" | "set(" word* ")" | function "(" argument, ... ")"
               | "let" name "=" expression "in" expression

All operators bind equally, from left to right. `str` of an expression is a text that means the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bkrules.errors import UsageError, did_you_mean

KEYWORDS = ("except", "in", "intersect", "let", "set", "union")
OPERATORS = {"+": "+", "union": "+", "-": "-", "except": "-", "^": "^", "intersect": "^"}
DEEPEST = 100

_WORD = r"[A-Za-z0-9/@._:$~\[\]][A-Za-z0-9*/@._:$~\[\]-]*"
_TOKEN = re.compile(rf"""\s+|(?P<quoted>"[^"]*"|'[^']*')|(?P<word>{_WORD})|(?P<symbol>[-+^=(),])""")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]{1,9}")


class QueryError(UsageError):
    """A malformed query. `where` has the column, and the query with a caret under it."""

    def __init__(self, reason: str, message: str, text: str, column: int, hint: str = "") -> None:
        start = max(0, column - 60)
        shown = "".join(char if char.isprintable() else " " for char in text[start : column + 40])
        caret = " " * (column - start) + "^"
        super().__init__(reason, message, where=f"column {column + 1}\n  {shown}\n  {caret}", hint=hint)
        self.column = column


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a function: each is `targets`, `regex`, `word` or `depth`. The last `optional` may be left out."""

    arguments: tuple[str, ...]
    optional: int = 0

    def __str__(self) -> str:
        required = len(self.arguments) - self.optional
        rest = "".join(f"[, {kind}]" for kind in self.arguments[required:])
        return f"({', '.join(self.arguments[:required])}{rest})"


FUNCTIONS: Mapping[str, Signature] = {
    "allpaths": Signature(("targets", "targets")),
    "attr": Signature(("word", "regex", "targets")),
    "deps": Signature(("targets", "depth"), optional=1),
    "filter": Signature(("regex", "targets")),
    "kind": Signature(("regex", "targets")),
    "labels": Signature(("word", "targets")),
    "rdeps": Signature(("targets", "targets", "depth"), optional=1),
    "somepath": Signature(("targets", "targets")),
    "tag": Signature(("regex", "targets")),
}
FILTERS: Mapping[str, Signature] = {name: Signature(("regex", "targets")) for name in ("inputs", "mnemonic", "outputs")}

_KINDS = {
    "regex": "a regular expression in quotes",
    "word": "a word, such as the name of an attribute",
    "depth": "a whole number",
}


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
    if re.fullmatch(_WORD, text) and text not in KEYWORDS and not text.startswith("$"):
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


def parse(text: str) -> Expression:
    """Return the expression that the text means. Raises QueryError."""
    return _Parser(text, FUNCTIONS).parse()


Filters = tuple[tuple[str, str], ...]


def parse_actions(texts: Sequence[str]) -> tuple[Filters, Expression]:
    """Return the filters of actions around an expression, and the expression. Raises QueryError.

    Several texts are added one after the other, or subtracted when they begin with a dash, like patterns.
    """
    if len(texts) == 1 and not texts[0].startswith("-"):
        return _unwrap(texts[0], _Parser(texts[0], {**FUNCTIONS, **FILTERS}).parse())
    steps = []
    for text in texts:
        sign = "-" if text.startswith("-") else "+"
        filters, expression = _unwrap(text, _Parser(text.removeprefix("-"), {**FUNCTIONS, **FILTERS}).parse())
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


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, quoted, symbol, keyword or end
    text: str
    column: int

    def __str__(self) -> str:
        return repr(self.text) if self.kind != "end" else "the end"


def _tokens(text: str) -> Iterator[_Token]:
    column = 0
    while column < len(text):
        found = _TOKEN.match(text, column)
        if found is None and text[column] in "\"'":
            raise QueryError("syntax", f"the quote {text[column]} is not closed", text, column)
        if found is None:
            hint = "names with characters other than A-Z a-z 0-9 * / @ . - _ : $ ~ [ ] must be in quotes"
            raise QueryError("syntax", f"{text[column]!r} cannot stand here", text, column, hint)
        kind, word = found.lastgroup, found[0]
        if kind == "quoted":
            yield _Token(kind, word[1:-1], column)
        elif kind is not None:
            yield _Token("keyword" if word in KEYWORDS else kind, word, column)
        column = found.end()
    yield _Token("end", "", column)


class _Parser:
    def __init__(self, text: str, functions: Mapping[str, Signature]) -> None:
        self.text = text
        self.functions = functions
        self.tokens = list(_tokens(text))
        self.place = 0
        self.depth = 0
        self.scope: list[str] = []

    def parse(self) -> Expression:
        expression = self.expression()
        if self.token.kind != "end":
            hint = "operators: + - ^, or set(a b) for several patterns"
            raise self.error("syntax", f"an operator or the end must stand here, but there is {self.token}", hint)
        return expression

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def error(self, reason: str, message: str, hint: str = "", token: _Token | None = None) -> QueryError:
        return QueryError(reason, message, self.text, (token or self.token).column, hint)

    def take(self) -> _Token:
        token = self.token
        self.place += 1
        return token

    def expect(self, text: str, after: str) -> _Token:
        if self.token.kind not in ("symbol", "keyword") or self.token.text != text:
            raise self.error("syntax", f"{text!r} must stand here, after {after}, but there is {self.token}")
        return self.take()

    def is_symbol(self, text: str) -> bool:
        return self.token.kind == "symbol" and self.token.text == text

    def expression(self) -> Expression:
        if self.depth == DEEPEST:
            raise self.error("syntax", f"more than {DEEPEST} expressions are nested")
        self.depth += 1
        first = self.operand()
        rest = []
        while self.token.kind in ("symbol", "keyword") and self.token.text in OPERATORS:
            sign = OPERATORS[self.take().text]
            rest.append((sign, self.operand()))
        self.depth -= 1
        return Chain(first, tuple(rest)) if rest else first

    def operand(self) -> Expression:
        token = self.take()
        if token.kind == "quoted":
            return self.word(token)
        if token.kind == "word":
            return self.call(token) if self.is_symbol("(") else self.word(token)
        if token.kind == "symbol" and token.text == "(":
            inner = self.expression()
            self.expect(")", "an expression in parentheses")
            return inner
        if token.kind == "keyword" and token.text == "set":
            return self.set_of()
        if token.kind == "keyword" and token.text == "let":
            return self.let()
        hint = "to leave targets out, write  A - B" if token.text == "-" else ""
        if token.kind == "keyword":
            hint = f"a target of that name must be in quotes: {token.text!r}"
        raise self.error("syntax", f"an expression must stand here, but there is {token}", hint, token)

    def word(self, token: _Token) -> Word | Variable:
        if token.kind == "quoted" or not token.text.startswith("$"):
            if token.text.startswith("-"):
                raise self.error("syntax", f"{token} is not a pattern of a query", "write  A - B", token)
            return Word(token.text, token.column)
        name = token.text[1:]
        if name not in self.scope:
            hint = did_you_mean(name, set(self.scope), "variables")
            raise self.error("unknown-variable", f"no 'let' around it names {token}", hint, token)
        return Variable(name)

    def set_of(self) -> Set:
        self.expect("(", "'set'")
        items = []
        while self.token.kind in ("word", "quoted"):
            items.append(self.word(self.take()))
        self.expect(")", "the patterns of a set")
        return Set(tuple(items))

    def let(self) -> Let:
        token = self.take()
        if token.kind != "word" or not _NAME.fullmatch(token.text):
            raise self.error("syntax", f"the name of a variable must stand here, but there is {token}", token=token)
        self.expect("=", "the name of a variable")
        value = self.expression()
        self.expect("in", "the value of a variable")
        self.scope.append(token.text)
        body = self.expression()
        self.scope.pop()
        return Let(token.text, value, body)

    def call(self, name: _Token) -> Call:
        signature = self.functions.get(name.text)
        if signature is None:
            hint = did_you_mean(name.text, self.functions, "functions")
            hint = "it selects actions: use it with bk aquery" if name.text in FILTERS else hint
            raise self.error("unknown-function", f"unknown function {name.text!r}", hint, name)
        self.take()
        usage = f"{name.text}{signature}"
        arguments: list[Expression | str | int] = []
        while not self.is_symbol(")") or arguments:
            if len(arguments) == len(signature.arguments):
                raise self.error("bad-argument", f"{usage} has no argument more than {len(arguments)}")
            arguments.append(self.argument(usage, signature.arguments[len(arguments)]))
            if self.is_symbol(")"):
                break
            self.expect(",", f"an argument of {usage}")
        required = len(signature.arguments) - signature.optional
        if len(arguments) < required:
            missing = signature.arguments[len(arguments)]
            raise self.error("bad-argument", f"{usage} lacks an argument: {missing}")
        self.expect(")", f"the arguments of {usage}")
        return Call(name.text, tuple(arguments), name.column)

    def argument(self, usage: str, kind: str) -> Expression | str | int:
        if kind == "targets":
            return self.expression()
        token = self.token
        if token.kind not in ("word", "quoted") or (kind == "depth" and not _NUMBER.fullmatch(token.text)):
            raise self.error("bad-argument", f"{usage}: {_KINDS[kind]} must stand here, but there is {token}")
        self.take()
        if self.is_symbol("("):
            what = f"but there is the expression {token.text}(...)"
            raise self.error("bad-argument", f"{usage}: {_KINDS[kind]} must stand here, {what}", token=token)
        if kind == "depth":
            return int(token.text)
        if kind == "regex":
            self.check_regex(token)
        return token.text

    def check_regex(self, token: _Token) -> None:
        try:
            regex(token.text)
        except (re.error, OverflowError, RecursionError) as error:
            raise self.error("bad-regex", f"{token} is not a regular expression: {error}", token=token) from error


def regex(text: str) -> re.Pattern[str]:
    """Return the compiled pattern. Raises re.error, OverflowError or RecursionError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(text)
