from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.errors import UsageError
from bkrules.query.action_filters import chosen, parse_actions
from bkrules.query.evaluate import _Evaluator
from bkrules.query.functions import FUNCTIONS
from bkrules.query.lexer import KEYWORDS, QueryError
from bkrules.query.nodes import Call, Chain, Expression, Let, Set, Variable, Word, inside
from bkrules.query.parser import DEEPEST, parse

A, B, C = Word("//a"), Word("//b:b"), Word(":c")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("//a", A),
        (" '//a' ", A),
        ("//...", Word("//...")),
        ("//a-b:c.d_e~f*", Word("//a-b:c.d_e~f*")),
        ('"//a:b+c=d"', Word("//a:b+c=d")),
        ('"let"', Word("let")),
        ("'$v'", Word("$v")),
        ("deps", Word("deps")),
        ("//a + //b:b", Chain(A, (("+", B),))),
        ("//a+//b:b", Chain(A, (("+", B),))),
        ("//a union //b:b", Chain(A, (("+", B),))),
        ("//a except //b:b", Chain(A, (("-", B),))),
        ("//a -//b:b", Chain(A, (("-", B),))),
        ("//a intersect //b:b", Chain(A, (("^", B),))),
        ("//a^//b:b", Chain(A, (("^", B),))),
        ("//a - //b:b + :c ^ //a", Chain(A, (("-", B), ("+", C), ("^", A)))),
        ("//a - (//b:b + :c)", Chain(A, (("-", Chain(B, (("+", C),))),))),
        ("((//a))", A),
        ("set()", Set(())),
        ("set(//a //b:b ':c')", Set((A, B, C))),
        ("deps(//a)", Call("deps", (A,))),
        ("deps( //a , 3 )", Call("deps", (A, 3))),
        ("rdeps(//..., //a, 1)", Call("rdeps", (Word("//..."), A, 1))),
        ("kind('image rule', //a + :c)", Call("kind", ("image rule", Chain(A, (("+", C),))))),
        ("attr(tags, .*x, //a)", Call("attr", ("tags", ".*x", A))),
        ("filter('$', //a)", Call("filter", ("$", A))),
        ("let v = //a in $v - //b:b", Let("v", A, Chain(Variable("v"), (("-", B),)))),
        ("//a + let v = //b:b in $v + :c", Chain(A, (("+", Let("v", B, Chain(Variable("v"), (("+", C),)))),))),
        ("let v = //a in let v = deps($v) in set($v)", None),
    ],
)
def test_what_a_query_means(text: str, meaning: Expression | None) -> None:
    expression = parse(text)
    assert meaning is None or expression == meaning
    assert parse(str(expression)) == expression


