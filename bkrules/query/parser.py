"""The parser of Bazel's query language: a text becomes an expression.

    expression = operand (("+" | "union" | "-" | "except" | "^" | "intersect") operand)*
    operand    = word | "$" name | "(" expression ")" | "set(" word* ")" | function "(" argument, ... ")"
               | "let" name "=" expression "in" expression

All operators bind equally, from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bkrules.errors import did_you_mean
from bkrules.query.functions import FILTERS, FUNCTIONS, KINDS, Signature, regex
from bkrules.query.lexer import QueryError, Token, tokens
from bkrules.query.nodes import Call, Chain, Expression, Let, Set, Variable, Word

OPERATORS = {"+": "+", "union": "+", "-": "-", "except": "-", "^": "^", "intersect": "^"}
DEEPEST = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]{1,9}")


def parse(text: str, functions: Mapping[str, Signature] = FUNCTIONS) -> Expression:
    """Return the expression that the text means. Raises QueryError."""
    return _Parser(text, functions).parse()


class _Parser:
    def __init__(self, text: str, functions: Mapping[str, Signature]) -> None:
        self.text = text
        self.functions = functions
        self.tokens = list(tokens(text))
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
    def token(self) -> Token:
        return self.tokens[self.place]

    def error(self, reason: str, message: str, hint: str = "", token: Token | None = None) -> QueryError:
        return QueryError(reason, message, self.text, (token or self.token).column, hint)

    def take(self) -> Token:
        token = self.token
        self.place += 1
        return token

    def expect(self, text: str, after: str) -> Token:
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

    def word(self, token: Token) -> Word | Variable:
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

    def call(self, name: Token) -> Call:
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
            raise self.error("bad-argument", f"{usage}: {KINDS[kind]} must stand here, but there is {token}")
        self.take()
        if self.is_symbol("("):
            what = f"but there is the expression {token.text}(...)"
            raise self.error("bad-argument", f"{usage}: {KINDS[kind]} must stand here, {what}", token=token)
        if kind == "depth":
            return int(token.text)
        if kind == "regex":
            self.check_regex(token)
        return token.text

    def check_regex(self, token: Token) -> None:
        try:
            regex(token.text)
        except (re.error, OverflowError, RecursionError) as error:
            raise self.error("bad-regex", f"{token} is not a regular expression: {error}", token=token) from error