BAD = {
    "nothing": ("", "syntax", 0, "the end"),
    "a dash in front": ("-//x", "syntax", 0, "A - B"),
    "a dash in quotes": ("//a + '-//x'", "syntax", 6, "A - B"),
    "an operator too many": ("//a + + //b", "syntax", 6, "'+'"),
    "an operator too few": ("//a //b", "syntax", 4, "operators: + - ^"),
    "an open parenthesis": ("(//a", "syntax", 4, "')'"),
    "a closing parenthesis": ("//a)", "syntax", 3, "')'"),
    "an open quote": ("//a + '//b", "syntax", 6, "not closed"),
    "a character of nothing": ("//a & //b", "syntax", 4, "must be in quotes"),
    "a keyword": ("//a + in", "syntax", 6, "must be in quotes: 'in'"),
    "set of an expression": ("set(deps(//a))", "syntax", 8, "')'"),
    "let without a name": ("let = //a in //b", "syntax", 4, "the name of a variable"),
    "let without a value": ("let v in //b", "syntax", 6, "'='"),
    "let without a body": ("let v = //b", "syntax", 11, "'in'"),
    "an unknown variable": ("let some = //a in $sone", "unknown-variable", 18, "did you mean 'some'?"),
    "a variable outside of its let": ("(let v = //a in $v) + $v", "unknown-variable", 22, "'$v'"),
    "an unknown function": ("//a + dep(//b)", "unknown-function", 6, "did you mean 'deps'? functions: allpaths, attr"),
    "a filter of actions": ("mnemonic('x', //a)", "unknown-function", 0, "bk aquery"),
    "no argument": ("deps()", "bad-argument", 5, "deps(targets[, depth]) lacks an argument: targets"),
    "too few arguments": ("kind('x')", "bad-argument", 8, "lacks an argument: targets"),
    "too many arguments": ("somepath(//a, //b, //c)", "bad-argument", 19, "no argument more than 2"),
    "a word for a depth": ("deps(//a, b)", "bad-argument", 10, "a whole number must stand here, but there is 'b'"),
    "an endless depth": (f"deps(//a, {'9' * 5000})", "bad-argument", 10, "a whole number"),
    "an expression for a regex": ("kind(deps(//a), //b)", "bad-argument", 5, "the expression deps(...)"),
    "a bad regex": ("kind('(', //b)", "bad-regex", 5, "not a regular expression"),
    "a huge regex": ("kind('a{99999999999}', //b)", "bad-regex", 5, "not a regular expression"),
    "a comma too many": ("deps(//a,)", "bad-argument", 9, "a whole number must stand here, but there is ')'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_query_is_refused_at_its_column(name: str) -> None:
    text, reason, column, words = BAD[name]
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert (caught.value.reason, caught.value.column) == (reason, column)
    assert words in str(caught.value)
    place, shown, caret = caught.value.where.splitlines()
    assert place == f"column {column + 1}"
    assert shown[caret.index("^") :].startswith(text[column : column + 5])


def test_a_long_query_is_shown_around_the_column() -> None:
    text = "//a + " * 100 + "? + " + "//a" * 100
    with pytest.raises(QueryError) as caught:
        parse(text)
    _, shown, caret = caught.value.where.splitlines()
    assert len(shown) < 110
    assert shown[caret.index("^")] == "?"


def test_nesting_has_an_end_and_a_chain_has_none() -> None:
    parse("(" * (DEEPEST - 1) + "//a" + ")" * (DEEPEST - 1))
    with pytest.raises(QueryError):
        parse("(" * DEEPEST + "//a" + ")" * DEEPEST)
    with pytest.raises(QueryError):
        parse("let v = //a in " * 5000 + "$v")
    long = parse(" + ".join(["//a"] * 20000))
    assert parse(str(long)) == long


def test_every_function_can_be_evaluated() -> None:
    assert set(_Evaluator(None).functions) == set(FUNCTIONS)  # type: ignore[arg-type]


TEXTS = [
    'say "x"',
    "//a",
    "//a/b:c",
    ":c",
    "//...",
    "v",
    "in",
    "$v",
    "x y",
    "it's",
    "é",
    "",
    "a+b",
    "deps",
    "image rule",
    "[a-z]+$",
]


@st.composite
def expressions(draw: st.DrawFn, scope: tuple[str, ...] = (), depth: int = 3) -> Expression:
    """Well-formed expressions; variables stand only where a `let` names them."""
    text = st.sampled_from(TEXTS)
    leaf = st.one_of(st.builds(Word, text), *(st.just(Variable(name)) for name in scope))
    below = expressions(scope, depth - 1)
    kind = draw(st.sampled_from(["leaf", "set", "call", "chain", "let"] if depth else ["leaf", "set"]))
    if kind == "leaf":
        word: Word | Variable = draw(leaf)
        return word
    if kind == "set":
        return Set(tuple(draw(st.lists(leaf, max_size=3))))
    if kind == "chain":
        steps = st.lists(st.tuples(st.sampled_from("+-^"), below), min_size=1, max_size=3)
        return Chain(draw(below), tuple(draw(steps)))
    if kind == "let":
        name = draw(st.sampled_from(["v", "w"]))
        return Let(name, draw(below), draw(expressions((*scope, name), depth - 1)))
    call: Call = draw(
        st.one_of(
            st.builds(lambda x, y: Call("somepath", (x, y)), below, below),
            st.builds(lambda x, steps: Call("deps", (x, steps)), below, st.integers(0, 10**9 - 1)),
            st.builds(lambda name, regex, x: Call("attr", (name, regex, x)), text, text, below),
        )
    )
    return call


@given(expressions())
def test_an_expression_is_printed_as_what_it_is(expression: Expression) -> None:
    assert parse(str(expression)) == expression


TOKENS = [*KEYWORDS, *FUNCTIONS, *"()+-^=,$'\"", "//a", "//...", "v", "$v", "3", "'x'", "é", "\n", "(//a", "(//a)", ")"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join)))
def test_garbage_is_refused_or_printed_as_what_it_is(text: str) -> None:
    try:
        expression = parse(text)
    except UsageError as error:
        assert isinstance(error, QueryError)
        assert 0 <= error.column <= len(text)
        assert len(error.where.splitlines()) == 3
    else:
        assert parse(str(expression)) == expression
        assert expression in list(inside(expression))


@pytest.mark.parametrize(
    ("texts", "filters", "expression"),
    [
        (["//a"], (), "//a"),
        (["mnemonic('Go.*', //a - :c)"], (("mnemonic", "Go.*"),), "//a - :c"),
        (["inputs(x, outputs(y, deps(//a)))"], (("inputs", "x"), ("outputs", "y")), "deps(//a)"),
        (["//a", "//b:b", "-:c"], (), "set() + //a + //b:b - :c"),
        (["-//a", "//b:b"], (), "set() - //a + //b:b"),
        (["-//a"], (), "set() - //a"),
    ],
)
def test_filters_of_actions_stand_around_an_expression(
    texts: list[str], filters: tuple[tuple[str, str], ...], expression: str
) -> None:
    assert parse_actions(texts) == (filters, parse(expression))


@pytest.mark.parametrize("texts", [["deps(mnemonic(x, //a))"], ["//a + mnemonic(x, //b)"], ["//a", "mnemonic(x, //b)"]])
def test_a_filter_of_actions_stands_nowhere_else(texts: list[str]) -> None:
    with pytest.raises(QueryError) as caught:
        parse_actions(texts)
    assert caught.value.reason == "misplaced-filter"
    assert "'mnemonic'" in caught.value.message


ACTION = {"mnemonic": "GoBuild", "inputs": {"src/main.go": None, "src/go.mod": None}, "outputs": ["runc"]}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), True),
        ((("mnemonic", "GoBuild"),), True),
        ((("mnemonic", "Go"),), False),
        ((("mnemonic", "Build"),), False),
        ((("mnemonic", "Go.*"),), True),
        ((("inputs", r".*\.go"),), True),
        ((("inputs", "main.go"),), False),
        ((("outputs", "r.*"),), True),
        ((("outputs", "r.*"), ("inputs", "none")), False),
    ],
)
def test_a_filter_must_fit_the_whole_name(filters: tuple[tuple[str, str], ...], expected: bool) -> None:
    assert chosen(ACTION, filters) is expected
